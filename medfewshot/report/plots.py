"""Figures about numbers: the distribution of a score per structure, and how a quantity ran over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#22272b", "#8a939b"
# Okabe and Ito (2008), for white paper: told apart with colour blindness, their yellow left out.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#6b6b6b")
DPI = 130


def save_score_plot(
    path: str | Path, scores_by_label: Mapping[str, Sequence[float]], title: str = "", *, score: str = "Dice"
) -> Path:
    """A box, every single score and the mean, per structure; written atomically as PNG. Returns ``path``.

    ``scores_by_label``: structure -> one score per case. Undefined scores (NaN, infinite) are not drawn; their number
    stands beside n. The mean is that of the n defined ones.
    """
    if not scores_by_label:
        raise InputError("a score plot needs the scores of at least one structure")
    figure, axes = _figure(max(3.6, 1.6 + 0.95 * len(scores_by_label)), 4.4, title)
    generator = np.random.default_rng(0)  # only where dots lie beside each other
    ticks, low, high = [], 0.0, 1.0
    for i, (label, scores) in enumerate(scores_by_label.items()):
        values = np.asarray(list(scores), dtype=np.float64)
        defined = values[np.isfinite(values)]
        count = f"n = {len(defined)}"
        if len(defined) < len(values):
            count += f"\n{len(values) - len(defined)} undefined"
        ticks.append(f"{_wrap(label)}\n{count}")
        if len(defined) == 0:
            axes.text(i, 0.5, "no score", ha="center", va="center", color=FAINT, size=9, rotation=90)
            continue
        low, high = min(low, float(defined.min())), max(high, float(defined.max()))
        colour = COLOURS[i % len(COLOURS)]
        axes.boxplot(
            [defined],
            positions=[i],
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": (colour, 0.16), "edgecolor": colour, "linewidth": 1.1},
            medianprops={"color": colour, "linewidth": 1.8},
            whiskerprops={"color": colour, "linewidth": 1.0},
            capprops={"color": colour, "linewidth": 1.0},
        )
        across = i + generator.uniform(-0.14, 0.14, len(defined))
        axes.scatter(across, defined, s=14, color=colour, alpha=0.75, linewidths=0, zorder=3)
        mean = float(defined.mean())
        axes.scatter([i], [mean], marker="D", s=34, color="white", edgecolors=INK, linewidths=1.1, zorder=4)
        axes.annotate(
            f"{mean:.3f}" if high <= 10 else f"{mean:.1f}",
            (i + 0.28, mean),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=INK,
            zorder=5,
        )
    axes.set_xticks(range(len(ticks)), ticks, size=8.5)
    margin = 0.03 * (high - low)
    axes.set(xlim=(-0.55, len(ticks) - 0.3), ylim=(low - margin, high + margin), ylabel=score)
    axes.text(1.0, 1.02, "◇ mean", transform=axes.transAxes, ha="right", va="bottom", size=8, color=FAINT)
    return _save(figure, path)


def save_curve(
    path: str | Path,
    steps: Sequence[float],
    values_by_name: Mapping[str, Sequence[float]],
    title: str = "",
    *,
    x_label: str = "step",
    y_label: str = "loss",
) -> Path:
    """Lines over common steps; written atomically as PNG. Returns ``path``.

    ``values_by_name``: name -> one value per step. A value that is not finite leaves a gap.
    """
    for name, values in values_by_name.items():
        if len(values) != len(steps):
            raise InputError(f"the curve '{name}' has {len(values)} values for {len(steps)} steps")
    figure, axes = _figure(6.4, 3.9, title)
    for i, (name, values) in enumerate(values_by_name.items()):
        y = np.asarray(list(values), dtype=np.float64)
        y[~np.isfinite(y)] = np.nan
        marker = "o" if len(steps) <= 30 else ""
        axes.plot(steps, y, color=COLOURS[i % len(COLOURS)], linewidth=1.5, marker=marker, markersize=3.5, label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    if len(values_by_name) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return _save(figure, path)


def _figure(width_in: float, height_in: float, title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.label.set_color(INK)
    if title:
        axes.set_title(title, loc="left", size=11, weight="bold", color=INK, pad=8)
    return figure, axes


def _save(figure: Figure, path: str | Path) -> Path:
    from medfewshot.io import atomic_path

    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def _wrap(label: str, width: int = 14) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(label, width)) or label
