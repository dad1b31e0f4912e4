"""Paints a prepared scene with matplotlib: the figure, its panels and its legend. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from medfewshot.report import display

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
BLACK, WHITE, GREY, RED = "#000000", "#f2f2f2", "#9aa3ab", "#ff4d4d"

# Okabe and Ito (2008), their blue lightened to be seen on black, then hues between; told apart with colour blindness.
COLOURS = (
    "#e69f00", "#56b4e9", "#00b283", "#f0e442", "#d96bb0", "#ff6b35", "#4f86f7",
    "#b8e06c", "#c9a0ff", "#8c6d31", "#7fdbda", "#ff9da7", "#a3a500", "#bab0ac",
)  # fmt: skip

MAX_ENTRIES = 14
MAX_FLAGS = 4
GAP, HEADER, LEGEND, FLAG = 0.06, 0.72, 2.75, 0.19  # inches


@dataclass(frozen=True)
class Scene:
    """What is to be painted, in RAS+ order. Labels are ranks: 0 is background, rank r has the colour ``colours[r]``."""

    grid: display.Grid
    image: np.ndarray
    ranks: np.ndarray
    reference: np.ndarray | None
    uncertainty: np.ndarray | None
    colours: tuple[str, ...]
    window: tuple[float, float]
    structures: np.ndarray  # ranks of the segmentation or the reference: where to look
    flat: bool
    raster: bool  # a flat picture without a patient: no letters

    @property
    def in_pixels(self) -> bool:
        """A picture whose file knows no spacing: no millimetres either."""
        return self.raster and all(abs(s - 1.0) < 1e-9 for s in self.grid.spacing_mm)

    def amount(self, voxels: int) -> str:
        if self.in_pixels:
            return f"{voxels} px"
        edges = [s for axis, s in zip(self.grid.axis, self.grid.spacing_mm, strict=True) if axis < 2 or not self.flat]
        return display.amount(voxels, edges)


@dataclass(frozen=True)
class View:
    """The slice ``index`` across the RAS axis ``normal``."""

    normal: int
    index: int


@dataclass(frozen=True)
class Entry:
    """One structure in the legend."""

    colour: str
    name: str
    text: str
    found: bool

    @property
    def missing(self) -> bool:
        return not self.found and not self.text.startswith("absent")


def figure(
    scene: Scene,
    views: Sequence[View],
    entries: Sequence[Entry],
    title: str,
    facts: str,
    flags: Sequence[str] = (),
) -> Figure:
    """Columns are views; rows are the whole field, the zoom and, where there is one, the zoom with the uncertainty.

    A flat image has one view: its rows then stand side by side.
    """
    from matplotlib.figure import Figure

    anything = bool(scene.structures.any())
    modes = ["field"] + ["zoom"] * anything + ["doubt"] * (scene.uncertainty is not None)
    columns, rows = (len(modes), 1) if scene.flat else (len(views), len(modes))
    width_in = 4.6 if scene.flat else {3: 3.7, 4: 2.9, 5: 2.6}.get(columns, 2.4)
    extents = [display.extent_mm(scene.grid, view.normal) for view in views]
    aspect = float(np.clip(np.median([h / w for w, h in extents]), 0.72, 1.2))
    height_in = width_in * aspect
    width = columns * (width_in + GAP) + GAP + LEGEND
    told = _told(flags, width)
    header = HEADER + FLAG * len(told)
    total = (width, header + rows * (height_in + GAP) + GAP)
    if rows == 1:
        total = (total[0], max(total[1], header + 0.4 * len(entries) + 1.2))
    fig = Figure(figsize=total, facecolor=BLACK)

    def add(left: float, top: float, width: float, height: float) -> Axes:
        """Axes by their place from the upper left corner, in inches."""
        return fig.add_axes((left / total[0], 1 - (top + height) / total[1], width / total[0], height / total[1]))

    for i, view in enumerate(views):
        field = display.field_mm(scene.grid, view.normal, aspect)
        together = np.any([_cut(scene.structures, v) > 0 for v in views if v.normal == view.normal], axis=0)
        near = display.zoom_mm(together, scene.grid, view.normal, aspect) if anything else field
        first = i == 0 or views[i - 1].normal != view.normal
        for j, mode in enumerate(modes):
            column, row = (j, 0) if scene.flat else (i, j)
            axes = add(GAP + column * (width_in + GAP), header + row * (height_in + GAP), width_in, height_in)
            limits = field if mode == "field" else near
            _panel(axes, scene, view, limits, mode)
            if mode == "field":
                _caption(axes, scene, view)
            if mode == "field" and near[1] - near[0] < 0.95 * (field[1] - field[0]):
                _rectangle(axes, near)
            if first and mode != "doubt" and not scene.in_pixels:
                _scale_bar(axes, limits)
            if mode == "field" and i == 0 and not any(entry.found for entry in entries):
                _text(axes, 0.5, 0.12, "nothing found", ha="center", va="bottom", size=15, weight="bold", color=RED)

    # Names are the user's, and a dollar sign in them starts no formula.
    plain: dict[str, Any] = {"x": 0.14 / total[0], "va": "center", "parse_math": False}
    fig.text(y=1 - 0.27 / total[1], s=title, color=WHITE, size=14, weight="bold", **plain)
    fig.text(y=1 - 0.54 / total[1], s=facts, color=GREY, size=8.5, **plain)
    for i, line in enumerate(told):
        fig.text(y=1 - (0.54 + FLAG * (i + 1)) / total[1], s=line, color=RED, size=8.5, **plain)
    left = GAP + columns * (width_in + GAP)
    height = total[1] - header
    _legend(add(left, header, LEGEND, height), height, scene, entries)
    return fig


def _told(flags: Sequence[str], width_in: float) -> list[str]:
    """The flags as lines of a width that fits."""
    wide = int(width_in * 15)
    return [line for flag in flags[:MAX_FLAGS] for line in wrap(f"look closely: {flag}", wide)]


def _panel(axes: Axes, scene: Scene, view: View, limits: Sequence[float], mode: str) -> None:
    width, height = display.extent_mm(scene.grid, view.normal)
    low, high = scene.window
    place: dict[str, Any] = {"extent": (0.0, width, 0.0, height), "origin": "lower", "aspect": "auto"}
    grey = np.nan_to_num(np.asarray(_cut(scene.image, view), dtype=np.float32), nan=low, posinf=high, neginf=low)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", **place)
    ranks = _cut(scene.ranks, view)
    if mode == "field":
        axes.imshow(_fill(ranks, scene.colours), interpolation="nearest", **place)
    if mode == "doubt" and scene.uncertainty is not None:
        doubt = _cut(scene.uncertainty, view)
        top = doubt_max(scene)
        alpha = np.clip(doubt / top, 0, 1) ** 0.7 * 0.85
        axes.imshow(doubt, cmap="inferno", vmin=0, vmax=top, alpha=alpha, interpolation="nearest", **place)
    thick = 1.0 if mode == "field" else 1.5
    for rank in np.unique(ranks):
        if rank:
            colour, line = (WHITE, 0.8) if mode == "doubt" else (scene.colours[rank], thick)
            _contour(axes, ranks == rank, width, height, colour, line)
    if scene.reference is not None and mode != "doubt":
        truth = _cut(scene.reference, view)
        for rank in np.unique(truth):
            if rank:
                _contour(axes, truth == rank, width, height, "white", thick * 0.75, dashed=True)
    axes.set(xlim=limits[:2], ylim=limits[2:], xticks=[], yticks=[], facecolor=BLACK)
    for spine in axes.spines.values():
        spine.set(color="#2c3136", linewidth=0.6)


def doubt_max(scene: Scene) -> float:
    """The top of the uncertainty's scale: its largest value, never 0."""
    largest = 0.0 if scene.uncertainty is None else float(scene.uncertainty.max())
    return largest if largest > 0 else 1.0


