"""Batch augmentation on the device: patches are read straight out of whole planned volumes through one warped grid.

Rotation, scaling, translation, elastic deformation and cropping are one resampling, so a rotated patch has real
tissue in its corners rather than padding. Everything is drawn from an explicit generator on the CPU, so the same seed
gives the same patches on every device. Works in 2D and 3D; lengths are in mm so that anisotropic voxels rotate rightly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strongly patches are varied. Probabilities are per patch; a strength of 0 switches a step off."""

    rotation_rad: float = 0.3
    """Largest rotation about each axis (in the acquired plane only where voxels are strongly anisotropic)."""
    scale: float = 0.2
    """Zoom, log-uniform in [1 / (1 + scale), 1 + scale], per axis within a third of that."""
    elastic: float = 0.04
    """Standard deviation of the coarse displacement field, as a fraction of the patch's extent."""
    intensity_probability: float = 0.5
    gamma: float = 0.35
    """Gamma is log-uniform in [exp(-gamma), exp(gamma)]."""
    contrast: float = 0.25
    brightness: float = 0.2
    bias: float = 0.3
    """Amplitude of the smooth multiplicative field."""
    noise: float = 0.15
    blur_probability: float = 0.2
    probability: float = 0.9
    """Probability that a patch is warped at all."""


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def _uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def _rotation(angles: Tensor, dims: int) -> Tensor:
    """Rotation matrix (dims, dims) from one angle (2D) or three (3D), radians."""
    if dims == 2:
        c, s = math.cos(angles[0]), math.sin(angles[0])
        return torch.tensor([[c, -s], [s, c]])
    matrix = torch.eye(3)
    for axis in range(3):
        c, s = math.cos(angles[axis]), math.sin(angles[axis])
        i, j = [a for a in range(3) if a != axis]
        turn = torch.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = matrix @ turn
    return matrix


def _random_affine(spacing: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Voxel-to-voxel matrix (dims, dims): rotation in mm, then zoom."""
    dims = len(spacing)
    angles = _uniform((3,), -1, 1, generator) * config.rotation_rad
    if dims == 3:
        thick = spacing / spacing.min() >= 3
        for axis in range(3):
            # A rotation that tilts thick slices would blend voxels centimetres apart: keep it small.
            if bool(thick.any()) and not bool(thick[axis]):
                angles[axis] *= 0.25
    bound = math.log1p(config.scale)
    zoom = torch.exp(_uniform((1,), -bound, bound, generator) + _uniform((dims,), -bound / 3, bound / 3, generator))
    in_mm = _rotation(angles, dims) @ torch.diag(zoom)
    return torch.diag(1 / spacing) @ in_mm @ torch.diag(spacing)


def _elastic_field(patch: Sequence[int], strength: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Smooth displacement in voxels, (1, dims, *patch)."""
    dims = len(patch)
    coarse = [max(3, min(6, size // 8)) for size in patch]
    field = torch.randn((1, dims, *coarse), generator=generator).to(device) * strength
    field = F.interpolate(field, size=tuple(patch), mode="bicubic" if dims == 2 else "trilinear", align_corners=True)
    return field * torch.tensor(patch, dtype=torch.float32, device=device).view(1, dims, *([1] * dims))


def patch_grid(
    patch: Sequence[int],
    centre: Tensor,
    spacing: Tensor,
    config: Augmentation,
    generator: torch.Generator,
    device: torch.device = torch.device("cpu"),
) -> Tensor:
    """Voxel coordinates (dims, *patch), on ``device``, in the source volume at which a patch is read.

    ``centre``, ``spacing`` and ``generator`` are the CPU's: few numbers travel, the grid does not.
    """
    dims = len(patch)
    axes = [torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2 for size in patch]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if config.probability and float(torch.rand(1, generator=generator)) < config.probability:
        matrix = _random_affine(spacing, config, generator)
        points = torch.einsum("ij,j...->i...", matrix.to(device), points)
        if config.elastic and float(torch.rand(1, generator=generator)) < 0.5:
            strength = config.elastic * float(torch.rand(1, generator=generator))
            points = points + _elastic_field(patch, strength, generator, device)[0]
    else:
        # Read from voxel centre to voxel centre: a plain crop must not be blurred by interpolation.
        half = (torch.tensor(patch, dtype=torch.float32) - 1) / 2
        centre = torch.round(centre - half) + half
    return points + centre.to(device).view(dims, *([1] * dims))


def read_at(volume: Tensor, points: Tensor, mode: str, padding: str = "border") -> Tensor:
    """Read ``volume (C, *S)`` at voxel coordinates ``points (dims, *P)`` -> ``(C, *P)``; ``mode`` bilinear|nearest."""
    dims = points.shape[0]
    size = torch.tensor(volume.shape[1:], dtype=points.dtype, device=points.device).view(dims, *([1] * dims))
    unit = (2 * points + 1) / size - 1
    grid = unit.flip(0).movedim(0, -1)[None].to(volume.device)
    return F.grid_sample(volume[None], grid.to(volume.dtype), mode=mode, padding_mode=padding, align_corners=False)[0]


def vary_intensity(images: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Gamma, contrast, brightness, bias field, blur and noise on ``images (B, C, *S)``, each patch its own."""
    varied = []
    for image in images:
        if float(torch.rand(1, generator=generator)) < config.intensity_probability:
            image = _gamma(image, config, generator)
        if float(torch.rand(1, generator=generator)) < config.intensity_probability:
            image = _bias_field(image, config, generator)
        if float(torch.rand(1, generator=generator)) < config.intensity_probability:
            factor, shift = _uniform((2,), -1, 1, generator).tolist()
            image = image * (1 + config.contrast * factor) + config.brightness * shift
        if float(torch.rand(1, generator=generator)) < config.blur_probability:
            image = _lower_resolution(image, generator)
        if float(torch.rand(1, generator=generator)) < config.intensity_probability / 2:
            strength = config.noise * float(torch.rand(1, generator=generator))
            image = image + strength * torch.randn(image.shape, generator=generator).to(image)
        varied.append(image)
    return torch.stack(varied)


def _gamma(image: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    gamma = math.exp(float(_uniform((1,), -config.gamma, config.gamma, generator)))
    low, high = image.amin(), image.amax()
    unit = (image - low) / (high - low).clamp_min(1e-6)
    return unit.pow(gamma) * (high - low) + low


def _bias_field(image: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    dims = image.ndim - 1
    strength = config.bias * float(torch.rand(1, generator=generator))
    coarse = torch.randn((1, 1, *([3] * dims)), generator=generator) * strength
    mode = "bilinear" if dims == 2 else "trilinear"
    field = F.interpolate(coarse.to(image), size=image.shape[1:], mode=mode, align_corners=True)[0]
    low = image.amin()
    return (image - low) * field.exp() + low


def _lower_resolution(image: Tensor, generator: torch.Generator) -> Tensor:
    """Down and up again, as a thicker or coarser acquisition would look."""
    dims = image.ndim - 1
    factor = float(_uniform((1,), 1.2, 2.0, generator))
    mode = "bilinear" if dims == 2 else "trilinear"
    small = [max(2, round(size / factor)) if size > 16 else size for size in image.shape[1:]]
    down = F.interpolate(image[None], size=small, mode=mode)
    return F.interpolate(down, size=image.shape[1:], mode=mode)[0]
