"""Support set -> plan: labels, grid, patch and normalization. Every rule reads the support alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medfewshot.errors import InputError, did_you_mean
from medfewshot.intensities import is_constant
from medfewshot.planning.label_names import label_values
from medfewshot.planning.normalise import choose_normalization
from medfewshot.planning.orientation import direction_cosines, order_for
from medfewshot.settings import PlanSettings
from medfewshot.structures import TINY_VOXELS, Structure, structures, voxel_size
from medfewshot.types import Plan, Volume

THICK_RATIO = 3.0
"""Slices this many times thicker than the pixels are wide count as thick: they are never resampled."""
FIELD_OF_VIEW_VOXELS = 120
"""The planned grid is not finer than this many voxels across the field of view, ..."""
CONTEXT_FRACTION = 0.5
"""... nor so fine that a patch covers less than this share of the scan, because a network that sees only the
surroundings of an organ cannot tell left from right; ..."""
STRUCTURE_VOXELS = 60
"""... but fine enough that the largest structure is this many voxels long (if the scan has them) ..."""
SMALLEST_DIAMETER_VOXELS = 6
"""... and the smallest is this many voxels across."""
PATCH_VOXELS = 380_000
PATCH_PIXELS = 65_536
"""Size of a training patch: a forward and backward pass takes two CPU cores a fifth of a second."""
MODALITIES = ("CT", "MR", "MRI", "PT", "PET", "NM", "US", "XA", "CR", "DX", "MG", "RF", "OCT", "OP", "SM", "XC", "OT")
"""DICOM's names of modalities."""
MOST_LABELS = 500
"""No atlas in use has more structures: more values are intensities, not labels."""
ONE_PIECE = 0.95
"""A structure is in one piece if its largest connected component has this share of it in every support."""


@dataclass(frozen=True)
class _Measured:
    """Measurements of one structure in one support; the size is in mm³ (3D) or mm² (2D)."""

    extent_mm: float
    size: float
    in_one_piece: bool
    has_tiny_pieces: bool


@dataclass(frozen=True)
class _Scan:
    """Grid of one support in the plan's frame, and the structures in it by label value."""

    shape: tuple[int, ...]
    spacing: np.ndarray
    structures: Mapping[int, _Measured]


def make_plan(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    *,
    names: Mapping[int, str] | None = None,
    settings: PlanSettings | None = None,
) -> Plan:
    """Derive the plan from a support set.

    Args:
        images: K images ``(C, *S)``.
        labels: Their label maps ``(1, *S)``.
        names: Label value -> name, as far as they are known.
        settings: What the user fixed; None: everything follows from the support.

    Raises:
        InputError: The supports differ in kind, contain no structure or no contrast, or a setting does not fit.
    """
    settings = settings or PlanSettings()
    _check_alike(images, settings.modality)
    found = [structures(label.data[0]) for label in labels]
    wanted = _choose_labels(labels, found, names or {}, settings.labels)
    dims = images[0].spatial_dims
    axes = direction_cosines(images[0].affine) if dims == 3 else np.eye(3)
    scans = [_measure(label, one, axes, wanted) for label, one in zip(labels, found, strict=True)]
    masks = [np.isin(label.data[0], list(wanted)) for label in labels]
    spacing = _target_spacing(scans, settings)
    shape = _median_shape(scans, spacing)
    normalization = tuple(
        choose_normalization(images, masks, channel, settings.modality) for channel in range(images[0].data.shape[0])
    )
    return Plan(
        spatial_dims=dims,
        channels=images[0].data.shape[0],
        axes=tuple((float(a), float(b), float(c)) for a, b, c in axes),
        spacing_mm=tuple(float(s) for s in spacing),
        patch_size=_patch_size(shape, spacing, _patch_voxels(settings, spacing)),
        normalization=normalization,
        labels=wanted,
        keep_largest=tuple(v for v in wanted if all(one.in_one_piece for one in _of_label(scans, v))),
        median_shape=shape,
        notes=tuple(_notes(scans, wanted)),
    )


