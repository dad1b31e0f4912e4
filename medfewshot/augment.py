"""Augmentation of training patches on the device, in 2D and 3D.

Rotation, scaling, translation, elastic deformation and cropping are one resampling of the whole volume, so a rotated
patch shows tissue in its corners, not padding. Rotations are in mm, so anisotropic voxels rotate correctly. All
random numbers come from a generator on the CPU, so the same seed gives the same patches on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = {2: "bilinear", 3: "trilinear"}
"""torch's name of linear interpolation, by the number of axes."""


@dataclass(frozen=True)
class Augmentation:
    """Strength of the augmentation. Probabilities are per patch; a strength of 0 switches a step off."""

    rotation_rad: float = 0.3
    """Largest rotation about each axis. For thick slices only the rotation in their plane reaches it."""
    scale: float = 0.2
    """Zoom of all axes, log-uniform in [1 / (1 + scale), 1 + scale]. Each axis varies by a third of that more."""
    elastic: float = 0.04
    """Standard deviation of the coarse displacement field, as a fraction of the patch's edge."""
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
    """Probability of any warp."""


NO_AUGMENTATION = Augmentation(**{setting.name: 0.0 for setting in fields(Augmentation)})


def _uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def _rotation(angles: Tensor, dims: int) -> Tensor:
    """Return the rotation matrix ``(dims, dims)`` of one angle (2D) or three (3D), in radians."""
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
    """Draw a voxel-to-voxel matrix ``(dims, dims)``: zoom, then rotation in mm."""
    dims = len(spacing)
    angles = _uniform((3,), -1, 1, generator) * config.rotation_rad
    if dims == 3:
        thick = spacing / spacing.min() >= 3
        if thick.any():
            # Keep rotations small that tilt thick slices, because they blend voxels that are centimetres apart.
            angles[~thick] *= 0.25
    bound = math.log1p(config.scale)
    zoom = torch.exp(_uniform((1,), -bound, bound, generator) + _uniform((dims,), -bound / 3, bound / 3, generator))
    in_mm = _rotation(angles, dims) @ torch.diag(zoom)
    return torch.diag(1 / spacing) @ in_mm @ torch.diag(spacing)


def _elastic_field(patch: Sequence[int], strength: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw a smooth displacement ``(1, dims, *patch)`` in voxels."""
    dims = len(patch)
    coarse = [max(3, min(6, size // 8)) for size in patch]
    field = torch.randn((1, dims, *coarse), generator=generator).to(device) * strength
    field = F.interpolate(field, size=tuple(patch), mode="bicubic" if dims == 2 else "trilinear", align_corners=True)
    return field * torch.tensor(patch, dtype=torch.float32, device=device).view(1, dims, *([1] * dims))


def inside(centre: Tensor, patch: Tensor, size: Tensor) -> Tensor:
    """Move the centre of a patch so that the patch is inside a volume, or a smaller volume in its middle; in voxels."""
    low = torch.minimum(patch / 2 - 0.5, (size - 1) / 2)
    high = torch.maximum(size - patch / 2 - 0.5, (size - 1) / 2)
    return torch.maximum(torch.minimum(centre, high), low)


def patch_grid(
    patch: Sequence[int],
    centre: Tensor,
    spacing: Tensor,
    config: Augmentation,
    generator: torch.Generator,
    device: torch.device = torch.device("cpu"),
) -> Tensor:
    """Draw the voxel coordinates in the source volume at which a patch is read.

    Args:
        patch: Numbers of voxels per axis.
        centre: ``(dims,)``, of the patch, in voxels of the volume. On the CPU.
        spacing: ``(dims,)`` in mm, on the CPU.
        config: How to warp the patch.
        generator: On the CPU, so that only a few numbers travel to ``device``.
        device: Where the coordinates are computed.

    Returns:
        ``(dims, *patch)`` float32 on ``device``.
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
        # Move to a voxel centre, so that interpolation does not blur a plain crop.
        half = (torch.tensor(patch, dtype=torch.float32) - 1) / 2
        centre = torch.round(centre - half) + half
    return points + centre.to(device).view(dims, *([1] * dims))


def read_at(volume: Tensor, points: Tensor, mode: str, padding: str = "border") -> Tensor:
    """Read a volume at voxel coordinates.

    Args:
        volume: ``(C, *S)``.
        points: ``(dims, *P)`` in voxels.
        mode: ``"bilinear"`` or ``"nearest"``.
        padding: What lies outside the volume, as in ``torch.nn.functional.grid_sample``.

    Returns:
        ``(C, *P)``.
    """
    dims = points.shape[0]
    size = torch.tensor(volume.shape[1:], dtype=points.dtype, device=points.device).view(dims, *([1] * dims))
    unit = (2 * points + 1) / size - 1
    grid = unit.flip(0).movedim(0, -1)[None].to(volume.device)
    return F.grid_sample(volume[None], grid.to(volume.dtype), mode=mode, padding_mode=padding, align_corners=False)[0]


def vary_intensity(images: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary gamma, contrast, brightness, bias field, blur and noise of ``images (B, C, *S)``, patch by patch."""
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
    field = F.interpolate(coarse.to(image), size=image.shape[1:], mode=LINEAR[dims], align_corners=True)[0]
    low = image.amin()
    return (image - low) * field.exp() + low


def _lower_resolution(image: Tensor, generator: torch.Generator) -> Tensor:
    """Imitate a coarser acquisition: sample down and up again."""
    factor = float(_uniform((1,), 1.2, 2.0, generator))
    mode = LINEAR[image.ndim - 1]
    small = [max(2, round(size / factor)) if size > 16 else size for size in image.shape[1:]]
    down = F.interpolate(image[None], size=small, mode=mode)
    return F.interpolate(down, size=image.shape[1:], mode=mode)[0]
