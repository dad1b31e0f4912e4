"""Paint a prepared scene with matplotlib: the figure, its panels and its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medfewshot.report import planes
from medfewshot.report.planes import Grid, View, picture
from medfewshot.structures import boxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
BLACK, WHITE, GREY, RED = "#000000", "#f2f2f2", "#9aa3ab", "#ff4d4d"
HALO = 2.4
"""Points that the black line below a contour is wider: it separates the contour from a bright organ."""
MAGNIFIED = 0.8
"""Share of the field of view below which a zoom has a row of its own."""
CARD = (3.6, 2.4)
"""Width and height of a card in inches."""
DASHED = (0, (3.5, 2.5))

# Okabe and Ito (2008), their blue lightened to be seen on black, then hues between; distinct with colour blindness.
COLOURS = (
    "#e69f00", "#56b4e9", "#00b283", "#f0e442", "#d96bb0", "#ff6b35", "#4f86f7",
    "#b8e06c", "#c9a0ff", "#8c6d31", "#7fdbda", "#ff9da7", "#a3a500", "#bab0ac",
)  # fmt: skip

MAX_ENTRIES = 14
MAX_FLAGS = 4
GAP, HEADER, LEGEND, ENTRY, FLAG = 0.06, 0.72, 2.75, 0.42, 0.19  # inches


@dataclass(frozen=True)
class Scene:
    """What is painted, in RAS+ order. Label maps contain ranks: 0 is background, rank r has :func:`colour_of` it.

    Attributes:
        grid: how the file's axes become RAS+ axes.
        image: ``(X, Y, Z)``.
        ranks: ``(X, Y, Z)``, the segmentation.
        reference: ``(X, Y, Z)``.
        uncertainty: ``(X, Y, Z)``, 0 is certain.
        window: intensities shown black and white.
        raster: a 2D image that belongs to no patient, e.g. a PNG: no letters.
    """

    grid: Grid
    image: np.ndarray
    ranks: np.ndarray
    reference: np.ndarray | None
    uncertainty: np.ndarray | None
    window: tuple[float, float]
    raster: bool

    @cached_property
    def structures(self) -> np.ndarray:
        """``(X, Y, Z)`` ranks of the segmentation or the reference: where to look."""
        return self.ranks if self.reference is None else np.maximum(self.ranks, self.reference)

    @property
    def in_pixels(self) -> bool:
        """Whether the file has no spacing, so that nothing is given in millimetres."""
        return self.raster and np.allclose(self.grid.spacing_mm, 1, atol=1e-9, rtol=0)


class Entry(NamedTuple):
    """One structure in the legend."""

    name: str
    text: str
    text_colour: str


def colour_of(rank: int) -> str:
    """Return the colour of the n-th structure; ``rank``: 1, 2, ..."""
    return COLOURS[(rank - 1) % len(COLOURS)]


def figure(scene: Scene, entries: Sequence[Entry], *, title: str, facts: str, flags: Sequence[str] = ()) -> Figure:
    """Paint a column for each view; rows are the contours, the bare scan, the zoom and the uncertainty.

    Rows without content are omitted. The rows of a single view stand side by side.
    """
    from matplotlib.figure import Figure

    views = planes.choose_views(scene.grid, scene.structures)
    extents = [scene.grid.extent_mm(normal) for normal, _ in views]
    aspect = float(np.clip(np.median([height / width for width, height in extents]), 0.72, 1.2))
    windows = [_windows(scene, view, [other for other in views if other[0] == view[0]], aspect) for view in views]
    modes = ["field"]
    if scene.structures.any():
        magnified = any(_width(zoom) < MAGNIFIED * _width(field) for field, zoom in windows)
        modes += ["bare"] + ["zoom"] * magnified + ["uncertainty"] * (scene.uncertainty is not None)
    rows, columns = (1, len(modes)) if len(views) == 1 else (len(modes), len(views))
    panel = float(np.clip(11.1 / columns, 2.4, 4.6))
    width = columns * panel + LEGEND
    lines = [line for flag in flags[:MAX_FLAGS] for line in wrap(f"review: {flag}", int(width * 15))]
    header = HEADER + FLAG * len(lines)
    panels = header + rows * panel * aspect
    height = max(panels, header + ENTRY * len(entries) + 1.2)

    fig = Figure(figsize=(width, height), facecolor=BLACK)
    right, top = columns * panel / width, 1 - header / height
    bottom = 1 - (panels - GAP) / height
    grid = fig.add_gridspec(
        rows, columns, left=GAP / width, right=right, bottom=bottom, top=top, wspace=0.02, hspace=0.02
    )
    axes = grid.subplots(squeeze=False).reshape(len(modes), len(views))
    for column, view, (field, zoom) in zip(axes.T, views, windows, strict=True):
        first = view == next(other for other in views if other[0] == view[0])
        for panel_axes, mode in zip(column, modes, strict=True):
            _panel(panel_axes, scene, view, mode, field if mode == "field" else zoom)
            if first and mode != "uncertainty" and not scene.in_pixels:
                _scale_bar(panel_axes, _width(field if mode == "field" else zoom))
        if not scene.raster:
            _caption(column[0], scene.grid, view)
        if _width(zoom) < 0.95 * _width(field):  # where the zoom lies
            left, right_, bottom_, top_ = zoom
            ring = [left, right_, right_, left, left], [bottom_, bottom_, top_, top_, bottom_]
            column[0].plot(*ring, color=GREY, linewidth=0.7, linestyle=(0, (2, 3)))
    if not scene.ranks.any():
        _text(axes[0, 0], 0.5, 0.12, "nothing found", ha="center", va="bottom", size=15, weight="bold", color=RED)

    left = 0.14 / width
    style: dict[str, Any] = {"va": "top", "size": 8.5, "parse_math": False}  # a name with a dollar sign is no formula
    title = title.encode(errors="backslashreplace").decode()  # of a file name that is not UTF-8
    fig.text(left, 1 - 0.16 / height, title, color=WHITE, **style | {"size": 14, "weight": "bold"})
    fig.text(left, 1 - 0.48 / height, facts, color=GREY, **style)
    fig.text(left, 1 - 0.67 / height, "\n".join(lines), color=RED, linespacing=1.35, **style)
    _legend(fig, scene, entries, (right, top))
    if "uncertainty" in modes:
        bar = fig.add_axes((right + 0.15 / width, 0.32 / height, 2.0 / width, 0.13 / height))
        painted = axes[-1, 0].images[-1]
        fig.colorbar(painted, cax=bar, orientation="horizontal", ticks=painted.get_clim(), format="%.2g")
        bar.set_title("uncertainty", loc="left", size=9, color=WHITE)
        bar.tick_params(labelsize=8, labelcolor=GREY, length=0)
    return fig


def cards(scenes: Sequence[Scene], rank: int | None) -> Figure:
    """Paint one slice of each scene, side by side and without legend.

    It is the slice where structure ``rank`` is largest in all scenes together, zoomed to all structures.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(CARD[0] * len(scenes), CARD[1]), facecolor=BLACK)
    structures = np.maximum.reduce([scene.structures for scene in scenes])
    whole = replace(scenes[0], ranks=structures, reference=None)
    normal = planes.choose_views(whole.grid, structures)[0][0]
    wanted = structures == rank if rank and (structures == rank).any() else structures
    view = (normal, planes.best_slices([planes.profiles(wanted)[normal]])[0])
    _, zoom = _windows(whole, view, [view], CARD[1] / CARD[0])
    for number, scene in enumerate(scenes):
        axes = fig.add_axes((number / len(scenes), 0, 1 / len(scenes), 1))
        _panel(axes, scene, view, "card", zoom)
        if not scene.raster:
            _caption(axes, scene.grid, view)
    return fig


