"""Paint a prepared scene with matplotlib: the figure, its panels and its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from medfewshot.report import display

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
BLACK, WHITE, GREY, RED = "#000000", "#f2f2f2", "#9aa3ab", "#ff4d4d"
DASHED = (0, (3.5, 2.5))

# Okabe and Ito (2008), their blue lightened to be seen on black, then hues between; told apart with colour blindness.
COLOURS = (
    "#e69f00", "#56b4e9", "#00b283", "#f0e442", "#d96bb0", "#ff6b35", "#4f86f7",
    "#b8e06c", "#c9a0ff", "#8c6d31", "#7fdbda", "#ff9da7", "#a3a500", "#bab0ac",
)  # fmt: skip

MAX_ENTRIES = 14
MAX_FLAGS = 4
GAP, HEADER, LEGEND, ENTRY, FLAG = 0.06, 0.72, 2.75, 0.42, 0.19  # inches


@dataclass(frozen=True)
class Scene:
    """What is painted, in RAS+ order. Label maps hold ranks: 0 is background, rank r has the colour ``colours[r]``.

    Attributes:
        grid: how the file's axes become RAS+ axes.
        image: ``(X, Y, Z)``.
        ranks: ``(X, Y, Z)``, the segmentation.
        reference: ``(X, Y, Z)``.
        uncertainty: ``(X, Y, Z)``, 0 is certain.
        colours: one per rank.
        window: intensities shown black and white.
        structures: ``(X, Y, Z)`` ranks of the segmentation or the reference: where to look.
        flat: a 2D image.
        raster: a 2D image that belongs to no patient, e.g. a PNG: no letters.
    """

    grid: display.Grid
    image: np.ndarray
    ranks: np.ndarray
    reference: np.ndarray | None
    uncertainty: np.ndarray | None
    colours: tuple[str, ...]
    window: tuple[float, float]
    structures: np.ndarray
    flat: bool
    raster: bool

    @property
    def in_pixels(self) -> bool:
        """Whether the file has no spacing, so that nothing is given in millimetres."""
        return self.raster and all(abs(s - 1.0) < 1e-9 for s in self.grid.spacing_mm)

    @property
    def largest_uncertainty(self) -> float:
        """The top of the uncertainty's colour scale, never 0."""
        largest = 0.0 if self.uncertainty is None else float(self.uncertainty.max())
        return largest if largest > 0 else 1.0

    def amount(self, voxels: int) -> str:
        """The size of so many voxels, in the unit of the scene."""
        if self.in_pixels:
            return f"{voxels} px"
        edges = [s for axis, s in zip(self.grid.axis, self.grid.spacing_mm, strict=True) if axis < 2 or not self.flat]
        return display.amount(voxels, edges)


@dataclass(frozen=True)
class View:
    """The slice ``index`` across the RAS axis ``normal``."""

    normal: int
    index: int

    def of(self, volume: np.ndarray) -> np.ndarray:
        """The slice as ``(rows, columns)``, row 0 at the bottom."""
        return display.picture(volume, self.normal, self.index)


@dataclass(frozen=True)
class Entry:
    """One structure in the legend."""

    colour: str
    name: str
    text: str
    found: bool
    expected: bool = True
    """False if the reference has no such structure either."""


