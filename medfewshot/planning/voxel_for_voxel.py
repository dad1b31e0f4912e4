"""Scans and supports compared voxel for voxel, because only one side states a voxel size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medfewshot.types import Plan, Volume


def voxel_for_voxel(volume: Volume, plan: Plan, profile: Mapping[str, Any]) -> tuple[Volume, tuple[str, ...]]:
    """Give a volume the axes and the voxel size of the supports if only the volume or only they state millimetres.

    A pixel of a PNG is no millimetre: to resample by it would shrink or enlarge the scan.

    Args:
        volume: ``(C, *S)``.
        plan: Of the supports.
        profile: Of the supports, see :func:`medfewshot.quality.support_profile`.

    Returns:
        The volume with the affine to plan with, and a warning; the volume itself and nothing if no affine is lacking.
    """
    supports = [support["spacing_mm"] for support in profile.get("supports") or []]
    known = [spacing for spacing in supports if spacing]
    if not supports or volume.has_spacing == bool(known) or volume.spatial_dims != plan.spatial_dims:
        return volume, ()
    spacing = np.ones(3)
    if known:
        spacing[: volume.spatial_dims] = np.median(known, axis=0)
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(plan.axes) * spacing
    if known:
        size = " x ".join(f"{length:.3g}" for length in spacing[: volume.spatial_dims])
        warning = f"has no spacing: taken voxel for voxel, with the supports' axes and {size} mm"
    else:
        warning = "the supports have no spacing: taken voxel for voxel, whatever its spacing in mm"
    return replace(volume, affine=affine, has_spacing=bool(known)), (warning,)
