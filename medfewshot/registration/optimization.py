"""Register supports to a query: affinely, then with a displacement field, by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.augment import LINEAR
from medfewshot.registration.correlation import LocalCorrelation
from medfewshot.registration.separable import Diffusion, along, box_matrix, interpolation_matrix
from medfewshot.registration.transform import Transform, centred_points, rows_to_grid, to_grid

FINEST_STRIDE = 2
"""Distance of the boxes on the finest level, in voxels. They overlap; on coarser levels every voxel has a box."""
AFFINE_WINDOW = 7
"""Edge of the box of the affine registration, in voxels of its grid."""
AFFINE_RATE = 0.02
"""Step of the affine registration, as a share of the volume."""


@dataclass(frozen=True)
class RegistrationOptions:
    """Settings of :func:`register`; ``lab/notes/matching.md`` says how the defaults were chosen."""

    voxels: int = 150_000
    """Maximum number of voxels of the grid on which images are compared. Finer images are averaged."""
    starts: float = 0.18
    """Shift of the affine starts along each axis, both ways, as a share of the volume. 0 gives a single start."""
    affine_steps: int = 60
    levels: tuple[tuple[int, int], ...] = ((4, 60), (2, 50), (1, 30))
    """(coarsening, steps) of each level of the displacement field."""
    control: int = 3
    """Distance of the field's control points, in voxels of the level's grid."""
    rate: float = 0.6
    """Step of the field, in voxels of the level's grid."""
    smoothness: float = 0.3
    """Weight of the squared gradient of the displacement (mm per mm)."""
    window: int = 5
    """Edge of the window of the correlation, in voxels of the level's grid."""
    intensity: float = 0.0
    """Weight of the mean squared difference of intensities: for images of equal contrast, such as frames of a film."""


FRAMES = RegistrationOptions(
    starts=0, affine_steps=0, levels=((2, 20), (1, 20)), control=2, smoothness=0.1, window=9, intensity=1.0
)
"""For frames of one film on one grid: no affine part; ``lab/notes/films.md`` says how the values were chosen."""


