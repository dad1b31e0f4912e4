"""Support -> Plan. Every rule reads the support alone; each decision leaves a note for the run's record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from medfewshot.errors import InputError, did_you_mean
from medfewshot.planning.label_names import label_values
from medfewshot.planning.normalise import choose_normalization
from medfewshot.planning.orientation import direction_cosines, order_for
from medfewshot.types import Plan, Volume

THICK_RATIO = 3.0
"""Slices this many times thicker than the pixels are wide count as thick: they are never resampled."""
FIELD_OF_VIEW_VOXELS = 120
"""The planned grid need not be finer than this many voxels across the field of view, ..."""
CONTEXT_FRACTION = 0.5
"""... nor so fine that a patch covers less than this share of the scan: a network that sees no more than an organ's
surroundings cannot tell left from right, or which of ten round things is meant ..."""
STRUCTURE_VOXELS = 60
"""... but not coarser than gives the largest structure this many voxels (where the scan has them) ..."""
SMALLEST_DIAMETER_VOXELS = 6
"""... and the smallest this many across."""
PATCH_VOXELS = 380_000
PATCH_PIXELS = 65_536
"""A training patch: as much as two CPU cores take through forward and backward in a fifth of a second."""
TINY_VOXELS = 27
MODALITIES = ("CT", "MR", "MRI", "PT", "PET", "NM", "US", "XA", "CR", "DX", "MG", "RF", "OCT", "OP", "SM", "XC", "OT")
"""Words of DICOM's for what a scan is."""
MOST_LABELS = 500
"""More structures than the finest atlas in use has are intensities, not labels."""
ONE_PIECE = 0.95
"""A structure is in one piece when its largest connected component holds this fraction of it in every support."""


@dataclass(frozen=True)
class PlanOptions:
    """What a user may set by hand; None leaves the choice to the support."""

    modality: str | None = None
    """``CT`` fixes the intensity window, anything else (``MR``) the z-score."""
    spacing_mm: float | tuple[float, ...] | None = None
    """Target spacing in mm: one number for the in-plane axes, or one per planned axis."""
    labels: Mapping[int, str] | Sequence[int | str] | None = None
    """Structures to learn: label values, values with names, or names that the dataset gives; others are background."""
    patch_voxels: int | None = None
    """Voxels of one training patch; bounds memory and time."""
    fast: bool = False
    """A grid 1.7 times as coarse: faster, rougher edges."""


@dataclass(frozen=True)
class _Measured:
    """What one support tells, in the plan's frame."""

    shape: tuple[int, ...]
    spacing: np.ndarray
    extent_mm: dict[int, float]
    volume_mm3: dict[int, float]
    voxels: dict[int, int]
    in_one_piece: dict[int, bool]
    pieces_tiny: dict[int, bool] = field(default_factory=dict)


def make_plan(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    *,
    names: Mapping[int, str] | None = None,
    options: PlanOptions | None = None,
) -> Plan:
    """Derive the plan from K images ``(C, *S)`` and their label maps ``(1, *S)``.

    ``names``: label value -> name where a dataset knows them. Raises InputError where supports cannot go together.
    """
    options = options or PlanOptions()
    _check_alike(images, options.modality)
    wanted = _choose_labels(labels, names or {}, options.labels)
    dims = images[0].spatial_dims
    axes = direction_cosines(images[0].affine) if dims == 3 else np.eye(3)
    measured = [_measure(label, axes, tuple(wanted)) for label in labels]
    masks = [np.isin(label.data[0], list(wanted)) for label in labels]
    spacing = _target_spacing(measured, options)
    shape = _median_shape(measured, spacing)
    normalization = tuple(
        choose_normalization(images, masks, channel, options.modality) for channel in range(images[0].data.shape[0])
    )
    return Plan(
        spatial_dims=dims,
        channels=images[0].data.shape[0],
        axes=tuple((float(a), float(b), float(c)) for a, b, c in axes),
        spacing_mm=tuple(float(s) for s in spacing),
        patch_size=_patch_size(shape, spacing, _patch_voxels(options, spacing)),
        normalization=normalization,
        labels=wanted,
        keep_largest=_in_one_piece(measured, tuple(wanted)),
        median_shape=shape,
        notes=tuple(_notes(measured, wanted, normalization)),
    )


