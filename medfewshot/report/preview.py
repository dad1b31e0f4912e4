"""Pictures of a segmentation: the preview, with planes, sizes, orientation and scale; and a card of one slice."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.intensities import robust_window
from medfewshot.io import atomic_path
from medfewshot.report import paint
from medfewshot.report.paint import Entry, Scene
from medfewshot.report.planes import grid_of, is_raster
from medfewshot.structures import renumber, voxel_size


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
    """Paint a segmentation on its scan and write it atomically, as PNG or in the format of the suffix.

    The first row shows contours in three orthogonal planes where the structures are largest, the second row the bare
    scan, a third row the contours magnified if the structures are small. If slices are thick, the acquired slices come
    first and one plane is reformatted. Radiological convention; slice numbers count from 1 in the order of the file.

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
        predicted_dice: label value -> predicted Dice, in the legend as the confidence.
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

    listed, ranks = _rank(names, labels, *([] if reference is None else [reference]))
    scene = _scene(image, ranks, affine, uncertainty, window)
    unit = "px" if scene.in_pixels else "ml" if labels.ndim == 3 else "cm²"
    one_voxel = {"px": 1.0, "ml": voxel_size(affine, 3) / 1000, "cm²": voxel_size(affine, 2) / 100}[unit]
    sizes = [one_voxel * np.bincount(r.ravel(order="K"), minlength=len(listed) + 1)[1:] for r in ranks]
    entries = [
        _entry(names.get(value, f"label {value}"), size, unit, (predicted_dice or {}).get(value))
        for value, *size in zip(listed, *sizes, strict=True)
    ]
    facts = _facts(scene, labels.shape, affine)
    figure = paint.figure(scene, entries, title=title or path.stem, facts=facts, flags=flags)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=paint.DPI, facecolor=paint.BLACK)
    return path


def card_jpeg(
    image: np.ndarray,
    panels: Sequence[Sequence[np.ndarray]],
    affine: np.ndarray,
    *,
    rank: int | None = None,
    window: tuple[float, float] | None = None,
) -> bytes:
    """Paint one slice with the contours of all structures, once for each panel, side by side.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``.
        panels: One or two label maps ``(*S)`` each; 0 is background and rank i the i-th structure. The second one is a
            dashed white line.
        affine: ``(4, 4)``, voxel -> RAS mm.
        rank: The structure that decides which slice is shown; None for all.
        window: Intensities shown black and white; by default the 0.5 and 99.5 percentiles.

    Returns:
        A JPEG file.
    """
    buffer = io.BytesIO()
    figure = paint.cards([_scene(image, maps, affine, None, window) for maps in panels], rank)
    figure.savefig(buffer, format="jpeg", dpi=paint.DPI, facecolor=paint.BLACK, pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _rank(names: Mapping[int, str], *label_maps: np.ndarray) -> tuple[list[int], list[np.ndarray]]:
    """Return the values of ``names``, then those without a name; and the label maps with positions in this list."""
    values, maps = renumber(*label_maps)
    listed = [int(value) for value in names if value != 0] + [value for value in values[1:] if value not in names]
    rank_of = np.zeros(len(values), dtype=np.min_scalar_type(len(listed)))
    rank_of[1:] = [listed.index(value) + 1 for value in values[1:]]
    return listed, [rank_of[ranks] for ranks in maps]


def _scene(
    image: np.ndarray,
    ranks: Sequence[np.ndarray],
    affine: np.ndarray,
    uncertainty: np.ndarray | None,
    window: tuple[float, float] | None,
) -> Scene:
    raster = image.ndim == 2 and is_raster(affine)
    if raster:  # as the file stores it: in an axial picture, LPS axes run to the right and downwards
        affine = np.diag([*(np.array([-1, -1, 1]) * np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)), 1.0])
    grid = grid_of(image.shape, affine)
    return Scene(
        grid=grid,
        image=grid.to_ras(image),
        ranks=grid.to_ras(ranks[0]),
        reference=grid.to_ras(ranks[1]) if len(ranks) > 1 else None,
        uncertainty=None if uncertainty is None else grid.to_ras(np.nan_to_num(np.asarray(uncertainty, np.float32))),
        window=window or robust_window(image),
        raster=raster,
    )


def _entry(name: str, sizes: Sequence[float], unit: str, predicted_dice: float | None) -> Entry:
    """Describe a structure; ``sizes``: of the segmentation and, if there is one, of the reference."""
    found, *expected = sizes
    text = _amount(found, unit) if found else "not found"
    if found and predicted_dice is not None:
        text += f", confidence {predicted_dice:.2f}"
    if expected:
        text += f", reference {_amount(expected[0], unit)}" if expected[0] else ", absent in the reference"
    return Entry(name, text, paint.WHITE if found else paint.GREY if expected == [0] else paint.RED)


def _amount(size: float, unit: str) -> str:
    return f"{size:.0f} {unit}" if size >= 100 else f"{size:.3g} {unit}"


def _facts(scene: Scene, shape: Sequence[int], affine: np.ndarray) -> str:
    """Describe the scan in one line."""
    spacing_mm = np.linalg.norm(affine[:3, : len(shape)], axis=0)
    low, high = scene.window
    facts = [" × ".join(map(str, shape)) + (" pixels" if len(shape) == 2 else " voxels")]
    if not scene.in_pixels:
        facts.append(" × ".join(f"{s:.2f}" for s in spacing_mm) + " mm")
    facts.append(f"grey levels {low:.4g} to {high:.4g}")
    oblique = max(scene.grid.oblique_degrees(axis) for axis in range(3))
    if oblique > 1:
        facts.append(f"scanned {oblique:.0f}° oblique")
    if not scene.raster:
        facts.append("radiological view: the patient's right is on the left")
    return "   ·   ".join(facts)
