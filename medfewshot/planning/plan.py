"""Derive the plan from the support set: labels, grid, patch size and normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfewshot.errors import InputError, did_you_mean, some
from medfewshot.intensities import is_constant
from medfewshot.planning.grid import direction_cosines, planned_order
from medfewshot.planning.labels import choose_labels, name_with_value
from medfewshot.planning.normalise import choose_normalization, keep_extremes, modality_doubt
from medfewshot.planning.spacing import fit_to_structures, patch_voxels, target_spacing
from medfewshot.settings import PlanSettings
from medfewshot.structures import TINY_VOXELS, Structure, structures, voxel_size
from medfewshot.types import Plan, Volume

MODALITIES = ("CT", "MR", "MRI", "PT", "PET", "NM", "US", "XA", "CR", "DX", "MG", "RF", "OCT", "OP", "SM", "XC", "OT")
"""DICOM's names of modalities."""


@dataclass(frozen=True)
class _Measured:
    """Measurements of one structure in one support; the size is in mm³ (3D) or mm² (2D)."""

    extent_mm: float
    size: float
    in_one_piece: bool
    has_tiny_pieces: bool


def make_plan(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    *,
    names: Mapping[int, str] | None = None,
    settings: PlanSettings | None = None,
    like: Plan | None = None,
) -> Plan:
    """Derive the plan from a support set.

    Args:
        images: K images ``(C, *S)``.
        labels: Their label maps ``(1, *S)``.
        names: Label value -> name, as far as they are known.
        settings: What the user fixed; default: everything follows from the support.
        like: An earlier plan, whose axes and spacing stay.

    Raises:
        InputError: The supports differ in kind, contain no structure or no contrast, or a setting does not fit.
    """
    settings = settings or PlanSettings()
    settings = settings if like is None else settings.replace(spacing_mm=like.spacing_mm)
    _check_alike(images, settings.modality)
    found = [structures(label.data[0]) for label in labels]
    wholes = [bool((label.data >= 0).all()) for label in labels]
    wanted = choose_labels(labels, found, names or {}, settings.labels)
    measured = {
        value: [_measure(one[value], label) for one, label in zip(found, labels, strict=True) if value in one]
        for value in wanted
    }
    dims = images[0].spatial_dims
    placed = dims == 3 or images[0].has_spacing
    axes = np.array(like.axes) if like else direction_cosines(images[0].affine) if placed else np.eye(3)
    orders = [planned_order(label, axes) for label in labels]
    spacings = np.array([np.array(label.spacing_mm)[order] for label, order in zip(labels, orders, strict=True)])
    shapes = np.array([np.array(label.spatial_shape)[order] for label, order in zip(labels, orders, strict=True)])
    extents_mm = shapes * spacings
    masks = [np.isin(label.data[0], list(wanted)) for label in labels]
    normalization = tuple(
        keep_extremes(
            choose_normalization(images, masks, channel, settings.modality),
            [image.data[channel] for image in images], found, wanted,
        )
        for channel in range(images[0].data.shape[0])
    )  # fmt: skip
    spacing = target_spacing(
        spacings,
        extents_mm,
        longest_mm=max(float(np.median([one.extent_mm for one in found])) for found in measured.values()),
        narrowest_mm=min(
            float(np.median([(2 * dims * one.size / np.pi) ** (1 / dims) for one in found]))
            for found in measured.values()
        ),
        settings=settings,
    )
    plan = Plan(
        spatial_dims=dims,
        channels=images[0].data.shape[0],
        axes=tuple((float(a), float(b), float(c)) for a, b, c in axes),
        spacing_mm=tuple(float(s) for s in spacing),
        patch_size=(),
        normalization=normalization,
        labels=wanted,
        keep_largest=tuple(v for v in wanted if all(one.in_one_piece for one in measured[v])),
    )
    plan = fit_to_structures(plan, labels, np.median(spacings, axis=0), settings)
    shape = tuple(max(1, round(float(n))) for n in np.median(extents_mm / plan.spacing_mm, axis=0))
    return replace(
        plan,
        patch_size=_patch_size(shape, plan.spacing_mm, patch_voxels(settings, planar=dims == 2 or shapes.min() == 1)),
        median_shape=shape,
        notes=(
            *_notes(measured, wanted, [one for one, complete in zip(found, wholes, strict=True) if complete]),
            *modality_doubt(images, settings.modality, normalization),
            *plan.notes,
        ),
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
        others = some([f"{name} is {kind}" for kind, name in stated.items()])
        raise InputError(
            f"the supports are of different modalities ({others})",
            "give those of one modality, or set it to MR for all",
            setting="modality",
        )


def _measure(structure: Structure, label: Volume) -> _Measured:
    sizes = structure.component_voxels
    # In partly annotated scans the number of pieces of a structure is unknown.
    around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in structure.box)
    whole = bool((label.data[0][around] >= 0).all())
    annotated = 1.0 if whole else float(np.mean(structure.labels >= 0))
    one = structure.in_one_piece
    return _Measured(
        extent_mm=max(n * s for n, s in zip(structure.extent, label.spacing_mm, strict=True)),
        size=structure.voxels / annotated * voxel_size(label.affine, label.spatial_dims),
        in_one_piece=one and whole,
        # Specks beside a structure in one piece are annotation errors, not structures that could vanish.
        has_tiny_pieces=whole and bool(sizes.max() <= TINY_VOXELS or (not one and sizes.min() <= TINY_VOXELS)),
    )


def _patch_size(shape: Sequence[int], spacing: Sequence[float] | np.ndarray, budget: int) -> tuple[int, ...]:
    """Return the largest patch within ``budget`` voxels that is as close to a cube in mm as the volume allows."""
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


def _notes(
    measured: Mapping[int, Sequence[_Measured]], labels: Mapping[int, str], complete: Sequence[Mapping[int, Structure]]
) -> list[str]:
    notes = []
    for value, found in measured.items():
        name = name_with_value(labels[value], value)
        if any(one.has_tiny_pieces for one in found):
            notes.append(f"{name} has pieces of {TINY_VOXELS} voxels or fewer: look for missed ones in every result")
        missing = sum(value not in one for one in complete)
        if missing:
            notes.append(
                f"{name} is missing from {missing} of {len(complete)} labelled scans; label it if it is visible there"
            )
    return notes