def _check_alike(images: Sequence[Volume], modality: str | None) -> None:
    if not images:
        raise InputError("the support is empty", "give at least one labelled scan", setting="support")
    first = images[0]
    for image in images[1:]:
        if image.spatial_dims != first.spatial_dims or image.data.shape[0] != first.data.shape[0]:
            raise InputError(
                f"{image.name}: {image.spatial_dims}D with {image.data.shape[0]} channel(s), but {first.name} is "
                f"{first.spatial_dims}D with {first.data.shape[0]}",
                "supports must be of one kind",
            )
    constant = next((image for image in images if is_constant(image.data)), None)
    if constant is not None:
        raise InputError(
            f"{constant.name}: every voxel has the same value, so nothing can be learned from this support",
            "remove it, or export the image again",
        )
    if modality is not None and modality.upper() not in MODALITIES:
        near = did_you_mean(modality, MODALITIES)
        raise InputError(f"modality {modality}: unknown{near}", "give CT or MR; everything but CT is treated as MR")
    stated = {image.modality: image.name for image in images if image.modality}
    if "CT" in stated and len(stated) > 1 and modality is None:
        others = ", ".join(f"{name} is {kind}" for kind, name in stated.items())
        raise InputError(
            f"the supports are of different modalities ({others})",
            "give those of one modality, or set it to MR for all",
            setting="modality",
        )


def _choose_labels(
    labels: Sequence[Volume],
    found: Sequence[Mapping[int, Structure]],
    names: Mapping[int, str],
    wanted: Mapping[int, str] | Sequence[int | str] | None,
) -> dict[int, str]:
    present = sorted({value for one in found for value in one})
    if not present:
        files = ", ".join(label.name for label in labels)
        raise InputError(f"{files}: no structure is marked (every voxel is 0)", "label the structure in at least one")
    if not wanted:
        if len(present) > MOST_LABELS:
            most = max(range(len(found)), key=lambda number: len(found[number]))
            raise InputError(
                f"{labels[most].name}: the labels hold {len(present)} different values, as an image does",
                "give the label map as the label, or choose the structures",
                setting="labels",
            )
        chosen = present
    else:
        chosen = label_values(wanted, names)
        missing = [v for v in chosen if v not in present]
        if missing:
            raise InputError(
                f"label {', '.join(map(str, missing))} is in no support",
                f"the supports hold {', '.join(map(str, present))}",
                setting="labels",
            )
    given = dict(wanted) if isinstance(wanted, Mapping) else {}
    called = {value: str(given.get(value) or names.get(value) or f"label {value}") for value in chosen}
    count = Counter(called.values())  # results are kept by name: two structures of one name would be one
    return {value: f"{name} ({value})" if count[name] > 1 else name for value, name in called.items()}


def _measure(label: Volume, found: Mapping[int, Structure], axes: np.ndarray, values: Collection[int]) -> _Scan:
    order = list(order_for(label.affine, axes, label.spatial_dims).order)
    voxel = voxel_size(label.affine, label.spatial_dims)
    measured = {}
    for value, structure in found.items():
        if value not in values:
            continue
        sizes = structure.component_voxels
        one = bool(sizes.max() >= ONE_PIECE * structure.voxels)
        measured[value] = _Measured(
            extent_mm=max(n * s for n, s in zip(structure.extent, label.spacing_mm, strict=True)),
            size=structure.voxels * voxel,
            in_one_piece=one,
            # Specks beside a structure in one piece are slips of the pen, not structures that could vanish.
            has_tiny_pieces=bool(sizes.max() <= TINY_VOXELS or (not one and sizes.min() <= TINY_VOXELS)),
        )
    shape, spacing = np.array(label.spatial_shape)[order], np.array(label.spacing_mm)[order]
    return _Scan(tuple(int(n) for n in shape), spacing, measured)


def _of_label(scans: Sequence[_Scan], value: int) -> list[_Measured]:
    return [scan.structures[value] for scan in scans if value in scan.structures]


