"""The spacing of the plan's grid: fine enough for the structures, coarse enough for context, memory and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.errors import InputError
from medfewshot.planning.ceiling import ceilings
from medfewshot.planning.labels import name_with_value
from medfewshot.settings import QUALITY_LEVELS, PlanSettings, QualityLevel
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
LOW_CEILING = 0.9
"""A warning names structures that cannot reach this Dice on the grid."""
REFINEMENT_STEP = 0.8
MAX_REFINEMENTS = 2
"""In 3D, because patches keep their number of voxels: on a finer grid they show less of the surroundings."""


def target_spacing(
    spacings: np.ndarray, extents_mm: np.ndarray, *, longest_mm: float, narrowest_mm: float, settings: PlanSettings
) -> np.ndarray:
    """Choose the spacing from the scans and the sizes of the structures.

    Args:
        spacings: ``(K, D)`` in mm, one row a support.
        extents_mm: ``(K, D)``, sizes of the scans.
        longest_mm: Length of the longest structure.
        narrowest_mm: Diameter of the smallest structure, as if it were a sphere or a disc.
        settings: A spacing that the user fixed, the quality, and the voxels of a patch.

    Returns:
        ``(D,)`` in mm.

    Raises:
        InputError: The spacing of the user does not fit the number of axes.
    """
    median_mm = np.median(spacings, axis=0)
    planar = len(median_mm) == 2 or bool((np.round(extents_mm / spacings) == 1).any())
    thick = median_mm >= THICK_RATIO * median_mm.min()
    if settings.spacing_mm is not None:
        given = np.asarray(settings.spacing_mm, dtype=float)
        if given.size not in (1, median_mm.size):
            raise InputError(
                f"target spacing {settings.spacing_mm} mm does not fit {median_mm.size} axes",
                f"give one positive number, or {median_mm.size}",
                setting="spacing_mm",
            )
        given = np.broadcast_to(given, median_mm.shape)
        return np.where(thick, median_mm, given) if np.ndim(settings.spacing_mm) == 0 else given.copy()
    field_mm = np.median(np.sort(extents_mm, axis=1)[:, -2])
    # The spacing of the thin axes at which one patch covers CONTEXT_FRACTION of the median scan.
    extent, thin = np.median(extents_mm, axis=0), ~thick
    covered = np.prod(extent[thin]) * float(np.prod(extent[thick] / median_mm[thick])) * CONTEXT_FRACTION
    context_mm = float((covered / patch_voxels(settings, planar=planar)) ** (1 / thin.sum()))
    goal = min(
        max(field_mm / FIELD_OF_VIEW_VOXELS, context_mm),
        longest_mm / STRUCTURE_VOXELS,
        narrowest_mm / SMALLEST_DIAMETER_VOXELS,
    )
    if planar:
        # A planar image is small, so 256 pixels across are affordable and keep its detail.
        goal = min(goal, field_mm / 256)
    if settings.level.coarser > 1:
        goal = max(goal, median_mm.min()) * settings.level.coarser
    return np.where(thick, median_mm, np.maximum(median_mm, goal))


def patch_voxels(settings: PlanSettings, *, planar: bool) -> int:
    """Return the voxels of a training patch: the user's, or the default for 2D images or for volumes."""
    return settings.patch_voxels or (PATCH_PIXELS if planar else PATCH_VOXELS)


def fit_to_structures(plan: Plan, labels: Sequence[Volume], original_mm: np.ndarray, settings: PlanSettings) -> Plan:
    """Measure the ceiling of every structure, and refine the grid if it is too coarse for one of them.

    Args:
        plan: With the spacing to begin with.
        labels: Label maps of the supports.
        original_mm: Median spacing of the supports, ``(D,)``: the grid is never finer.
        settings: Their quality says which ceiling is enough. A spacing that the user fixed stays.

    Returns:
        The plan with its final spacing, ``ceilings``, and notes about structures that the grid limits.
    """
    planar = plan.spatial_dims == 2 or any(1 in label.spatial_shape for label in labels)
    found, usual_mm = ceilings(labels, plan), np.array(plan.spacing_mm) / settings.level.coarser
    if settings.spacing_mm is None:
        plan, found = _refined(plan, labels, original_mm, found, level=settings.level, planar=planar)
    plan = replace(plan, ceilings=found)
    notes = _ceiling_notes(plan, labels, original_mm, usual_mm, settings=settings, planar=planar)
    return replace(plan, notes=(*plan.notes, *notes))


def _refined(
    plan: Plan,
    labels: Sequence[Volume],
    original_mm: np.ndarray,
    found: dict[int, float],
    *,
    level: QualityLevel,
    planar: bool,
) -> tuple[Plan, dict[int, float]]:
    """Refine the grid until the ceilings ``found`` of its structures are high enough for a level of quality."""
    enough = level.planar_ceiling if planar else level.volume_ceiling
    most = math.inf if planar else MAX_REFINEMENTS
    reached = np.mean if level.on_average and not planar else min
    rounds = 0
    while rounds < most and reached(list(found.values())) < enough and (np.array(plan.spacing_mm) > original_mm).any():
        finer = np.maximum(original_mm, np.array(plan.spacing_mm) * REFINEMENT_STEP)
        plan = replace(plan, spacing_mm=tuple(float(mm) for mm in finer))
        found, rounds = ceilings(labels, plan, list(found)), rounds + 1
    return plan, found


def _ceiling_notes(
    plan: Plan, labels: Sequence[Volume], original_mm: np.ndarray, usual_mm: np.ndarray, *,
    settings: PlanSettings, planar: bool,
) -> list[str]:  # fmt: skip
    """Say which structures the grid limits, and what the original grid would allow, or the best quality.

    ``usual_mm`` is the spacing before it was refined for the structures.
    """
    low = {value: dice for value, dice in plan.ceilings.items() if dice < LOW_CEILING}
    if not low or np.allclose(plan.spacing_mm, original_mm):
        return []
    original = replace(plan, spacing_mm=tuple(float(mm) for mm in original_mm))
    offers = [(original, ceilings(labels, original, list(low)), "a spacing of {mm:.3g} mm")]
    if settings.spacing_mm is None and settings.level != QUALITY_LEVELS["best"]:
        usual = np.maximum(original_mm, usual_mm)
        usual_plan = replace(plan, spacing_mm=tuple(float(mm) for mm in usual))
        best = _refined(usual_plan, labels, original_mm, low, level=QUALITY_LEVELS["best"], planar=planar)
        offers.insert(0, (*best, "quality best ({mm:.3g} mm)"))
    notes = []
    for value, dice in low.items():
        offer = next((one for one in offers if one[1][value] > dice + 0.01), None)
        if offer is not None:
            finer, found, way = offer
            notes.append(
                f"{name_with_value(plan.labels[value], value)} can reach Dice {dice:.2f} at most at "
                f"{min(plan.spacing_mm):.3g} mm: {way.format(mm=min(finer.spacing_mm))} allows {found[value]:.2f}, "
                "and takes longer"
            )
    return notes