def _check_alike(images: Sequence[Volume], modality: str | None) -> None:
    if not images:
        raise InputError("the support is empty; give at least one labelled scan with --support image=label")
    first = images[0]
    for image in images[1:]:
        if image.spatial_dims != first.spatial_dims or image.data.shape[0] != first.data.shape[0]:
            raise InputError(
                f"{image.name}: {image.spatial_dims}D with {image.data.shape[0]} channel(s), but {first.name} is "
                f"{first.spatial_dims}D with {first.data.shape[0]}; supports must be of one kind"
            )
    if modality is not None and modality.upper() not in MODALITIES:
        near = did_you_mean(modality, MODALITIES)
        raise InputError(f"modality {modality}: unknown{near}; CT has a window of its own, everything else is MR")
    stated = {image.modality: image.name for image in images if image.modality}
    if "CT" in stated and len(stated) > 1 and modality is None:
        others = ", ".join(f"{name} is {kind}" for kind, name in stated.items())
        raise InputError(f"the supports are of different modalities ({others}); give those of one, or --modality MR")


def _choose_labels(
    labels: Sequence[Volume], names: Mapping[int, str], wanted: Mapping[int, str] | Sequence[int | str] | None
) -> dict[int, str]:
    present = sorted({int(v) for label in labels for v in np.unique(label.data)} - {0})
    if not present:
        files = ", ".join(label.name for label in labels)
        raise InputError(f"{files}: no structure is marked (every voxel is 0); label the structure in at least one")
    if not wanted:
        _check_count(labels, present)
        chosen = present
    else:
        chosen = label_values(wanted, names)
        missing = [v for v in chosen if v not in present]
        if missing:
            held = ", ".join(map(str, present))
            raise InputError(f"label {', '.join(map(str, missing))} is in no support; the supports hold {held}")
    given = dict(wanted) if isinstance(wanted, Mapping) else {}
    called = {value: str(given.get(value) or names.get(value) or f"label {value}") for value in chosen}
    count = Counter(called.values())  # results are kept by name: two structures of one name would be one
    return {value: f"{name} ({value})" if count[name] > 1 else name for value, name in called.items()}


def _check_count(labels: Sequence[Volume], present: Sequence[int]) -> None:
    if len(present) > MOST_LABELS:
        most = max(labels, key=lambda label: np.unique(label.data).size)
        raise InputError(
            f"{most.name}: the labels hold {len(present)} different values, as an image does; give the label map "
            "as the label, or choose the structures with --labels"
        )


def _measure(label: Volume, axes: np.ndarray, values: Sequence[int]) -> _Measured:
    dims = label.spatial_dims
    order = order_for(label.affine, axes, dims)
    data = order.apply(label.data)[0]
    spacing = np.array(label.spacing_mm)[list(order.order)]
    ranks = np.zeros(data.shape, dtype=np.int32)  # find_objects makes a list as long as the largest value
    for rank, value in enumerate(values, start=1):
        ranks[data == value] = rank
    found = ndimage.find_objects(ranks, max_label=len(values))
    extent, volume, voxels, one, tiny = {}, {}, {}, {}, {}
    for value, box in zip(values, found, strict=True):
        if box is None:
            continue
        mask = data[box] == value
        count = int(mask.sum())
        sizes = np.sort(np.bincount(ndimage.label(mask, np.ones((3,) * dims))[0].ravel())[1:])[::-1]
        extent[value] = float(max((b.stop - b.start) * s for b, s in zip(box, spacing, strict=True)))
        volume[value], voxels[value] = count * float(np.prod(spacing)), count
        one[value] = bool(sizes[0] >= ONE_PIECE * count)
        # Specks beside a structure in one piece are slips of the pen, not structures that could vanish.
        tiny[value] = bool(sizes[0] <= TINY_VOXELS or (not one[value] and sizes[-1] <= TINY_VOXELS))
    return _Measured(data.shape, spacing, extent, volume, voxels, one, tiny)