def figure(
    scene: Scene,
    views: Sequence[View],
    entries: Sequence[Entry],
    *,
    title: str,
    facts: str,
    flags: Sequence[str] = (),
) -> Figure:
    """Paint the views as columns; rows are the whole field, the zoom and the zoom with the uncertainty.

    Rows without content are left out. A 2D image has one view: its rows then stand side by side.
    """
    from matplotlib.figure import Figure

    anything = bool(scene.structures.any())
    modes = ["field"] + ["zoom"] * anything + ["doubt"] * (scene.uncertainty is not None)
    columns, rows = (len(modes), 1) if scene.flat else (len(views), len(modes))
    width_in = 4.6 if scene.flat else {3: 3.7, 4: 2.9, 5: 2.6}.get(columns, 2.4)
    extents = [display.extent_mm(scene.grid, view.normal) for view in views]
    aspect = float(np.clip(np.median([h / w for w, h in extents]), 0.72, 1.2))
    height_in = width_in * aspect
    panels = GAP + columns * (width_in + GAP)
    lines = [line for flag in flags[:MAX_FLAGS] for line in wrap(f"look closely: {flag}", int((panels + LEGEND) * 15))]
    header = HEADER + FLAG * len(lines)
    height = header + rows * (height_in + GAP) + GAP
    if rows == 1:
        height = max(height, header + ENTRY * len(entries) + 1.2)
    fig = Figure(figsize=(panels + LEGEND, height), facecolor=BLACK)

    def add(left: float, top: float, width: float, height_: float) -> Axes:
        """Axes by their place from the upper left corner, in inches."""
        total = panels + LEGEND
        return fig.add_axes((left / total, 1 - (top + height_) / height, width / total, height_ / height))

    for i, view in enumerate(views):
        field = display.field_mm(scene.grid, view.normal, aspect)
        together = np.any([v.of(scene.structures) > 0 for v in views if v.normal == view.normal], axis=0)
        near = display.zoom_mm(together, scene.grid, view.normal, aspect) if anything else field
        first = i == 0 or views[i - 1].normal != view.normal
        for j, mode in enumerate(modes):
            column, row = (j, 0) if scene.flat else (i, j)
            axes = add(GAP + column * (width_in + GAP), header + row * (height_in + GAP), width_in, height_in)
            limits = field if mode == "field" else near
            _panel(axes, scene, view, limits, mode)
            if mode == "field":
                _caption(axes, scene, view)
                if near[1] - near[0] < 0.95 * (field[1] - field[0]):
                    _rectangle(axes, near)
                if i == 0 and not any(entry.found for entry in entries):
                    _text(axes, 0.5, 0.12, "nothing found", ha="center", va="bottom", size=15, weight="bold", color=RED)
            if first and mode != "doubt" and not scene.in_pixels:
                _scale_bar(axes, limits[1] - limits[0])

    texts = [(0.27, title, WHITE, 14), (0.54, facts, GREY, 8.5)]
    texts += [(0.54 + FLAG * i, line, RED, 8.5) for i, line in enumerate(lines, start=1)]
    left = 0.14 / (panels + LEGEND)
    for y, text, colour, size in texts:  # a dollar sign in a user's name starts no formula
        weight = "bold" if text == title else "normal"
        fig.text(left, 1 - y / height, text, color=colour, size=size, weight=weight, va="center", parse_math=False)
    _legend(fig, scene, entries, (panels / (panels + LEGEND), 1 - header / height))
    if scene.uncertainty is not None:
        _colour_bar(add(panels + 0.15, height - 0.45, 2.0, 0.13), scene.largest_uncertainty)
    return fig


def _panel(axes: Axes, scene: Scene, view: View, limits: Sequence[float], mode: str) -> None:
    width, height = display.extent_mm(scene.grid, view.normal)
    low, high = scene.window
    place: dict[str, Any] = {"extent": (0.0, width, 0.0, height), "origin": "lower", "aspect": "auto"}
    grey = np.nan_to_num(np.asarray(view.of(scene.image), dtype=np.float32), nan=low, posinf=high, neginf=low)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", **place)
    ranks = view.of(scene.ranks)
    if mode == "field":
        axes.imshow(_fill(ranks, scene.colours), interpolation="nearest", **place)
    if mode == "doubt" and scene.uncertainty is not None:
        doubt, top = view.of(scene.uncertainty), scene.largest_uncertainty
        alpha = np.clip(doubt / top, 0, 1) ** 0.7 * 0.85
        axes.imshow(doubt, cmap="inferno", vmin=0, vmax=top, alpha=alpha, interpolation="nearest", **place)
    thick = 1.0 if mode == "field" else 1.5
    for rank in set(np.unique(ranks)) - {0}:
        colour, line = (WHITE, 0.8) if mode == "doubt" else (scene.colours[rank], thick)
        _contour(axes, ranks == rank, width, height, colour, line)
    if scene.reference is not None and mode != "doubt":
        truth = view.of(scene.reference)
        for rank in set(np.unique(truth)) - {0}:
            _contour(axes, truth == rank, width, height, "white", thick * 0.75, dashed=True)
    axes.set(xlim=limits[:2], ylim=limits[2:], xticks=[], yticks=[], facecolor=BLACK)
    axes.spines[:].set(color="#2c3136", linewidth=0.6)


