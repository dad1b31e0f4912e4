"""Pictures and tables to judge a result by: previews of a segmentation, score plots, learning curves, statistics.

matplotlib is imported where a picture is drawn, never before, and without pyplot: no global state, no window.
"""

from medfewshot.report.plots import save_curve, save_score_plot
from medfewshot.report.preview import save_preview
from medfewshot.report.tables import structure_statistics, write_csv

__all__ = ["save_curve", "save_preview", "save_score_plot", "structure_statistics", "write_csv"]
