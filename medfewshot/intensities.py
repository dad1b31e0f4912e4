"""Intensities of a scan: a sample and a digest of the voxels, whether they vary, whether they are Hounsfield units."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

MIN_AIR_HU = -90
MIN_BONE_HU = 100
_SAMPLES = 2_000_000


def subsample(values: np.ndarray, most: int = _SAMPLES) -> np.ndarray:
    """Return every n-th value as ``(n,)``, so that percentiles of a large scan take milliseconds.

    The same values are taken every time. n is odd: an even step picks the same few slices of a scan whose axes are
    powers of two.

    Args:
        values: Any shape.
        most: About how many values to return at most.
    """
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // most) | 1]


def robust_window(image: np.ndarray) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of the finite intensities, from about 200 000 voxels."""
    sample = subsample(image, 200_000)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def constant_channels(image: np.ndarray) -> str:
    """Describe the channels of ``image (C, *S)`` that have the same value in every voxel; "" if there are none."""
    constant = [number for number, channel in enumerate(image, start=1) if channel.min() == channel.max()]
    if len(constant) == len(image):
        return "every voxel has the same value"
    return f"every voxel of channel {', '.join(map(str, constant))} has the same value" if constant else ""


def voxel_digest(image: np.ndarray) -> str:
    """Return a digest of the voxels of ``image (C, *S)``, which a copy of the scan has too."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


def is_constant(image: np.ndarray) -> bool:
    """Return whether every channel of ``image (C, *S)`` has the same value in every voxel."""
    return all(channel.min() == channel.max() for channel in image)


def looks_like_hounsfield(scans: Iterable[np.ndarray]) -> bool:
    """Return whether the intensities of all ``scans (*S)`` look like Hounsfield units, which include air and bone.

    This is the only rule for "is it CT" if neither the user nor the file says so.
    """
    return all(
        float(np.percentile(subsample(scan), 1)) <= MIN_AIR_HU and float(scan.max()) >= MIN_BONE_HU for scan in scans
    )