def _cut(volume: np.ndarray, view: View) -> np.ndarray:
    return display.picture(volume, view.normal, view.index)


def _fill(ranks: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """``(rows, columns, 4)`` RGBA: the faint fill of each structure."""
    from matplotlib.colors import to_rgba

    return np.array([to_rgba(c, 0.2) if c else (0, 0, 0, 0) for c in colours])[ranks]


def _contour(
    axes: Axes, mask: np.ndarray, width: float, height: float, colour: str, thick: float, dashed: bool = False
) -> None:
    """The border of a mask, drawn half-way between voxel centres; a voxel of margin closes it at the picture's edge."""
    from matplotlib.patheffects import Normal, Stroke

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    dx, dy = width / mask.shape[1], height / mask.shape[0]
    x, y = (np.arange(c0 - 1, c1 + 1) + 0.5) * dx, (np.arange(r0 - 1, r1 + 1) + 0.5) * dy
    lines = axes.contour(x, y, np.pad(mask[r0:r1, c0:c1].astype(np.float32), 1), levels=[0.5], colors=[colour])
    lines.set(linewidth=thick, linestyle=(0, (3.5, 2.5)) if dashed else "solid")
    if not dashed:
        lines.set(path_effects=[Stroke(linewidth=thick + 1.2, foreground="black", alpha=0.45), Normal()])


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    from matplotlib.patheffects import withStroke

    style = {"color": WHITE, "size": 9, **style}
    outline = [withStroke(linewidth=2.2, foreground="black")]
    axes.text(x, y, text, transform=axes.transAxes, path_effects=outline, **style)


def _caption(axes: Axes, scene: Scene, view: View) -> None:
    """The plane, the slice and the directions of the patient."""
    if scene.raster:
        return
    left, right, bottom, top = display.side_letters(scene.grid, view.normal)
    name = display.PLANES[view.normal][0]
    if scene.grid.oblique_degrees(view.normal) > 20:
        name = "oblique"  # the letters say how
    _text(axes, 0.015, 0.5, left, va="center", weight="bold")
    _text(axes, 0.985, 0.5, right, va="center", ha="right", weight="bold")
    _text(axes, 0.5, 0.015, bottom, ha="center", va="bottom", weight="bold")
    _text(axes, 0.5, 0.985, top, ha="center", va="top", weight="bold")
    if not scene.flat:
        slice_number = scene.grid.file_index(view.normal, view.index) + 1
        name = f"{name} {slice_number}/{scene.grid.shape[view.normal]}"
    _text(axes, 0.02, 0.98, name, va="top", size=8, color="#d5dade")


def _rectangle(axes: Axes, near: Sequence[float]) -> None:
    """Where the zoom is taken from."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = near
    place = (left, bottom), right - left, top - bottom
    axes.add_patch(Rectangle(*place, edgecolor=GREY, linewidth=0.7, linestyle=(0, (2, 3)), facecolor="none"))


def _scale_bar(axes: Axes, limits: Sequence[float]) -> None:
    span = limits[1] - limits[0]
    length = display.round_length_mm(span)
    end = 0.97
    line = axes.plot([end - length / span, end], [0.035, 0.035], transform=axes.transAxes, color=WHITE, linewidth=2.2)
    line[0].set_solid_capstyle("butt")
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    _text(axes, end - length / span / 2, 0.05, text, ha="center", va="bottom", size=7.5)


def _legend(axes: Axes, height: float, scene: Scene, entries: Sequence[Entry]) -> None:
    """Names and volumes; axes in inches from the upper left corner of a column of ``height``."""
    from matplotlib.patches import Rectangle

    axes.set(xlim=(0, LEGEND), ylim=(height, 0))
    axes.set_axis_off()
    y = 0.18
    if not any(entry.found for entry in entries):
        axes.text(0.15, y, "nothing found", color=RED, size=13, weight="bold", va="center")
        y += 0.36
    for entry in entries[:MAX_ENTRIES]:
        axes.add_patch(
            Rectangle(
                (0.15, y - 0.07), 0.16, 0.14, facecolor=(entry.colour, 0.35), edgecolor=entry.colour, linewidth=1.3
            )
        )
        name = entry.name if len(entry.name) <= 30 else entry.name[:29] + "…"
        axes.text(0.42, y, name, color=WHITE if entry.found else GREY, size=10, va="center", parse_math=False)
        axes.text(0.42, y + 0.17, entry.text, color=RED if entry.missing else GREY, size=8.5, va="center")
        y += 0.42
    if len(entries) > MAX_ENTRIES:
        axes.text(0.42, y, f"and {len(entries) - MAX_ENTRIES} more", color=GREY, size=9, va="center")
        y += 0.3
    if scene.reference is not None:
        y += 0.05
        axes.plot([0.12, 0.34], [y, y], color="white", linewidth=1.1, linestyle=(0, (3.5, 2.5)))
        axes.text(0.42, y, "reference", color=WHITE, size=10, va="center")
        y += 0.36
    if scene.uncertainty is not None:
        axes.text(0.15, y, "uncertainty", color=WHITE, size=10, va="center")
        ramp = np.linspace(0, 1, 128)[None]
        axes.imshow(ramp, cmap="inferno", extent=(0.15, 2.15, y + 0.3, y + 0.17), aspect="auto")
        axes.text(0.15, y + 0.4, "0", color=GREY, size=8, va="center")
        axes.text(2.15, y + 0.4, f"{doubt_max(scene):.2g}", color=GREY, size=8, va="center", ha="right")
        axes.set(xlim=(0, LEGEND), ylim=(height, 0))
