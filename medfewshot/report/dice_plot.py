"""A plot of the Dice of each structure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io import atomic_path

INK, FAINT, BLUE = "#22272b", "#8a939b", "#0072b2"


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
    from matplotlib.figure import Figure

    if not dice:
        raise InputError("a plot needs the Dice of at least one structure")
    figure = Figure(figsize=(max(3.6, 1.6 + 0.95 * len(dice)), 4.4), layout="constrained", facecolor="white")
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
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.text(1.0, 1.02, "◇ mean", transform=axes.transAxes, ha="right", va="bottom", size=8, color=FAINT)
    axes.set_title("Dice per structure", loc="left", size=11, weight="bold", color=INK, pad=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return Path(path)
