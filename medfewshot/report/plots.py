"""Score plots: the distribution of a score per structure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT = "#22272b", "#8a939b"
# Okabe and Ito (2008), for white paper: told apart with colour blindness, without their yellow.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#6b6b6b")


def save_score_plot(
    path: str | Path, scores_by_label: Mapping[str, Sequence[float]], title: str = "", *, score: str = "Dice"
) -> Path:
    """Draw a box, every score and the mean of each structure; write a PNG atomically.

    Args:
        path: the file to write.
        scores_by_label: structure -> one score per case. Undefined scores (NaN, infinite) are not drawn; their number
            stands beside n. The mean is that of the n defined ones.
        title: of the plot.
        score: what is measured, with its unit.

    Returns:
        ``path``.

    Raises:
        InputError: if there is no structure.
    """
    from matplotlib.figure import Figure

    if not scores_by_label:
        raise InputError("a score plot needs the scores of at least one structure")
    figure = Figure(figsize=(max(3.6, 1.6 + 0.95 * len(scores_by_label)), 4.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot(ylabel=score)
    generator = np.random.default_rng(0)  # only for dots that lie beside each other
    ticks, drawn = [], [np.array([0.0, 1.0])]
    for i, (label, scores) in enumerate(scores_by_label.items()):
        values = np.asarray(list(scores), dtype=np.float64)
        defined = values[np.isfinite(values)]
        undefined = f"\n{len(values) - len(defined)} undefined" if len(defined) < len(values) else ""
        ticks.append(f"{textwrap.fill(label, 14)}\nn = {len(defined)}{undefined}")
        drawn.append(defined)
        if len(defined):
            _draw_structure(axes, i, defined, i + generator.uniform(-0.14, 0.14, len(defined)))
        else:
            axes.text(i, 0.5, "no score", ha="center", va="center", color=FAINT, size=9, rotation=90)
    low, high = np.concatenate(drawn).min(), np.concatenate(drawn).max()
    margin = 0.03 * (high - low)
    axes.set(xlim=(-0.55, len(ticks) - 0.3), ylim=(low - margin, high + margin))
    axes.set_xticks(range(len(ticks)), ticks, size=8.5, parse_math=False)
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.text(1.0, 1.02, "◇ mean", transform=axes.transAxes, ha="right", va="bottom", size=8, color=FAINT)
    axes.set_title(title, loc="left", size=11, weight="bold", color=INK, pad=8, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return Path(path)


def _draw_structure(axes: Axes, place: int, scores: np.ndarray, across: np.ndarray) -> None:
    colour, mean = COLOURS[place % len(COLOURS)], float(scores.mean())
    line = {"color": colour, "linewidth": 1.1}
    axes.boxplot(
        [scores], positions=[place], widths=0.5, showfliers=False, patch_artist=True, whiskerprops=line, capprops=line,
        boxprops={"facecolor": (colour, 0.16), "edgecolor": colour}, medianprops=line | {"linewidth": 1.8},
    )  # fmt: skip
    axes.scatter(across, scores, s=14, color=colour, alpha=0.75, linewidths=0, zorder=3)
    axes.scatter([place], [mean], marker="D", s=34, color="white", edgecolors=INK, linewidths=1.1, zorder=4)
    text = f"{mean:.3f}" if scores.max() <= 10 else f"{mean:.1f}"
    axes.text(place + 0.3, mean, text, va="center", size=8.5, color=INK, zorder=5)
