"""Plots of results: Dice of each structure, sizes over a film, learning curves and Bland-Altman plots of volumes."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.agreement import Agreement, agreement
from medfewshot.errors import InputError
from medfewshot.evaluation import NEXT, LearningCurve
from medfewshot.io import atomic_path
from medfewshot.report.paint import colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BLUE = "#22272b", "#8a939b", "#0072b2"
MOST_STRUCTURES = 8
LEAST_SPAN = 0.1
"""Of the axis of the Dice: a smaller one makes chance look like a change."""
_COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f", "#a3a500")
MOST_PANELS, COLUMNS = 12, 3
Pairs = Mapping[str, Sequence[tuple[float, float]]]
"""Structure -> (first, second) volume in ml of each case."""


def save_dice_plot(path: str | Path, dice: Mapping[str, Sequence[float]]) -> Path:
    """Draw a box, every value and the mean of each structure; write a PNG atomically.

    Args:
        path: the file to write.
        dice: structure -> one value per case. Undefined values (NaN) are not drawn; their number is beside n. The
            mean is that of the n defined ones.

    Returns:
        ``path``.

    Raises:
        InputError: if there is no structure.
    """
    if not dice:
        raise InputError("a plot needs the Dice of at least one structure")
    figure = _figure(max(3.6, 1.6 + 0.95 * len(dice)), 4.4)
    axes = figure.add_subplot(xlim=(-0.55, len(dice) - 0.3), ylim=(-0.03, 1.03), ylabel="Dice")
    defined = [[value for value in values if math.isfinite(value)] for values in dice.values()]
    axes.boxplot(
        defined, positions=range(len(dice)), widths=0.5, showfliers=False, showmeans=True,
        boxprops={"color": BLUE}, whiskerprops={"color": BLUE}, capprops={"color": BLUE},
        medianprops={"color": BLUE, "linewidth": 1.8},
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": INK, "zorder": 4},
    )  # fmt: skip
    generator = np.random.default_rng(0)  # only for dots that lie beside each other
    ticks = []
    for i, ((name, all_values), values) in enumerate(zip(dice.items(), defined, strict=True)):
        undefined = f"\n{len(all_values) - len(values)} undefined" if len(values) < len(all_values) else ""
        ticks.append(f"{textwrap.fill(name, 14)}\nn = {len(values)}{undefined}")
        across = i + generator.uniform(-0.14, 0.14, len(values))
        axes.scatter(across, values, s=14, color=BLUE, alpha=0.6, linewidths=0, zorder=3)
        if values:
            mean = float(np.mean(values))
            axes.text(i + 0.3, mean, f"{mean:.3f}", va="center", size=8.5, color=INK, zorder=5)
        else:
            axes.text(i, 0.5, "no score", ha="center", va="center", color=FAINT, size=9, rotation=90)
    axes.set_xticks(range(len(dice)), ticks, size=8.5, parse_math=False)
    _with_lines(axes)
    axes.set_axisbelow(True)
    axes.text(1.0, 1.02, "◇ mean", transform=axes.transAxes, ha="right", va="bottom", size=8, color=FAINT)
    axes.set_title("Dice per structure", loc="left", size=11, weight="bold", color=INK, pad=8)
    _save(figure, path)
    return Path(path)


def save_curve_plot(
    path: str | Path,
    sizes: Mapping[str, Sequence[float]],
    *,
    unit: str,
    times_s: Sequence[float] = (),
    marks: Sequence[int] = (),
) -> None:
    """Draw the size of each structure over the frames of a film; write a PNG atomically.

    Args:
        path: the file to write.
        sizes: structure -> one size per frame.
        unit: of the sizes.
        times_s: seconds from the first frame; the frames are numbered if they are unknown.
        marks: frames to mark with a vertical line.
    """
    count = len(next(iter(sizes.values())))
    across = list(times_s) or list(range(count))
    figure = _figure(6.4, 4.0)
    axes = figure.add_subplot(xlabel="time (s)" if times_s else "frame", ylabel=unit)
    for rank, (name, values) in enumerate(sizes.items(), start=1):
        axes.plot(across, values, color=colour_of(rank), label=name, marker=".", linewidth=1.4)
    for frame in marks:
        axes.axvline(across[frame], color=FAINT, linewidth=0.8, linestyle="--")
        axes.annotate(f"frame {frame}", (across[frame], 1), xycoords=("data", "axes fraction"), size=7, color=INK)
    axes.set_ylim(bottom=0)
    _with_lines(axes)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
    _save(figure, path)


def save_learning_curve_plot(path: Path, curve: LearningCurve) -> None:
    """Draw the mean Dice with its 95 % interval, each structure, and the expected value with five more labelled scans.

    Args:
        path: The file to write, a PNG.
        curve: A curve with at least one point. Of many structures, the eight lowest are drawn.
    """
    figure = _figure(6.2, 4.2)
    axes = figure.add_subplot(xlabel="labelled scans", ylabel="Dice on other scans")
    structures = {point.structure for point in curve.points} - {curve.overall[0].structure}
    if len(structures) > 1:
        last = {point.structure: point.dice for point in curve.points}
        lowest = sorted(structures, key=last.__getitem__)[:MOST_STRUCTURES]
        for name, colour in zip(lowest, cycle(_COLOURS), strict=False):
            own = [point for point in curve.points if point.structure == name]
            axes.plot([p.shots for p in own], [p.dice for p in own], color=colour, linewidth=1, label=name, zorder=2)
    shots, dice = ([*values] for values in zip(*((point.shots, point.dice) for point in curve.overall), strict=True))
    _interval(axes, curve)
    axes.plot(shots, dice, color=BLUE, marker="o", linewidth=2, label="all structures", zorder=4)
    gain, low, high = curve.gain
    if np.isfinite(gain) and curve.rises:  # as the sentence about it says
        along = np.linspace(shots[0], curve.labelled + NEXT, 100)
        fitted = curve.expected(along)
        axes.plot(along, fitted, color=INK, linewidth=1, linestyle="dotted", label="fitted power law", zorder=1)
        axes.errorbar(
            along[-1], fitted[-1], yerr=[[max(0, gain - low)], [max(0, high - gain)]], color=INK, marker="D",
            markerfacecolor="white", capsize=3, linestyle="none", label=f"expected with {NEXT} more", zorder=3,
        )  # fmt: skip
        axes.set_xticks([*shots, curve.labelled + NEXT])
    else:
        axes.set_xticks(shots)
    low, high = axes.get_ylim()
    room = max(0.0, LEAST_SPAN - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    _with_lines(axes)
    axes.set_axisbelow(True)
    for text in axes.legend(frameon=False, fontsize=8.5, loc="lower right").get_texts():
        text.set_parse_math(False)
    _save(figure, path)


def save_volume_plot(path: Path, pairs: Pairs, *, difference: str = "prediction - reference") -> None:
    """Draw a Bland-Altman plot: how much two volumes of a structure differ, against their mean. Write a PNG atomically.

    Args:
        path: The file to write.
        pairs: At most 12 structures are drawn, those with the lowest ICC; those without a case are not.
        difference: What is subtracted from what, for the axis.
    """
    _save(_volume_figure(pairs, difference), path)


def volume_plot_uri(pairs: Pairs, *, difference: str = "prediction - reference") -> str | None:
    """Return the same plot as a data URI for a page; None if no structure has a case."""
    if not any(pairs.values()):
        return None
    buffer = io.BytesIO()
    _volume_figure(pairs, difference).savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _with_lines(axes: Axes) -> None:
    """Draw faint horizontal lines, and no frame at the top and on the right."""
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _interval(axes: Axes, curve: LearningCurve) -> None:
    known: Sequence[tuple[int, float, float]] = [
        (p.shots, p.ci_low, p.ci_high) for p in curve.overall if np.isfinite(p.ci_low)
    ]
    if known:
        shots, low, high = zip(*known, strict=True)
        axes.fill_between(shots, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval", zorder=1)


def _volume_figure(pairs: Pairs, difference: str) -> Figure:
    known = {name: np.asarray(values, np.float64) for name, values in pairs.items() if len(values)}
    found = {name: agreement(values[:, 0].tolist(), values[:, 1].tolist()) for name, values in known.items()}
    if len(known) > MOST_PANELS:
        worst = sorted(known, key=lambda name: float(np.nan_to_num(found[name].icc, nan=1.0)))[:MOST_PANELS]
        known = {name: values for name, values in known.items() if name in worst}
    columns = min(COLUMNS, len(known))
    rows = -(-len(known) // columns)
    figure = _figure(4.1 * columns, 3.3 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, known.items(), strict=False):
        _volume_panel(axes, name, values, found[name])
    for axes in panels[len(known) :]:
        axes.set_axis_off()
    figure.supxlabel("mean of both volumes, ml", size=9, color=INK)
    figure.supylabel(f"{difference}, ml", size=9, color=INK)
    if len(known) < len(found):
        figure.suptitle(f"The {len(known)} of {len(found)} structures with the lowest ICC", size=10, color=INK)
    return figure


def _volume_panel(axes: Axes, name: str, values: np.ndarray, found: Agreement) -> None:
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
