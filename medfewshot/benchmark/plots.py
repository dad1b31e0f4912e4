"""Dice against adaptation seconds, K and a structure's volume: one panel per dataset, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medfewshot.benchmark.results import Group
from medfewshot.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008): told apart with colour blindness, their yellow left out.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL_INCHES = (3.6, 3.0)
LEAST_SECONDS = 0.01
"""Learners that hardly adapt are drawn here: the axis is logarithmic."""
BINS, LEAST_OF_A_BIN = 5, 4
"""Structures of like volume, whose median Dice the line of a learner runs through."""


def save_plots(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write ``dice_vs_seconds``, ``dice_vs_shots`` and ``dice_vs_volume``; returns the paths.

    None where nothing has been run; no volumes where the spacing is nominal.
    """
    done = [group for group in groups if group.results and math.isfinite(group.summaries[-1].dice_mean)]
    if not done:
        return []
    learners = list(dict.fromkeys(group.key[2] for group in groups))
    return [
        *_save(done, learners, _draw_seconds, "adaptation in seconds", folder / "dice_vs_seconds"),
        *_save(done, learners, _draw_shots, "labelled scans (K)", folder / "dice_vs_shots"),
        *_save(
            _of_most_shots([group for group in done if group.cell.dataset.distances]),
            learners,
            _draw_volume,
            "volume of the structure in ml",
            folder / "dice_vs_volume",
        ),
    ]


def _save(
    groups: Sequence[Group], learners: Sequence[str], draw: Callable[..., None], x_label: str, stem: Path
) -> list[Path]:
    """A panel for each dataset."""
    panels = {
        dataset: partial(draw, groups=[group for group in groups if group.key[0] == dataset], learners=learners)
        for dataset in dict.fromkeys(group.key[0] for group in groups)
    }
    return save_panels(panels, x_label, stem)


def save_panels(panels: Mapping[str, Callable[[Axes], None]], x_label: str, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, Dice over something; ``panels``: title -> what draws it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not panels:
        return []
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns + 1.6, height * rows + 0.5), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (title, draw) in zip(axes, panels.items(), strict=False):
        draw(panel)
        panel.set(title=title, xlabel=x_label, ylabel="Dice")
        panel.grid(color="#e3e6e8", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    handles = {text: line for panel in axes for line, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", frameon=False, fontsize=8)
    paths = []
    for kind in ("png", "svg"):
        paths.append(stem.with_suffix(f".{kind}"))
        # Without a date and with a fixed salt, the same results give the same file.
        with atomic_path(paths[-1]) as temporary, rc_context({"svg.hashsalt": "medfewshot"}):
            figure.savefig(temporary, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return paths


def _draw_seconds(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    shots = list(dict.fromkeys(group.shots_text for group in groups))  # they come in this order
    for group in groups:
        style = _style(group, learners) | {"marker": MARKERS[shots.index(group.shots_text) % len(MARKERS)]}
        seconds = max(LEAST_SECONDS, group.mean("seconds", "adapt") or 0.0)
        summary = group.summaries[-1]
        axes.errorbar([seconds], [summary.dice_mean], yerr=_error(group), markersize=6, elinewidth=0.8, alpha=0.9,
                      label=f"{group.key[2]}, K = {group.shots_text}", **style)  # fmt: skip
    _log_axis(axes)


def _draw_shots(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    """Points over K; the whole pool is a dashed line across, for there is no telling how K goes on from 5 to it."""
    for group in groups:
        if group.whole_pool:
            axes.axhline(group.summaries[-1].dice_mean, color=_style(group, learners)["color"], linestyle="--",
                         linewidth=1.0, label=f"{group.key[2]}, whole pool")  # fmt: skip
    few = [group for group in groups if not group.whole_pool]
    for name in learners:
        mine = sorted((group for group in few if group.key[2] == name), key=lambda group: group.cell.supports)
        if not mine:
            continue
        below, above = zip(*[(e[0][0], e[1][0]) for e in (_error(group) for group in mine)], strict=True)
        axes.errorbar([group.cell.supports for group in mine], [group.summaries[-1].dice_mean for group in mine],
                      yerr=[below, above], markersize=4.5, linewidth=1.3, elinewidth=0.8, label=name,
                      **_style(mine[0], learners))  # fmt: skip
    axes.set_xticks(sorted({group.cell.supports for group in few}))


def _draw_volume(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    """A point for each structure of each query, over its reference volume; a missed one has Dice 0."""
    for group in groups:
        volumes, dices = volume_and_dice(group)
        style = _style(group, learners)
        axes.scatter(volumes, dices, s=10, color=style["color"], marker=style["marker"], alpha=0.45, linewidths=0)
        parts = [part for part in np.array_split(np.argsort(volumes, kind="stable"), BINS) if len(part)]
        if len(parts) < BINS or min(map(len, parts)) < LEAST_OF_A_BIN:
            parts = []  # too few for a line
        axes.plot([np.median(volumes[part]) for part in parts], [np.median(dices[part]) for part in parts],
                  markersize=4.5, linewidth=1.3, label=f"{group.key[2]}, K = {group.shots_text}", **style)  # fmt: skip
    _log_axis(axes)


def _log_axis(axes: Axes) -> None:
    """With plain numbers, few enough not to run into one another over a short range."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def volume_and_dice(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Reference volume in ml and Dice, averaged over seeds, of each structure that is there in each query."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for result in group.results:
        for score in result.scores:
            if score.reference_volume_ml > 0 and math.isfinite(score.dice):
                found.setdefault((score.case_id, score.label), []).append((score.reference_volume_ml, score.dice))
    means = np.array([np.mean(values, axis=0) for values in found.values()]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def _of_most_shots(groups: Sequence[Group]) -> list[Group]:
    """Of each dataset and learner the group of the largest K; the whole pool only where there is no other."""
    most: dict[tuple[str, str], Group] = {}
    for group in groups:
        before = most.get((group.key[0], group.key[2]))
        order = (not group.whole_pool, group.cell.supports)
        if before is None or order > (not before.whole_pool, before.cell.supports):
            most[group.key[0], group.key[2]] = group
    return list(most.values())


def _style(group: Group, learners: Sequence[str]) -> dict[str, Any]:
    return style_of(learners.index(group.key[2]))


def style_of(index: int) -> dict[str, Any]:
    """How matplotlib draws the n-th learner: where the colours have run out they begin anew with hollow marks."""
    turn, place = divmod(index, len(COLOURS))
    face = "white" if turn % 2 else COLOURS[place]
    return {"color": COLOURS[place], "marker": MARKERS[place], "markerfacecolor": face}


def _error(group: Group) -> list[list[float]]:
    """Distances from the mean to both ends of its interval, 0 where there is none."""
    row = group.summaries[-1]
    if not math.isfinite(row.dice_ci_low):
        return [[0.0], [0.0]]
    return [[max(0.0, row.dice_mean - row.dice_ci_low)], [max(0.0, row.dice_ci_high - row.dice_mean)]]
