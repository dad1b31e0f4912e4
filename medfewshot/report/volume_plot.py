"""Bland-Altman plots: how much two volumes of the same structure differ, against their mean."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.agreement import Agreement, agreement
from medfewshot.io import atomic_path
from medfewshot.report.dice_plot import BLUE, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS, COLUMNS = 12, 3
Pairs = Mapping[str, Sequence[tuple[float, float]]]
"""Structure -> (first, second) volume in ml of each case."""


def save_volume_plot(path: Path, pairs: Pairs, *, difference: str = "prediction - reference") -> None:
    """Draw a panel for each structure and write a PNG atomically.

    Args:
        path: The file to write.
        pairs: At most 12 structures are drawn, those with the lowest ICC; those without a case are not.
        difference: What is subtracted from what, for the axis.
    """
    with atomic_path(path) as temporary:
        _figure(pairs, difference).savefig(temporary, format="png", dpi=130)


def volume_plot_uri(pairs: Pairs, *, difference: str = "prediction - reference") -> str | None:
    """Return the same plot as a data URI for a page; None if no structure has a case."""
    if not any(pairs.values()):
        return None
    buffer = io.BytesIO()
    _figure(pairs, difference).savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(pairs: Pairs, difference: str) -> Figure:
    from matplotlib.figure import Figure

    known = {name: np.asarray(values, np.float64) for name, values in pairs.items() if len(values)}
    found = {name: agreement(values[:, 0].tolist(), values[:, 1].tolist()) for name, values in known.items()}
    if len(known) > MOST_PANELS:
        worst = sorted(known, key=lambda name: float(np.nan_to_num(found[name].icc, nan=1.0)))[:MOST_PANELS]
        known = {name: values for name, values in known.items() if name in worst}
    columns = min(COLUMNS, len(known))
    rows = -(-len(known) // columns)
    figure = Figure(figsize=(4.1 * columns, 3.3 * rows + 0.3), layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, known.items(), strict=False):
        _panel(axes, name, values, found[name])
    for axes in panels[len(known) :]:
        axes.set_axis_off()
    figure.supxlabel("mean of both volumes, ml", size=9, color=INK)
    figure.supylabel(f"{difference}, ml", size=9, color=INK)
    if len(known) < len(found):
        figure.suptitle(f"The {len(known)} of {len(found)} structures with the lowest ICC", size=10, color=INK)
    return figure


def _panel(axes: Axes, name: str, values: np.ndarray, found: Agreement) -> None:
    """Draw the cases, the bias as a line and the limits of agreement as dashed lines."""
    axes.axhline(0, color="#c9ced2", linewidth=0.9, zorder=1)
    axes.scatter(values.mean(1), values[:, 0] - values[:, 1], s=16, color=BLUE, alpha=0.65, linewidths=0, zorder=3)
    limits = {found.limit_low, found.limit_high} - {found.bias}
    drawn = [(found.bias, "solid", "bias"), *((limit, "dashed", "") for limit in limits if np.isfinite(limit))]
    digits = max(0, 1 - int(np.floor(np.log10(np.ptp(values[:, 0] - values[:, 1]) or 1))))
    for height, style, text in drawn:
        axes.axhline(height, color=INK, linewidth=1.1, linestyle=style, zorder=2)
        axes.annotate(
            f"{text} {height:+.{digits}f}".strip().replace("-", "−"), (1, height), xycoords=("axes fraction", "data"),
            xytext=(3, 0), textcoords="offset points", va="center", size=7.5, color=INK, annotation_clip=False,
        )  # fmt: skip
    icc = f", ICC {found.icc:.3f}" if np.isfinite(found.icc) else ""
    axes.set_title(
        f"{textwrap.shorten(name, 28, placeholder=' …')}: n = {found.cases}{icc}", loc="left", size=9.5, color=INK,
        parse_math=False,
    )  # fmt: skip
    axes.tick_params(labelsize=8, colors=FAINT, labelcolor=INK)
    axes.margins(x=0.08, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
