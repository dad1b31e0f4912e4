"""Pictures, tables and the report page by which a user judges a result.

matplotlib is imported only when a picture is drawn, and without pyplot: no global state, no window.
"""

from medfewshot.report.page.viewer import FilmStrip, prepare_case, prepared_path
from medfewshot.report.paint import colour_of
from medfewshot.report.plots import (
    save_curve_plot,
    save_dice_plot,
    save_learning_curve_plot,
    save_volume_plot,
    volume_plot_uri,
)
from medfewshot.report.preview import save_preview
from medfewshot.report.tables import structure_statistics

__all__ = [
    "FilmStrip",
    "colour_of",
    "prepare_case",
    "prepared_path",
    "save_curve_plot",
    "save_preview",
    "save_dice_plot",
    "save_learning_curve_plot",
    "save_volume_plot",
    "structure_statistics",
    "volume_plot_uri",
]
