"""Deformable registration of several supports to one query at once, in 2D and 3D, on any device.

An affine registration with several starts comes first, then a displacement field of increasing resolution. The
similarity is the local normalised correlation of intensities or other feature channels. Coordinates are millimetres
from the centre of each volume, so volumes of different shape and spacing need no common grid.

References:
    Avants et al. 2008, "Symmetric diffeomorphic image registration with cross-correlation" (SyN).
    Rueckert et al. 1999, "Nonrigid registration using free-form deformations": coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Spacing = Sequence[float]
LINEAR = {2: "bilinear", 3: "trilinear"}


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
class Transform:
    """Maps each point of the query to each of K supports: ``y = matrix (x + u(x)) + shift``, in mm from the centres.

    Attributes:
        matrix: ``(K, d, d)``.
        shift: ``(K, d)`` in mm.
        field: The displacement ``u``, ``(K, d, *G)`` in mm, on a grid over the query's extent.
        query_half_mm: ``(d,)``, half the query's extent.
        support_half_mm: ``(K, d)``, half the supports' extents.
    """

    matrix: Tensor
    shift: Tensor
    field: Tensor
    query_half_mm: Tensor
    support_half_mm: Tensor

    def grid(self, size: Sequence[int]) -> Tensor:
        """Compute the grid ``(K, *size, d)`` for ``F.grid_sample(..., align_corners=False)`` of the supports."""
        points = centred_points(size, self.query_half_mm)
        field = F.interpolate(self.field, size=tuple(size), mode=LINEAR[len(size)], align_corners=False)
        return _to_grid(points + field, self.matrix, self.shift, self.support_half_mm)

    def of(self, index: int) -> Transform:
        """Return the transform to one of the K supports, so that memory needs one grid at a time."""
        one = slice(index, index + 1)
        return Transform(
            self.matrix[one], self.shift[one], self.field[one], self.query_half_mm, self.support_half_mm[one]
        )


def register(
    supports: Sequence[Tensor],
    query: Tensor,
    spacing_mm: Spacing,
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
    fixed = _resized(query[None], shape)
    moving = torch.cat([_resized(image[None].to(query.device), shape) for image in supports])
    half_query = torch.tensor(query.shape[1:], device=query.device) * spacing / 2
    half_support = torch.stack([torch.tensor(s.shape[1:], device=query.device) * spacing / 2 for s in supports])
    with torch.enable_grad():
        if start is None:
            matrix, shift = _affine(moving, fixed, half_query, half_support, options)
            still = moving.new_zeros(len(moving), query.ndim - 1, *[2] * (query.ndim - 1))
            start = Transform(matrix, shift, still, half_query, half_support)
        transform = replace(start, field=_deform(moving, fixed, start, options))
    with torch.no_grad():
        warped = F.grid_sample(moving, transform.grid(shape), padding_mode="border", align_corners=False)
        return transform, local_correlation(warped, fixed.expand_as(warped), options.window)


def local_correlation(a: Tensor, b: Tensor, window: int) -> Tensor:
    """Compute the normalised correlation of two images in a box around every voxel, averaged over channels.

    MONAI's loss of this name squares it, so inverted contrast counts as agreement there; here the sign is kept.

    Args:
        a: ``(B, C, *S)``.
        b: ``(B, C, *S)``.
        window: Edge of the box in voxels.

    Returns:
        Correlation ``(B, 1, *S)`` in [-1, 1].
    """
    mean_a, mean_b = _box(a, window), _box(b, window)
    cross = _box(a * b, window) - mean_a * mean_b
    var_a = (_box(a * a, window) - mean_a * mean_a).clamp_min(0)
    var_b = (_box(b * b, window) - mean_b * mean_b).clamp_min(0)
    # The floor suppresses noise in flat regions.
    return (cross / (var_a * var_b + 1e-4).sqrt()).mean(1, keepdim=True)


def centred_points(size: Sequence[int], half_mm: Tensor) -> Tensor:
    """Return the voxel centres ``(d, *size)`` in mm from the volume's centre."""
    axes = [
        (2 * torch.arange(n, dtype=torch.float32, device=half_mm.device) + 1 - n) / n * half
        for n, half in zip(size, half_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _affine(
    moving: Tensor, fixed: Tensor, half_query: Tensor, half_support: Tensor, options: RegistrationOptions
) -> tuple[Tensor, Tensor]:
    """Register affinely with several starts and keep the best: ``matrix (K, d, d)`` and ``shift (K, d)`` in mm."""
    shots, dims = moving.shape[0], fixed.ndim - 2
    size = [min(n, max(4, n // 2)) for n in fixed.shape[2:]]
    fixed, moving = _resized(fixed, size), _resized(moving, size)
    offsets = _starts(half_query, options.starts).to(fixed)
    starts = len(offsets)
    moving, half_support = moving.repeat_interleave(starts, 0), half_support.repeat_interleave(starts, 0)
    points = centred_points(size, half_query)
    matrix = torch.eye(dims, device=fixed.device).repeat(shots * starts, 1, 1).requires_grad_()
    shift = offsets.repeat(shots, 1).div(half_query).requires_grad_()
    optimizer = torch.optim.Adam([matrix, shift], lr=0.02)
    scores = torch.zeros(shots * starts, device=fixed.device)
    for step in range(options.affine_steps):
        if step == options.affine_steps // 3 and starts > 1:
            # A third of the steps is enough to compare the starts. Only the best one continues.
            keep = torch.arange(shots, device=fixed.device) * starts + scores.view(shots, starts).argmax(1)
            matrix, shift = matrix.detach()[keep].requires_grad_(), shift.detach()[keep].requires_grad_()
            moving, half_support, starts = moving[keep], half_support[keep], 1
            optimizer = torch.optim.Adam([matrix, shift], lr=0.02)
        grid = _to_grid(points.expand(len(moving), *points.shape), matrix, shift * half_query, half_support)
        scores = _similarity(moving, fixed, grid, 7)
        optimizer.zero_grad()
        (-scores.sum()).backward()
        optimizer.step()
        scores = scores.detach()
    return matrix.detach(), (shift * half_query).detach()


def _deform(moving: Tensor, fixed: Tensor, start: Transform, options: RegistrationOptions) -> Tensor:
    """Optimise the displacement ``(K, d, *G)`` in mm, coarse to fine, beginning with the field of ``start``."""
    dims, half_query = fixed.ndim - 2, start.query_half_mm
    field = start.field
    for coarsening, steps in options.levels:
        size = [min(n, max(4, n // coarsening)) for n in fixed.shape[2:]]
        a, b = _resized(moving, size), _resized(fixed, size)
        voxel_mm = (2 * half_query / torch.tensor(size, device=fixed.device)).view(1, dims, *[1] * dims)
        control = [max(2, -(-n // options.control)) for n in size]
        field = F.interpolate(field, size=control, mode=LINEAR[dims], align_corners=True)
        field = field.detach().requires_grad_()
        rate = options.rate * float(voxel_mm.min())
        optimizer = torch.optim.Adam([field], lr=rate, betas=(0.9, 0.99))
        points = centred_points(size, half_query)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / steps)
            smooth = F.interpolate(_box(field, 3), size=size, mode=LINEAR[dims], align_corners=True)
            grid = _to_grid(points + smooth, start.matrix, start.shift, start.support_half_mm)
            similar = _similarity(a, b, grid, options.window, options.intensity).sum()
            loss = options.smoothness * _diffusion(smooth, voxel_mm) - similar
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        field = F.interpolate(_box(field, 3), size=size, mode=LINEAR[dims], align_corners=True).detach()
    return field


def _similarity(moving: Tensor, fixed: Tensor, grid: Tensor, window: int, intensity: float = 0.0) -> Tensor:
    """Compute the mean local correlation ``(K,)`` over the part of the query that the support covers.

    ``intensity`` times the squared difference of the images is subtracted from it.
    """
    warped = F.grid_sample(moving, grid, padding_mode="border", align_corners=False)
    inside = (grid.detach().abs() <= 1).all(-1).unsqueeze(1).to(warped)
    similar = local_correlation(warped, fixed.expand_as(warped), window)
    if intensity:
        similar = similar - intensity * (warped - fixed).square().mean(1, keepdim=True)
    axes = tuple(range(1, similar.ndim))
    # Voxels outside the support count as no agreement if they are more than half, so that no transform wins by moving
    # the query out of the support. Fewer are ignored, because scans differ in extent.
    covered = inside.sum(axes).clamp_min(0.5 * inside[0].numel())
    return (similar * inside).sum(axes) / covered


def _diffusion(field: Tensor, voxel_mm: Tensor) -> Tensor:
    """Compute the squared gradient of the displacement (mm per mm): mean over voxels, sum over supports."""
    total = field.new_zeros(())
    for axis in range(2, field.ndim):
        if field.shape[axis] > 1:
            step = voxel_mm.flatten()[axis - 2]
            total = total + (field.diff(dim=axis) / step).square().sum(1).flatten(1).mean(1).sum()
    return total


def _starts(half_mm: Tensor, share: float) -> Tensor:
    """Return initial shifts ``(starts, d)`` in mm: zero, and both ways along each axis."""
    none = torch.zeros(1, len(half_mm))
    if not share:
        return none
    along = torch.diag(2 * share * half_mm.cpu().double()).float()
    return torch.cat([none, torch.stack([along, -along], dim=1).flatten(0, 1)])


def _to_grid(points_mm: Tensor, matrix: Tensor, shift: Tensor, half_mm: Tensor) -> Tensor:
    """Map points ``(K, d, *S)`` by ``(K, d, d)`` and ``(K, d)``, and express them for ``F.grid_sample``."""
    axes = [1] * (points_mm.ndim - 2)
    moved = torch.einsum("kij,kj...->ki...", matrix, points_mm) + shift.view(*shift.shape, *axes)
    return (moved / half_mm.view(*half_mm.shape, *axes)).flip(1).movedim(1, -1)


def _working_shape(images: Sequence[Tensor], spacing_mm: Spacing, voxels: int) -> list[int]:
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


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``(B, C, *S)`` to ``(B, C, *size)``: average axes that get coarser, interpolate axes that get finer."""
    down = [min(a, b) for a, b in zip(images.shape[2:], size, strict=True)]
    if down != list(images.shape[2:]):
        images = F.interpolate(images, size=down, mode="area")
    if down != list(size):
        images = F.interpolate(images, size=tuple(size), mode=LINEAR[len(size)], align_corners=False)
    return images


def _box(x: Tensor, window: int) -> Tensor:
    """Average over a box of ``window`` voxels per axis, or fewer on a shorter axis, repeating the edges of ``x``.

    Running sums are faster on a CPU than average pooling of the same box.
    """
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        reach = min(window // 2, (size - 1) // 2)
        if reach == 0:
            continue
        padded = torch.cat([x.narrow(axis, 0, 1)] * reach + [x] + [x.narrow(axis, size - 1, 1)] * reach, dim=axis)
        sums = padded.cumsum(axis)
        head = sums.narrow(axis, 2 * reach, 1)
        rest = sums.narrow(axis, 2 * reach + 1, size - 1) - sums.narrow(axis, 0, size - 1)
        x = torch.cat([head, rest], dim=axis) / (2 * reach + 1)
    return x