def _windows(scene: Scene, view: View, same_plane: Sequence[View], aspect: float) -> tuple[planes.Window, ...]:
    """Return the windows of the whole field and of the zoom; all views of ``same_plane`` have one zoom."""
    together = np.any([picture(scene.structures, other) > 0 for other in same_plane], axis=0)
    extent_mm = scene.grid.extent_mm(view[0])
    return tuple(planes.window_mm(box, together.shape, extent_mm, aspect) for box in (None, boxes(together).get(1)))


def _width(window: planes.Window) -> float:
    return window[1] - window[0]


def _panel(axes: Axes, scene: Scene, view: View, mode: str, window: planes.Window) -> None:
    """Paint a slice within a window: bare, with contours, or with the uncertainty."""
    width, height = scene.grid.extent_mm(view[0])
    low, high = scene.window
    place: dict[str, Any] = {"extent": (0.0, width, 0.0, height), "origin": "lower", "aspect": "auto"}
    grey = np.nan_to_num(np.asarray(picture(scene.image, view), dtype=np.float32), nan=low, posinf=high, neginf=low)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", **place)
    ranks = picture(scene.ranks, view)
    if mode == "uncertainty" and scene.uncertainty is not None:
        doubt, top = picture(scene.uncertainty, view), float(scene.uncertainty.max()) or 1.0
        alpha = np.clip(doubt / top, 0, 1) ** 0.7 * 0.85
        axes.imshow(doubt, cmap="inferno", vmin=0, vmax=top, alpha=alpha, interpolation="nearest", **place)
        _contours(axes, ranks, (width, height), 0.8, WHITE)
    elif mode != "bare":
        thick = {"field": 1.0, "card": 1.3}.get(mode, 1.5)
        _contours(axes, ranks, (width, height), thick)
        if scene.reference is not None:
            _contours(axes, picture(scene.reference, view), (width, height), thick * 0.75, "white", DASHED)
    left, right, bottom, top = window
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor=BLACK)
    axes.spines[:].set(color="#2c3136", linewidth=0.6)


