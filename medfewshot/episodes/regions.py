"""Regions of scans without labels. Every region may become a class of an episode.

SLIC supervoxels are compact and evenly large. Basins of a watershed on the gradient follow borders, and merge as its
level rises. One label map is one scale. Supports and queries of an episode are different views of one scan.

References:
    Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, IEEE TPAMI 2012.
    Ouyang et al., Self-supervision with superpixels, ECCV 2020 (tasks from superpixels of scans without labels).
    Gao et al., MASS, CVPR 2026 (tasks from class-free masks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medfewshot.episodes.examples import LabelledTask
from medfewshot.errors import InputError

SLIC_MM = (24.0, 48.0)
"""Edges of the supervoxels: about 14 and 110 ml."""
SLIC_COMPACTNESS = 0.1
WATERSHED_LEVELS = (20.0, 30.0)
"""Depth of the basins that are merged, in percent of the gradient's 90th percentile."""
GRADIENT_MM = 2.0
MAX_REGIONS = 255
"""Regions that are kept per map, so that a map is uint8."""
DARK = 0.05
"""Share of the range of intensities that counts as dark; fat of a CT is brighter."""
MIN_AXIS = 8
"""Voxels that each axis needs: the filters look at some neighbours."""


def find_regions(image: Tensor, spacing_mm: Sequence[float], volumes_ml: tuple[float, float] = (0.5, 500)) -> Tensor:
    """Split a scan into regions at several scales.

    Regions outside the body and outside ``volumes_ml`` are background. Of more than 255 regions, 255 are drawn with
    weights that are their volumes; the same scan always has the same regions.

    Args:
        image: ``(C, X, Y, Z)``; the first channel is split.
        spacing_mm: Voxel size.
        volumes_ml: Smallest and largest volume of a region.

    Returns:
        uint8 ``(scales, X, Y, Z)``.

    Raises:
        InputError: The scan has two axes, or too few voxels along one.
    """
    if image.ndim != 4 or min(image.shape[1:]) < MIN_AXIS:
        raise InputError(
            f"cannot split a scan of {tuple(image.shape[1:])} voxels into regions",
            f"choose 3D scans with at least {MIN_AXIS} voxels along each axis",
        )
    import SimpleITK as sitk

    values = image[0].float().numpy()
    scan = sitk.GetImageFromArray((values - values.mean()) / max(float(values.std()), 1e-6))
    scan.SetSpacing([float(mm) for mm in reversed(spacing_mm)])
    maps = [
        sitk.SLIC(scan, [max(2, round(edge / mm)) for mm in scan.GetSpacing()], SLIC_COMPACTNESS, 5) for edge in SLIC_MM
    ]
    gradient = sitk.GradientMagnitudeRecursiveGaussian(scan, GRADIENT_MM)
    steep = max(float(np.quantile(sitk.GetArrayViewFromImage(gradient), 0.9)), 1e-6)
    percent = sitk.Cast(sitk.Clamp(gradient * (100 / steep), upperBound=255), sitk.sitkUInt8)  # 12 times as fast
    maps += [sitk.MorphologicalWatershed(percent, level, False, False) for level in WATERSHED_LEVELS]
    body, voxel_ml = _body(values), float(np.prod(spacing_mm)) / 1000
    rng = np.random.default_rng(0)
    kept = [_keep(sitk.GetArrayFromImage(found), body, np.array(volumes_ml) / voxel_ml, rng) for found in maps]
    return torch.from_numpy(np.stack(kept))


def region_tasks(task: LabelledTask, views: int, neighbours: int = 0) -> list[LabelledTask]:
    """Make one task of every region map, and one of every other scan that it was carried to.

    Args:
        task: Its examples are (scan, region map) pairs; each is followed by its ``neighbours``: other scans, with the
            regions of this map that were carried to them.
        views: Supports and queries that an episode needs at most. Each is a subject of its own, because an episode
            has different subjects; the sampler varies them.
        neighbours: Scans that every map was carried to.
    """
    tasks = []
    for first in range(0, len(task.examples), 1 + neighbours):
        own, *carried = task.examples[first : first + 1 + neighbours]
        for scans in ((own,), *((own, one) for one in carried)):
            counts = torch.bincount(scans[-1].label.flatten().long(), minlength=1)
            regions = counts[1:].nonzero().flatten().add(1).tolist()
            each = range(1, 1 - (-views // len(scans)))
            examples = tuple(replace(one, subject_id=f"{one.subject_id} view {view}") for one in scans for view in each)
            name = f"{task.name} {' in '.join(one.subject_id for one in scans)} map {first // (1 + neighbours) + 1}"
            share = task.weight / len(task.examples)
            tasks.append(replace(task, name=name, examples=examples, labels=tuple(regions), weight=share))
    return tasks


def _body(values: np.ndarray) -> np.ndarray:
    """Return where the body is: everything except the dark surroundings that reach the sides of the scan."""
    low, high = np.percentile(values, (0.5, 99.5))
    dark, _ = ndimage.label(values < low + DARK * (high - low))
    sides = np.unique(np.concatenate([dark[[0, -1]].ravel(), dark[:, [0, -1]].ravel()]))
    return ~np.isin(dark, sides[sides > 0])


def _keep(found: np.ndarray, body: np.ndarray, voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number the regions of a suitable size that are mostly inside the body from 1 on, at most 255."""
    sizes = np.bincount(found.ravel())
    inside = np.bincount(found[body], minlength=len(sizes))
    fit = np.flatnonzero((sizes >= voxels[0]) & (sizes <= voxels[1]) & (2 * inside > sizes))
    if len(fit) > MAX_REGIONS:
        chances = sizes[fit].astype(float)
        fit = np.sort(rng.choice(fit, MAX_REGIONS, replace=False, p=chances / chances.sum()))
    table = np.zeros(len(sizes), dtype=np.uint8)
    table[fit] = np.arange(1, len(fit) + 1)
    return table[found]
