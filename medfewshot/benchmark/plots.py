"""Plot Dice against adaptation time, K and structure volume: one panel per dataset, as PNG and SVG."""

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

# Okabe and Ito (2008): distinct with colour blindness, without their yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANEL_INCHES = (3.6, 3.0)
MIN_SECONDS = 0.01
"""Learners that hardly adapt are drawn here: the axis is logarithmic."""
BINS, MIN_BIN_SHARE = 5, 4
"""Bins of structures of similar volume, whose median Dice the line of a learner joins."""


def save_plots(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write ``dice_vs_seconds``, ``dice_vs_shots`` and ``dice_vs_volume`` as PNG and SVG; returns the paths.

    Nothing is drawn if nothing has run, and no volumes if the spacing is nominal.
    """
    done = [group for group in groups if group.results and math.isfinite(group.summaries[-1].dice_mean)]
    learners = list(dict.fromkeys(group.key[2] for group in groups))
    measured = _of_most_shots([group for group in done if group.cell.dataset.distances])
    paths = []
    for name, x_label, draw, shown in (
        ("seconds", "adaptation in seconds", _draw_seconds, done),
        ("shots", "labelled scans (K)", _draw_shots, done),
        ("volume", "volume of the structure in ml", _draw_volume, measured),
    ):
        datasets = dict.fromkeys(group.key[0] for group in shown)
        panels = {
            dataset: partial(draw, groups=[group for group in shown if group.key[0] == dataset], learners=learners)
            for dataset in datasets
        }
        paths += save_panels(panels, x_label, folder / f"dice_vs_{name}")
    return paths


def save_panels(panels: Mapping[str, Callable[[Axes], None]], x_label: str, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, Dice over something; nothing for no panels.

    Args:
        panels: Title -> function that draws on the axes.
        x_label: What is on the horizontal axis.
        stem: Path without suffix.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    if not panels:
        for path in paths:  # of an earlier report
            path.unlink(missing_ok=True)
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
    for path in paths:
        # Without a date and with a fixed salt, the same results give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "medfewshot"}):
            figure.savefig(temporary, format=path.suffix[1:], dpi=130, metadata=metadata)
    return paths


def _draw_seconds(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    shots = list(dict.fromkeys(group.shots_text for group in groups))
    for group in groups:
        marker = MARKERS[shots.index(group.shots_text) % len(MARKERS)]
        style = style_of(learners.index(group.key[2])) | {"marker": marker}
        seconds = max(MIN_SECONDS, group.mean("seconds", "adapt") or 0.0)
        _points(axes, [seconds], [group], markersize=6, alpha=0.9, label=_label(group), **style)
    _log_axis(axes)


def _draw_shots(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    """Points over K; the whole pool is a dashed line, because nobody knows the curve between K = 5 and it."""
    for group in groups:
        if group.whole_pool:
            colour, label = style_of(learners.index(group.key[2]))["color"], f"{group.key[2]}, whole pool"
            axes.axhline(group.summaries[-1].dice_mean, color=colour, linestyle="--", linewidth=1.0, label=label)
    few = sorted((group for group in groups if not group.whole_pool), key=lambda group: group.cell.supports)
    for name in learners:
        mine = [group for group in few if group.key[2] == name]
        if mine:
            style = {"markersize": 4.5, "linewidth": 1.3, "label": name, **style_of(learners.index(name))}
            _points(axes, [group.cell.supports for group in mine], mine, **style)
    axes.set_xticks(sorted({group.cell.supports for group in few}))


def _draw_volume(axes: Axes, groups: Sequence[Group], learners: Sequence[str]) -> None:
    """Draw a point for each structure of each query, over its reference volume; a missed one has Dice 0."""
    for group in groups:
        volumes, dices = volume_and_dice(group)
        style = style_of(learners.index(group.key[2]))
        axes.scatter(volumes, dices, s=10, color=style["color"], marker=style["marker"], alpha=0.45, linewidths=0)
        parts = np.array_split(np.argsort(volumes, kind="stable"), BINS)
        if min(map(len, parts)) < MIN_BIN_SHARE:
            parts = []  # too few for a line
        medians = [[np.median(values[part]) for part in parts] for values in (volumes, dices)]
        axes.plot(*medians, markersize=4.5, linewidth=1.3, label=_label(group), **style)
    _log_axis(axes)


def volume_and_dice(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Reference volume in ml and Dice, averaged over seeds, of each structure that is there in each query."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for result in group.results:
        for score in result.scores:
            if score.reference_volume_ml > 0 and math.isfinite(score.dice):
                found.setdefault((score.case_id, score.label), []).append((score.reference_volume_ml, score.dice))
    means = np.array([np.mean(values, axis=0) for values in found.values()]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def style_of(index: int) -> dict[str, Any]:
    """Return the style of the n-th learner; after the last colour, colours repeat with hollow marks."""
    turn, place = divmod(index, len(COLOURS))
    face = "white" if turn % 2 else COLOURS[place]
    return {"color": COLOURS[place], "marker": MARKERS[place], "markerfacecolor": face}


def _label(group: Group) -> str:
    return f"{group.key[2]}, K = {group.shots_text}"


def _points(axes: Axes, places: Sequence[float], groups: Sequence[Group], **style: Any) -> None:
    """Mean Dice of each group with its interval, if it has one."""
    rows = [group.summaries[-1] for group in groups]
    errors = [(max(0.0, row.dice_mean - row.dice_ci_low), max(0.0, row.dice_ci_high - row.dice_mean)) for row in rows]
    defined = np.nan_to_num(np.transpose(errors))
    axes.errorbar(places, [row.dice_mean for row in rows], yerr=defined, elinewidth=0.8, **style)


def _log_axis(axes: Axes) -> None:
    """Logarithmic, with plain numbers, few enough not to overlap on a short range."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _of_most_shots(groups: Sequence[Group]) -> list[Group]:
    """Return for each dataset and learner the group of the largest K; the whole pool only if there is no other."""
    ranked = sorted(groups, key=lambda group: (not group.whole_pool, group.cell.supports))
    most = {(group.key[0], group.key[2]): group for group in ranked}
    return [group for group in groups if most[group.key[0], group.key[2]] is group]