def _contours(
    axes: Axes, ranks: np.ndarray, extent_mm: tuple[float, float], thick: float, colour: str = "", dashes: Any = None
) -> None:
    """Draw the border of each structure half-way between voxel centres, in its own or in one ``colour``."""
    from matplotlib.patheffects import Normal, Stroke

    dx, dy = np.array(extent_mm) / ranks.shape[::-1]
    for rank, (rows, columns) in boxes(ranks).items():
        mask = np.pad(ranks[rows, columns] == rank, 1)  # a margin of one voxel closes it at the picture's edge
        x, y = (np.arange(mask.shape[1]) + columns.start - 0.5) * dx, (np.arange(mask.shape[0]) + rows.start - 0.5) * dy
        lines = axes.contour(x, y, mask.astype(np.float32), levels=[0.5], colors=[colour or colour_of(rank)])
        lines.set(linewidth=thick, linestyle=dashes or "solid")
        halo = HALO / 2 if dashes else HALO
        lines.set(path_effects=[Stroke(linewidth=thick + halo, foreground="black", alpha=0.7), Normal()])


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    from matplotlib.patheffects import withStroke

    style = {"color": WHITE, "size": 9, **style}
    outline = [withStroke(linewidth=2.2, foreground="black")]
    axes.text(x, y, text, transform=axes.transAxes, path_effects=outline, **style)


def _caption(axes: Axes, grid: Grid, view: View) -> None:
    """Write the plane, the slice and the directions of the patient."""
    left, right, bottom, top = grid.side_letters(view[0])
    _text(axes, 0.015, 0.5, left, va="center", weight="bold")
    _text(axes, 0.985, 0.5, right, va="center", ha="right", weight="bold")
    _text(axes, 0.5, 0.015, bottom, ha="center", va="bottom", weight="bold")
    _text(axes, 0.5, 0.985, top, ha="center", va="top", weight="bold")
    oblique = grid.oblique_degrees(view[0]) > 20  # the letters say how
    name = "oblique" if oblique else planes.PLANES[view[0]][0]
    if grid.shape[view[0]] > 1:
        name = f"{name} {grid.file_index(view) + 1}/{grid.shape[view[0]]}"
    _text(axes, 0.02, 0.98, name, va="top", size=8, color="#d5dade")


def round_length_mm(span_mm: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten) of about a quarter of ``span_mm``, for a scale bar."""
    target = span_mm / 4
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target * 1.0001))


def _scale_bar(axes: Axes, span_mm: float) -> None:
    length = round_length_mm(span_mm)
    start, end = 0.97 - length / span_mm, 0.97
    axes.plot([start, end], [0.035, 0.035], transform=axes.transAxes, color=WHITE, lw=2.2, solid_capstyle="butt")
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    _text(axes, (start + end) / 2, 0.05, text, ha="center", va="bottom", size=7.5)


def _legend(fig: Figure, scene: Scene, entries: Sequence[Entry], corner: tuple[float, float]) -> None:
    """Names and sizes, from the upper left ``corner`` in parts of the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    nothing = Line2D([], [], linestyle="none")
    rows: list[tuple[Any, str, str]] = [] if scene.ranks.any() else [(nothing, "nothing found", RED)]
    for rank, entry in enumerate(entries[:MAX_ENTRIES], start=1):
        name = entry.name if len(entry.name) <= 30 else entry.name[:29] + "…"
        patch = Patch(facecolor=(colour_of(rank), 0.35), edgecolor=colour_of(rank), linewidth=1.3)
        rows.append((patch, f"{name}\n{fill(entry.text, 32)}", entry.text_colour))
    if len(entries) > MAX_ENTRIES:
        rows.append((nothing, f"and {len(entries) - MAX_ENTRIES} more", GREY))
    if scene.reference is not None:
        rows.append((Line2D([], [], color="white", linewidth=1.1, linestyle=DASHED), "reference", WHITE))
    if not rows:
        return
    handles, texts, colours = zip(*rows, strict=True)
    legend = fig.legend(
        handles, texts, labelcolor=colours, loc="upper left", bbox_to_anchor=corner, fontsize=8.5, frameon=False,
        handlelength=1.5, handleheight=0.8, labelspacing=0.8, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(parse_math=False, linespacing=1.35)