def _target_spacing(measured: Sequence[_Measured], options: PlanOptions) -> np.ndarray:
    native = np.median([m.spacing for m in measured], axis=0)
    thick = native >= THICK_RATIO * native.min()
    if options.spacing_mm is not None:
        given = np.asarray(options.spacing_mm, dtype=float)
        if given.size not in (1, native.size) or not (np.isfinite(given) & (given > 0)).all():
            raise InputError(
                f"target spacing {options.spacing_mm} mm: give one positive number, or {native.size} (one per axis)"
            )
        given = np.broadcast_to(given, native.shape)
        return np.where(thick, native, given) if np.ndim(options.spacing_mm) == 0 else given.copy()
    field_mm = np.median([np.sort(np.array(m.shape) * m.spacing)[-2] for m in measured])
    extents = [np.median([m.extent_mm[v] for m in measured if v in m.extent_mm]) for v in _labels(measured)]
    diameters = [
        np.median([_diameter_mm(m, v, len(native)) for m in measured if v in m.volume_mm3]) for v in _labels(measured)
    ]
    goal = min(
        max(field_mm / FIELD_OF_VIEW_VOXELS, _context_spacing(measured, native, thick, _patch_voxels(options, native))),
        max(extents) / STRUCTURE_VOXELS,
        min(diameters) / SMALLEST_DIAMETER_VOXELS,
    )
    if len(native) == 2:
        # A planar image is small work: 256 pixels across keep its detail.
        goal = min(goal, field_mm / 256)
    if options.fast:
        goal = max(goal, native.min()) * 1.7
    return np.where(thick, native, np.maximum(native, goal))


def _context_spacing(measured: Sequence[_Measured], native: np.ndarray, thick: np.ndarray, patch_voxels: int) -> float:
    """The spacing (mm) of the thin axes at which one patch covers CONTEXT_FRACTION of the median scan."""
    extent = np.median([np.array(m.shape) * m.spacing for m in measured], axis=0)
    thin = ~thick
    columns = float(np.prod(extent[thick] / native[thick]))
    return float((np.prod(extent[thin]) * columns * CONTEXT_FRACTION / patch_voxels) ** (1 / thin.sum()))


def _patch_voxels(options: PlanOptions, native: np.ndarray) -> int:
    return options.patch_voxels or (PATCH_PIXELS if len(native) == 2 else PATCH_VOXELS)


def _labels(measured: Sequence[_Measured]) -> list[int]:
    return sorted({value for m in measured for value in m.extent_mm})


def _diameter_mm(m: _Measured, value: int, dims: int) -> float:
    """Of the sphere (disc) with the structure's volume (area)."""
    if dims == 2:
        return float(2 * np.sqrt(m.volume_mm3[value] / np.pi))
    return float((6 * m.volume_mm3[value] / np.pi) ** (1 / 3))


def _median_shape(measured: Sequence[_Measured], spacing: np.ndarray) -> tuple[int, ...]:
    shapes = [np.array(m.shape) * m.spacing / spacing for m in measured]
    return tuple(max(1, round(float(n))) for n in np.median(shapes, axis=0))


def _patch_size(shape: Sequence[int], spacing: np.ndarray, budget: int) -> tuple[int, ...]:
    """The largest patch within ``budget`` voxels that is as near to a cube in mm as the volume allows."""
    low, high = 0.0, float(max(n * s for n, s in zip(shape, spacing, strict=True)))
    for _ in range(40):
        edge = (low + high) / 2
        size = np.prod([min(n, edge / s) for n, s in zip(shape, spacing, strict=True)])
        low, high = (edge, high) if size <= budget else (low, edge)
    return tuple(_round(min(n, low / s)) for n, s in zip(shape, spacing, strict=True))


def _round(size: float) -> int:
    """To what the network's downsampling divides evenly: multiples of 4, of 8 from 32 and of 16 from 64 voxels."""
    whole = int(np.ceil(size - 1e-6))
    if whole < 8:
        return max(1, whole)
    if whole >= 64:
        return round(whole / 16) * 16
    step = 4 if whole < 32 else 8
    return -(-whole // step) * step


def _in_one_piece(measured: Sequence[_Measured], values: Sequence[int]) -> tuple[int, ...]:
    return tuple(v for v in values if all(m.in_one_piece.get(v, True) for m in measured))


def labelled(name: str, value: int) -> str:
    """``liver (label 6)``; a structure without a name is not named twice."""
    return name if name == f"label {value}" else f"{name} (label {value})"


def _notes(measured: Sequence[_Measured], labels: Mapping[int, str], normalization: Sequence[object]) -> list[str]:
    notes = []
    for value, name in labels.items():
        if any(m.pieces_tiny.get(value, False) for m in measured):
            notes.append(
                f"{labelled(name, value)} has pieces of {TINY_VOXELS} voxels or fewer: expect some of them to be missed"
            )
        absent = sum(value not in m.voxels for m in measured)
        if absent:
            notes.append(f"{labelled(name, value)} is missing from {absent} of {len(measured)} supports")
    return notes