@dataclass(frozen=True)
class _Images:
    """Supports and query as arrays of one shape.

    Attributes:
        moving: Supports ``(K, C, *S)``.
        fixed: Query ``(1, C, *S)``.
        half_support: ``(K, d)`` in mm.
        half_query: ``(d,)`` in mm.
    """

    moving: Tensor
    fixed: Tensor
    half_support: Tensor
    half_query: Tensor

    @property
    def size(self) -> list[int]:
        """``S``."""
        return list(self.fixed.shape[2:])

    def coarser(self, factor: int) -> _Images:
        """Average over ``factor`` voxels along each axis; 4 voxels remain."""
        size = [min(n, max(4, n // factor)) for n in self.size]
        return replace(self, moving=resized(self.moving, size), fixed=resized(self.fixed, size))

    def repeated(self, times: int) -> _Images:
        """Repeat each support, for several starts."""
        moving = self.moving.repeat_interleave(times, 0)
        return replace(self, moving=moving, half_support=self.half_support.repeat_interleave(times, 0))


def register(
    supports: Sequence[Tensor],
    query: Tensor,
    spacing_mm: Sequence[float],
    options: RegistrationOptions | None = None,
    *,
    start: Transform | None = None,
) -> tuple[Transform, Tensor]:
    """Register supports to a query, on the query's device.

    Args:
        supports: K images ``(C, *S_k)``.
        query: ``(C, *S)``.
        spacing_mm: Voxel edges of all images.
        options: How to register.
        start: Transforms of the same supports to a similar query, to begin with instead of an affine registration.

    Returns:
        The transforms, and the local correlation ``(K, 1, *G)`` in [-1, 1] that they reach.
    """
    options = options or RegistrationOptions()
    spacing = torch.tensor(spacing_mm, dtype=torch.float32, device=query.device)
    shape = _working_shape([query, *supports], spacing_mm, options.voxels)
    half_query = torch.tensor(query.shape[1:], device=query.device) * spacing / 2
    half_support = torch.stack([torch.tensor(s.shape[1:], device=query.device) * spacing / 2 for s in supports])
    moving = torch.cat([resized(image[None].to(query.device), shape) for image in supports])
    images = _Images(moving, resized(query[None], shape), half_support, half_query)
    with torch.enable_grad():
        if start is None:
            matrix, shift = _affine(images.coarser(2), options)
            still = moving.new_zeros(len(moving), query.ndim - 1, *[2] * (query.ndim - 1))
            start = Transform(matrix, shift, still, half_query, half_support)
        transform = replace(start, field=_deform(images, start, options))
    with torch.no_grad():
        warped = F.grid_sample(moving, transform.grid(shape), padding_mode="border", align_corners=False)
        return transform, LocalCorrelation(images.fixed, options.window)(warped)


def _affine(images: _Images, options: RegistrationOptions) -> tuple[Tensor, Tensor]:
    """Register affinely: ``matrix (K, d, d)`` and ``shift (K, d)`` in mm.

    A third of the steps is enough to compare the starts. Only the best one continues.
    """
    shots = len(images.moving)
    offsets = _starts(images.half_query, options.starts) / images.half_query
    starts = len(offsets)
    comparing = options.affine_steps // 3 if starts > 1 else 0
    matrix = torch.eye(offsets.shape[1], device=offsets.device).repeat(shots * starts, 1, 1)
    shift = offsets.repeat(shots, 1)
    matrix, shift, scores = _affine_steps(images.repeated(starts), matrix, shift, comparing)
    best = torch.arange(shots, device=scores.device) * starts + scores.view(shots, starts).argmax(1)
    matrix, shift, _ = _affine_steps(images, matrix[best], shift[best], options.affine_steps - comparing)
    return matrix, shift * images.half_query


def _affine_steps(images: _Images, matrix: Tensor, shift: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Optimise ``matrix (K, d, d)`` and ``shift (K, d)``, a share of the query; return them and their scores."""
    correlation = LocalCorrelation(images.fixed, AFFINE_WINDOW)
    points = centred_points(images.size, images.half_query)
    matrix, shift = matrix.clone().requires_grad_(), shift.clone().requires_grad_()
    optimizer = torch.optim.Adam([matrix, shift], lr=AFFINE_RATE)
    scores = shift.new_zeros(len(shift))
    for _ in range(steps):
        scores = _similarity(
            images.moving, correlation, to_grid(points, matrix, shift * images.half_query, images.half_support)
        )
        optimizer.zero_grad()
        (-scores.sum()).backward()
        optimizer.step()
    return matrix.detach(), shift.detach(), scores.detach()


def _deform(images: _Images, start: Transform, options: RegistrationOptions) -> Tensor:
    """Optimise the displacement ``(K, d, *G)`` in mm, coarse to fine, beginning with the field of ``start``."""
    dims, field = len(images.half_query), start.field
    for coarsening, steps in options.levels:
        level = images.coarser(coarsening)
        control = [max(2, -(-n // options.control)) for n in level.size]
        points = F.interpolate(field, size=control, mode=LINEAR[dims], align_corners=True)
        points = points.movedim(1, -1).contiguous().requires_grad_()
        # From control points to voxels: smooth and interpolate.
        smooth = [
            (interpolation_matrix(n, m, align_corners=True) @ box_matrix(m, 3)).to(field)
            for n, m in zip(level.size, control, strict=True)
        ]
        stride = FINEST_STRIDE if coarsening == 1 and not options.intensity else 1
        correlation = LocalCorrelation(level.fixed, options.window, stride)
        _deform_level(level, correlation, points, smooth, start, steps, options)
        field = along(points.detach(), smooth, 1).movedim(-1, 1)
    return field


def _deform_level(
    level: _Images, correlation: LocalCorrelation, points: Tensor, smooth: Sequence[Tensor], start: Transform,
    steps: int, options: RegistrationOptions,
) -> None:  # fmt: skip
    """Optimise the control points ``(K, *G, d)`` in mm of one level, in place."""
    voxel_mm = 2 * level.half_query / torch.tensor(level.size, device=points.device)
    diffusion = Diffusion(smooth, voxel_mm)
    still = to_grid(centred_points(level.size, level.half_query), start.matrix, start.shift, start.support_half_mm)
    rate = options.rate * float(voxel_mm.min())
    optimizer = torch.optim.Adam([points], lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / steps)
        moves = along(rows_to_grid(points, start.matrix, start.support_half_mm), smooth, 1)
        scores = _similarity(level.moving, correlation, still + moves, options.intensity)
        optimizer.zero_grad()
        (options.smoothness * diffusion(points) - scores.sum()).backward()
        optimizer.step()


def _similarity(moving: Tensor, correlation: LocalCorrelation, grid: Tensor, intensity: float = 0.0) -> Tensor:
    """Compute the mean local correlation ``(K,)`` over the part of the query that the support covers.

    ``intensity`` times the squared difference of the images is subtracted from it.
    """
    warped = F.grid_sample(moving, grid, padding_mode="border", align_corners=False)
    values = correlation(warped)
    if intensity:
        values = values - intensity * (warped - correlation.fixed).square().mean(1, keepdim=True)
    inside = correlation.covered(grid.detach()).to(values)
    axes = tuple(range(1, values.ndim))
    # Voxels outside the support count as no agreement if they are more than half, so that no transform wins by moving
    # the query out of the support. Fewer are ignored, because scans differ in extent.
    covered = inside.sum(axes).clamp_min(0.5 * inside[0].numel())
    return (values * inside).sum(axes) / covered


def _starts(half_mm: Tensor, share: float) -> Tensor:
    """Return initial shifts ``(starts, d)`` in mm: zero, and both ways along each axis."""
    none = torch.zeros_like(half_mm)[None]
    if not share:
        return none
    shifts = torch.diag(2 * share * half_mm)
    return torch.cat([none, torch.stack([shifts, -shifts], dim=1).flatten(0, 1)])


def _working_shape(images: Sequence[Tensor], spacing_mm: Sequence[float], voxels: int) -> list[int]:
    """Choose one array shape for all images; axes that must be coarser than the images become nearly isotropic."""
    largest = [max(image.shape[axis] for image in images) for axis in range(1, images[0].ndim)]
    extent = [n * s for n, s in zip(largest, spacing_mm, strict=True)]
    edge = 0
    while True:
        spacing = min(spacing_mm) * 1.05**edge
        shape = [max(1, min(n, round(e / spacing))) for n, e in zip(largest, extent, strict=True)]
        if math.prod(shape) <= voxels:
            return shape
        edge += 1


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``(B, C, *S)`` to ``(B, C, *size)``: average axes that get coarser, interpolate axes that get finer."""
    down = [min(a, b) for a, b in zip(images.shape[2:], size, strict=True)]
    if down != list(images.shape[2:]):
        images = F.interpolate(images, size=down, mode="area")
    if down != list(size):
        images = F.interpolate(images, size=tuple(size), mode=LINEAR[len(size)], align_corners=False)
    return images
