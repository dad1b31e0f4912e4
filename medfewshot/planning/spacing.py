"""The spacing of the plan's grid: fine enough for the structures, coarse enough for context, memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.errors import InputError
from medfewshot.planning.ceiling import ceilings
from medfewshot.planning.labels import name_with_value
from medfewshot.settings import PlanSettings
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
"""A planar grid on which a structure cannot reach this Dice is refined. In 3D the limit is only stated, because patches
keep their number of voxels: on a finer grid they would show less of the surroundings."""
REFINEMENT_STEP = 0.8


def target_spacing(
    spacings: np.ndarray,
    extents_mm: np.ndarray,
    *,
    longest_mm: float,
    narrowest_mm: float,
    settings: PlanSettings,
) -> np.ndarray:
    """Choose the spacing from the scans and the sizes of the structures.

    Args:
        spacings: ``(K, D)`` in mm, one row a support.
        extents_mm: ``(K, D)``, sizes of the scans.
        longest_mm: Length of the longest structure.
        narrowest_mm: Diameter of the smallest structure, as if it were a sphere or a disc.
        settings: A spacing that the user fixed, ``fast``, and the voxels of a patch.

    Returns:
        ``(D,)`` in mm.

    Raises:
        InputError: The spacing of the user does not fit the number of axes.
    """
    median_mm = np.median(spacings, axis=0)
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
    context_mm = float((covered / patch_voxels(settings, len(median_mm))) ** (1 / thin.sum()))
    goal = min(
        max(field_mm / FIELD_OF_VIEW_VOXELS, context_mm),
        longest_mm / STRUCTURE_VOXELS,
        narrowest_mm / SMALLEST_DIAMETER_VOXELS,
    )
    if len(median_mm) == 2:
        # A planar image is small, so 256 pixels across are affordable and keep its detail.
        goal = min(goal, field_mm / 256)
    if settings.fast:
        goal = max(goal, median_mm.min()) * 1.7
    return np.where(thick, median_mm, np.maximum(median_mm, goal))


def patch_voxels(settings: PlanSettings, dims: int) -> int:
    """Return the voxels of a training patch: the user's, or the default for ``dims`` axes."""
    return settings.patch_voxels or (PATCH_PIXELS if dims == 2 else PATCH_VOXELS)


def fit_to_structures(plan: Plan, labels: Sequence[Volume], original_mm: np.ndarray, *, may_refine: bool) -> Plan:
    """Measure the ceiling of every structure, and refine a planar grid if one of them is too thin for it.

    Args:
        plan: With the spacing to begin with.
        labels: Label maps of the supports.
        original_mm: Median spacing of the supports, ``(D,)``: the grid is never finer.
        may_refine: False keeps the spacing.

    Returns:
        The plan with its final spacing and ``ceilings``.
    """
    found = ceilings(labels, plan)
    while may_refine and min(found.values()) < LOW_CEILING and (np.array(plan.spacing_mm) > original_mm).any():
        finer = np.maximum(original_mm, np.array(plan.spacing_mm) * REFINEMENT_STEP)
        plan = replace(plan, spacing_mm=tuple(float(mm) for mm in finer))
        found = ceilings(labels, plan)
    return replace(plan, ceilings=found)


def ceiling_notes(plan: Plan, labels: Sequence[Volume], original_mm: np.ndarray) -> list[str]:
    """Say which structures the grid limits, and what the finest grid would allow."""
    low = [value for value, dice in plan.ceilings.items() if dice < LOW_CEILING]
    if not low or np.allclose(plan.spacing_mm, original_mm):
        return []
    best = ceilings(labels, replace(plan, spacing_mm=tuple(float(mm) for mm in original_mm)), low)
    in_plane = float(original_mm.min())
    return [
        f"{name_with_value(plan.labels[value], value)} can reach Dice {plan.ceilings[value]:.2f} at most at "
        f"{min(plan.spacing_mm):.3g} mm: a spacing of {in_plane:.3g} mm allows {best[value]:.2f}, and takes longer"
        for value in low
        if best[value] > plan.ceilings[value] + 0.01
    ]