def _fill(ranks: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """``(rows, columns, 4)`` RGBA: the faint fill of each structure."""
    from matplotlib.colors import to_rgba

    return np.array([to_rgba(c, 0.2) if c else (0, 0, 0, 0) for c in colours])[ranks]


def _contour(
    axes: Axes, mask: np.ndarray, width: float, height: float, colour: str, thick: float, dashed: bool = False
) -> None:
    """The border of a mask, half-way between voxel centres; a margin of one voxel closes it at the picture's edge."""
    from matplotlib.patheffects import Normal, Stroke

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    dx, dy = width / mask.shape[1], height / mask.shape[0]
    x, y = (np.arange(c0 - 1, c1 + 1) + 0.5) * dx, (np.arange(r0 - 1, r1 + 1) + 0.5) * dy
    lines = axes.contour(x, y, np.pad(mask[r0:r1, c0:c1].astype(np.float32), 1), levels=[0.5], colors=[colour])
    lines.set(linewidth=thick, linestyle=DASHED if dashed else "solid")
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
    _text(axes, 0.015, 0.5, left, va="center", weight="bold")
    _text(axes, 0.985, 0.5, right, va="center", ha="right", weight="bold")
    _text(axes, 0.5, 0.015, bottom, ha="center", va="bottom", weight="bold")
    _text(axes, 0.5, 0.985, top, ha="center", va="top", weight="bold")
    oblique = scene.grid.oblique_degrees(view.normal) > 20  # the letters say how
    name = "oblique" if oblique else display.PLANES[view.normal][0]
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


def _scale_bar(axes: Axes, span_mm: float) -> None:
    length = display.round_length_mm(span_mm)
    end = 0.97
    axes.plot(
        [end - length / span_mm, end], [0.035, 0.035],
        transform=axes.transAxes, color=WHITE, linewidth=2.2, solid_capstyle="butt",
    )  # fmt: skip
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    _text(axes, end - length / span_mm / 2, 0.05, text, ha="center", va="bottom", size=7.5)


def _legend(fig: Figure, scene: Scene, entries: Sequence[Entry], corner: tuple[float, float]) -> None:
    """Names and sizes, from the upper left ``corner`` in parts of the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows: list[tuple[Any, str, str]] = []
    for entry in entries[:MAX_ENTRIES]:
        name = entry.name if len(entry.name) <= 30 else entry.name[:29] + "…"
        colour = WHITE if entry.found else RED if entry.expected else GREY
        patch = Patch(facecolor=(entry.colour, 0.35), edgecolor=entry.colour, linewidth=1.3)
        rows.append((patch, f"{name}\n{fill(entry.text, 32)}", colour))
    nothing = Line2D([], [], linestyle="none")
    if not any(entry.found for entry in entries):
        rows.insert(0, (nothing, "nothing found", RED))
    if len(entries) > MAX_ENTRIES:
        rows.append((nothing, f"and {len(entries) - MAX_ENTRIES} more", GREY))
    if scene.reference is not None:
        rows.append((Line2D([], [], color="white", linewidth=1.1, linestyle=DASHED), "reference", WHITE))
    handles, texts, colours = zip(*rows, strict=True) if rows else ((), (), None)
    legend = fig.legend(
        handles, texts, labelcolor=colours, loc="upper left", bbox_to_anchor=corner, fontsize=8.5, frameon=False,
        handlelength=1.5, handleheight=0.8, labelspacing=0.8, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(parse_math=False, linespacing=1.35)


def _colour_bar(axes: Axes, top: float) -> None:
    axes.imshow(np.linspace(0, 1, 128)[None], cmap="inferno", extent=(0, 1, 0, 1), aspect="auto")
    axes.set(yticks=[])
    axes.set_title("uncertainty", loc="left", size=9, color=WHITE)
    axes.set_xticks([0, 1], ["0", f"{top:.2g}"], size=8, color=GREY)