def _target_spacing(scans: Sequence[_Scan], settings: PlanSettings) -> np.ndarray:
    native = np.median([scan.spacing for scan in scans], axis=0)
    thick = native >= THICK_RATIO * native.min()
    if settings.spacing_mm is not None:
        given = np.asarray(settings.spacing_mm, dtype=float)
        if given.size not in (1, native.size) or not (np.isfinite(given) & (given > 0)).all():
            raise InputError(
                f"target spacing {settings.spacing_mm} mm does not fit {native.size} axes",
                f"give one positive number, or {native.size}",
                setting="spacing_mm",
            )
        given = np.broadcast_to(given, native.shape)
        return np.where(thick, native, given) if np.ndim(settings.spacing_mm) == 0 else given.copy()
    field_mm = np.median([np.sort(np.array(scan.shape) * scan.spacing)[-2] for scan in scans])
    by_label = [_of_label(scans, value) for value in sorted({value for scan in scans for value in scan.structures})]
    extents = [np.median([one.extent_mm for one in label]) for label in by_label]
    diameters = [np.median([_diameter_mm(one.size, len(native)) for one in label]) for label in by_label]
    context_mm = _context_spacing(scans, native, thick, _patch_voxels(settings, native))
    goal = min(
        max(field_mm / FIELD_OF_VIEW_VOXELS, context_mm),
        max(extents) / STRUCTURE_VOXELS,
        min(diameters) / SMALLEST_DIAMETER_VOXELS,
    )
    if len(native) == 2:
        # A planar image is small, so 256 pixels across are affordable and keep its detail.
        goal = min(goal, field_mm / 256)
    if settings.fast:
        goal = max(goal, native.min()) * 1.7
    return np.where(thick, native, np.maximum(native, goal))


def _context_spacing(scans: Sequence[_Scan], native: np.ndarray, thick: np.ndarray, patch_voxels: int) -> float:
    """Spacing (mm) of the thin axes at which one patch covers CONTEXT_FRACTION of the median scan."""
    extent = np.median([np.array(scan.shape) * scan.spacing for scan in scans], axis=0)
    thin = ~thick
    columns = float(np.prod(extent[thick] / native[thick]))
    return float((np.prod(extent[thin]) * columns * CONTEXT_FRACTION / patch_voxels) ** (1 / thin.sum()))


def _patch_voxels(settings: PlanSettings, native: np.ndarray) -> int:
    return settings.patch_voxels or (PATCH_PIXELS if len(native) == 2 else PATCH_VOXELS)


def _diameter_mm(size: float, dims: int) -> float:
    """Diameter of the sphere (disc) with a structure's volume in mm³ (area in mm²)."""
    return float(2 * np.sqrt(size / np.pi)) if dims == 2 else float((6 * size / np.pi) ** (1 / 3))


def _median_shape(scans: Sequence[_Scan], spacing: np.ndarray) -> tuple[int, ...]:
    shapes = [np.array(scan.shape) * scan.spacing / spacing for scan in scans]
    return tuple(max(1, round(float(n))) for n in np.median(shapes, axis=0))


def _patch_size(shape: Sequence[int], spacing: np.ndarray, budget: int) -> tuple[int, ...]:
    """Largest patch within ``budget`` voxels that is as close to a cube in mm as the volume allows."""
    low, high = 0.0, float(max(n * s for n, s in zip(shape, spacing, strict=True)))
    for _ in range(40):
        edge = (low + high) / 2
        size = np.prod([min(n, edge / s) for n, s in zip(shape, spacing, strict=True)])
        low, high = (edge, high) if size <= budget else (low, edge)
    return tuple(_round(min(n, low / s)) for n, s in zip(shape, spacing, strict=True))


def _round(size: float) -> int:
    """Round to sizes that the network can downsample: multiples of 4, of 8 from 32 and of 16 from 64 voxels."""
    whole = int(np.ceil(size - 1e-6))
    if whole < 8:
        return max(1, whole)
    if whole >= 64:
        return round(whole / 16) * 16
    step = 4 if whole < 32 else 8
    return -(-whole // step) * step


def labelled(name: str, value: int) -> str:
    """Return ``liver (label 6)``, or ``label 6`` for a structure without a name."""
    return name if name == f"label {value}" else f"{name} (label {value})"


def _notes(scans: Sequence[_Scan], labels: Mapping[int, str]) -> list[str]:
    notes = []
    for value, name in labels.items():
        found = _of_label(scans, value)
        if any(one.has_tiny_pieces for one in found):
            notes.append(
                f"{labelled(name, value)} has pieces of {TINY_VOXELS} voxels or fewer: expect some of them to be missed"
            )
        if len(found) < len(scans):
            notes.append(f"{labelled(name, value)} is missing from {len(scans) - len(found)} of {len(scans)} supports")
    return notes
