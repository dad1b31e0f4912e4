"""Normalise intensities: a fixed window for CT, a z-score of each volume for all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from medfewshot.intensities import looks_like_hounsfield, subsample
from medfewshot.structures import Structure
from medfewshot.types import Normalization, Volume

SOFT_TISSUE_HU = (-160.0, 240.0)
"""The usual abdominal window of CT benchmarks; widened if the structures lie outside it."""
BEYOND_HU = 50
"""The window reaches this far beyond the structures."""
CLIPPED_PERCENTILES = (0.5, 99.5)
MOST_STDS = 10.0
"""Values beyond the percentiles reach at most this many standard deviations."""
MIN_STD = 0.02
"""Smallest standard deviation, as a share of the intensity range: a phantom or a mask may have none of its own."""


def choose_normalization(
    images: Sequence[Volume], masks: Sequence[np.ndarray], channel: int, modality: str | None
) -> Normalization:
    """Choose window or z-score for one channel by the modality, or by the intensities if it is unknown.

    Args:
        images: The supports.
        masks: One bool array ``(*S)`` per image, True inside any structure.
        channel: Which channel.
        modality: What the user states; None: what a file states, if any.
    """
    stated = modality or next((image.modality for image in images if image.modality), None)
    if stated is not None:
        if stated.upper().startswith("CT"):
            return _ct_window(images, masks, channel, f"modality {stated}")
        return Normalization("zscore", reason=f"modality {stated}")
    if looks_like_hounsfield(image.data[channel] for image in images):
        return _ct_window(images, masks, channel, "intensities look like Hounsfield units (air below -90)")
    return Normalization("zscore", reason="intensities do not look like Hounsfield units")


def modality_doubt(images: Sequence[Volume], modality: str | None, chosen: Sequence[Normalization]) -> tuple[str, ...]:
    """Warn if scans look like CT and a file (not the user) states something else, or if CT has no value below 0."""
    if all(one.kind == "window" for one in chosen) and all(image.data.min() >= 0 for image in images):
        return ("no gray value is below 0, so they are no Hounsfield units; check the rescale intercept of the files",)
    stated = next((image.modality for image in images if image.modality), None)
    doubted = stated and modality is None and all(one.kind == "zscore" for one in chosen)
    if not doubted or not looks_like_hounsfield(channel for image in images for channel in image.data):
        return ()
    return (f"gray values look like Hounsfield units, but the modality is {stated}; if it is CT, set the modality",)


def normalise(image: Tensor, normalization: Sequence[Normalization]) -> Tensor:
    """Return the network input ``(C, *P)`` of ``image (C, *P)``, normalized channel by channel."""
    return torch.stack([_normalise_channel(x, how) for x, how in zip(image, normalization, strict=True)])


def _normalise_channel(x: Tensor, how: Normalization) -> Tensor:
    if how.kind == "window":
        return (x.clamp(how.low, how.high) - how.mean) / how.std
    values = np.asarray(subsample(x.numpy()))
    low, high = (float(v) for v in np.percentile(values, CLIPPED_PERCENTILES))
    if high <= low:  # nearly all voxels are equal, and the contrast lies beyond the percentiles
        low, high = float(x.min()), float(x.max())
    if high <= low:
        return torch.zeros_like(x)
    clipped = x.clamp(low, high)
    body = clipped[clipped > low + 0.1 * (high - low)]
    body = body if body.numel() > 1 else clipped.flatten()
    mean, std = body.mean(), body.std().clamp_min(MIN_STD * (high - low))
    return ((x - mean) / std).clamp(-MOST_STDS, MOST_STDS) if how.extremes else (clipped - mean) / std


def keep_extremes(
    how: Normalization, images: Sequence[np.ndarray], found: Sequence[Mapping[int, Structure]], values: Iterable[int]
) -> Normalization:
    """Return a normalization that clips no structure: a wider window, or a z-score that keeps extreme values.

    Args:
        how: The normalization of one channel. It stays unless most voxels of a structure are clipped.
        images: This channel of the supports, ``(*S)`` each.
        found: Structures of each support by value.
        values: Label values to learn.
    """
    window = how.kind == "window"
    ends = [(how.low, how.high) if window else np.percentile(subsample(x), CLIPPED_PERCENTILES) for x in images]
    for value in values:
        where = [number for number, structures in enumerate(found) if value in structures]
        inside = [images[n][found[n][value].box][found[n][value].mask] for n in where]
        limits = [ends[n] for n in where]
        clipped = [
            max(np.mean(x < low), np.mean(x > high)) if low < high else 0.0
            for x, (low, high) in zip(inside, limits, strict=True)
        ]
        if clipped and np.median(clipped) > 0.5:
            low, high = np.percentile(np.concatenate(inside), CLIPPED_PERCENTILES)
            low, high = min(how.low, float(low) - BEYOND_HU), max(how.high, float(high) + BEYOND_HU)
            how = replace(how, low=low, high=high) if window else replace(how, extremes=True)
    return how


def _ct_window(images: Sequence[Volume], masks: Sequence[np.ndarray], channel: int, reason: str) -> Normalization:
    inside = np.concatenate([subsample(image.data[channel][mask]) for image, mask in zip(images, masks, strict=True)])
    low, high = SOFT_TISSUE_HU
    if inside.size:
        p_low, p_high = np.percentile(inside, (0.5, 99.5))
        low, high = min(low, float(p_low) - BEYOND_HU), max(high, float(p_high) + BEYOND_HU)
    everywhere = np.concatenate([subsample(image.data[channel], 200_000) for image in images])
    everywhere = everywhere[(everywhere > low) & (everywhere < high)]
    if everywhere.size < 2:
        everywhere = np.array([low, high])
    mean, std = float(everywhere.mean()), float(max(everywhere.std(), 1e-3))
    return Normalization("window", low, high, mean, std, reason)
