"""Previews: one picture of a segmentation with its planes, contours, sizes, orientation and scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.io import atomic_path
from medfewshot.report import display, paint
from medfewshot.report.paint import Entry, Scene, View
from medfewshot.structures import compress

MONTAGE_SLICES = 5


def save_preview(
    path: str | Path,
    image: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray,
    names: Mapping[int, str],
    *,
    reference: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
    title: str = "",
    window: tuple[float, float] | None = None,
    predicted_dice: Mapping[int, float] | None = None,
    flags: Sequence[str] = (),
) -> Path:
    """Paint a segmentation on its scan and write it atomically as PNG.

    The upper row shows three orthogonal planes where the structures are largest, the lower row the same magnified. If
    slices are thick, the acquired slices come first and one plane is reformatted. Radiological convention; slice
    numbers count from 1 in the order of the file.

    Args:
        path: the file to write.
        image: ``(X, Y, Z)`` or ``(X, Y)``, or with a channel axis in front; the first channel is shown.
        labels: ``(*S)`` label values.
        affine: ``(4, 4)``, voxel -> RAS mm.
        names: label value -> name; the colours follow its order.
        reference: ``(*S)`` label values.
        uncertainty: ``(*S)``, 0 is certain.
        title: by default the name of the file.
        window: intensities shown black and white; by default the 0.5 and 99.5 percentiles.
        predicted_dice: label value -> predicted Dice, in the legend.
        flags: reasons to look closely, in red.

    Returns:
        ``path``.

    Raises:
        InputError: if the labels are neither 2D nor 3D, or the affine cannot be inverted.
        GridMismatchError: if the arrays differ in shape.
    """
    path = Path(path)
    if labels.ndim not in (2, 3) or 0 in labels.shape:
        raise InputError(f"a preview needs a 2D or 3D segmentation, not one of shape {labels.shape}")
    if image.ndim == labels.ndim + 1:
        image = image[0]
    for what, array in (("image", image), ("reference", reference), ("uncertainty", uncertainty)):
        if array is not None and array.shape != labels.shape:
            raise GridMismatchError(f"the {what} has shape {array.shape}, the segmentation {labels.shape}")

    values, ranks = compress(labels, *([] if reference is None else [reference]))
    listed = [int(v) for v in names if v != 0] + [v for v in values[1:] if v not in names]
    colour_of = {value: paint.COLOURS[i % len(paint.COLOURS)] for i, value in enumerate(listed)}
    scene = _scene(image, ranks, affine, uncertainty, window, tuple(colour_of.get(v, "") for v in values))
    entries = _entries(scene, values, ranks, names, listed, colour_of, predicted_dice or {})
    figure = paint.figure(scene, _views(scene), entries, title=title or path.stem, facts=_facts(scene), flags=flags)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=paint.DPI, facecolor=paint.BLACK)
    return path


def _scene(
    image: np.ndarray,
    ranks: tuple[np.ndarray, ...],
    affine: np.ndarray,
    uncertainty: np.ndarray | None,
    window: tuple[float, float] | None,
    colours: tuple[str, ...],
) -> Scene:
    flat = image.ndim == 2
    raster = flat and display.is_raster(affine)
    if raster:  # as the file stores it: in an axial picture, LPS axes run to the right and downwards
        affine = np.diag([*(np.array([-1, -1, 1]) * np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)), 1.0])
    to_3d: Callable[[np.ndarray], np.ndarray] = (lambda a: a[..., None]) if flat else (lambda a: a)
    grid = display.grid_of(to_3d(image).shape, affine)
    shown = [grid.to_ras(to_3d(r)) for r in ranks]
    together = grid.to_ras(to_3d(np.maximum(*ranks))) if len(ranks) > 1 else shown[0]
    doubt = None if uncertainty is None else grid.to_ras(to_3d(np.nan_to_num(np.asarray(uncertainty, np.float32))))
    return Scene(
        grid=grid,
        image=grid.to_ras(to_3d(image)),
        ranks=shown[0],
        reference=shown[1] if len(shown) > 1 else None,
        uncertainty=doubt,
        colours=colours,
        window=window or display.robust_window(image),
        structures=together,
        flat=flat,
        raster=raster,
    )


def _views(scene: Scene) -> list[View]:
    grid = scene.grid
    if scene.flat:
        return [View(grid.axis.index(2), 0)]
    profiles = display.profiles(scene.structures)
    if not grid.slices_lead:
        normals = (2, 1, 0)
        best = display.best_slices([profiles[normal] for normal in normals])
        return [View(normal, index) for normal, index in zip(normals, best, strict=True)]
    lead = grid.acquired
    across = 2 if lead == 1 else 1
    slices = display.spread_slices(profiles[lead], MONTAGE_SLICES)[::-1]  # from superior, anterior or right
    return [*(View(lead, i) for i in slices), View(across, display.best_slices([profiles[across]])[0])]


def _entries(
    scene: Scene,
    values: tuple[int, ...],
    ranks: tuple[np.ndarray, ...],
    names: Mapping[int, str],
    listed: list[int],
    colour_of: Mapping[int, str],
    predicted_dice: Mapping[int, float],
) -> list[Entry]:
    """Return one entry of the legend per structure: colour, name, size and predicted Dice."""
    counts = [np.bincount(r.ravel(order="K"), minlength=len(values)) for r in ranks]
    entries = []
    for value in listed:
        rank = values.index(value) if value in values else None
        found = [int(count[rank]) if rank is not None else 0 for count in counts]
        text = scene.amount(found[0]) if found[0] else "not found"
        if found[0] and value in predicted_dice:
            text += f", predicted Dice {predicted_dice[value]:.2f}"
        if len(found) > 1:
            text += f", reference {scene.amount(found[1])}" if found[1] else ", absent in the reference"
        expected = len(found) == 1 or found[1] > 0
        entries.append(Entry(colour_of[value], names.get(value, f"label {value}"), text, found[0] > 0, expected))
    return entries


def _facts(scene: Scene) -> str:
    """Describe the scan in one line."""
    grid = scene.grid
    shape = [grid.shape[grid.axis.index(i)] for i in range(2 if scene.flat else 3)]
    spacing = [grid.spacing_mm[grid.axis.index(i)] for i in range(len(shape))]
    low, high = scene.window
    facts = [" × ".join(map(str, shape)) + (" pixels" if scene.flat else " voxels")]
    if not scene.in_pixels:
        facts.append(" × ".join(f"{s:.2f}" for s in spacing) + " mm")
    facts.append(f"grey levels {low:.4g} to {high:.4g}")
    oblique = max(grid.oblique_degrees(axis) for axis in range(3))
    if oblique > 1:
        facts.append(f"scanned {oblique:.0f}° oblique")
    if not scene.raster:
        facts.append("radiological view: the patient's right is on the left")
    return "   ·   ".join(facts)
