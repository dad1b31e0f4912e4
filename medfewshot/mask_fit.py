"""How well masks fit their own scans: does a mask end at edges, and are the gray values inside it alike?"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from torch import Tensor

from medfewshot.structures import boxes

MARGIN = 4
"""Voxels around a structure that are looked at."""


def mask_fit(image: Tensor, label: Tensor, classes: int) -> np.ndarray:
    """Measure every structure of a mask in its scan.

    Args:
        image: ``(C, *S)`` float32 on the plan's grid, normalised.
        label: ``(*S)`` with classes 0..N; negative where it is not annotated.
        classes: N + 1.

    Returns:
        ``(N, 2)``: the gradient on the structure's surface as a multiple of the gradient two voxels away from it, and
        1 / the standard deviation of the gray values inside. NaN for a structure that is absent or partly annotated.
    """
    channels, labels = image.cpu().numpy(), label.cpu().numpy()
    found = np.full((classes - 1, 2), np.nan)
    for value, box in boxes(np.maximum(labels, 0)).items():
        around = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
        if (labels[around] >= 0).all():
            found[value - 1] = _fit(channels[(slice(None), *around)], labels[around] == value)
    return found


def _fit(channels: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    gradient = np.mean([ndimage.gaussian_gradient_magnitude(channel, 1.0) for channel in channels], axis=0)
    surface = mask & ~ndimage.binary_erosion(mask)
    near = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask)
    away = near | ndimage.binary_erosion(mask, iterations=2)
    spread = float(np.mean([channel[mask].std() for channel in channels]))
    if not away.any() or spread == 0 or not gradient[away].any():
        return np.nan, np.nan
    return float(gradient[surface].mean() / gradient[away].mean()), 1 / spread
