"""Strong, smooth, invertible warps: each member of a population is the template under a warp of its own.

A smooth velocity field is integrated by scaling and squaring. Fields are sampled on a lattice over the cube
[-EXTENT, EXTENT]^3 of the template.

References:
    Arsigny et al. 2006, "A log-Euclidean framework for statistics on diffeomorphisms".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EXTENT = 1.6
LATTICE = 20
SQUARINGS = 5


def noise_lattice(
    shape: Sequence[int], knots: Sequence[int], lattice: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw smooth unit-variance fields.

    Args:
        shape: Leading axes of the result.
        knots: Number of knots along each axis, one entry per field; more is finer.
        lattice: Points n along each axis of the lattice.
        generator: Source of random numbers.
        device: Device of the fields.

    Returns:
        Fields ``(*shape, len(knots), n, n, n)``.
    """
    fields = []
    for count in knots:
        rough = torch.randn((1, int(torch.tensor(shape).prod()), *(count,) * 3), generator=generator).to(device)
        fine = F.interpolate(rough, size=(lattice,) * 3, mode="trilinear", align_corners=True)
        fields.append((fine / fine.std().clamp_min(1e-6)).view(*shape, *(lattice,) * 3))
    return torch.stack(fields, dim=len(shape))


def sample_lattice(fields: Tensor, points: Tensor) -> Tensor:
    """Read ``fields (M, C, n, n, n)`` at template points ``(M, 3, *S)``, S of three axes: ``(M, C, *S)``."""
    grid = (points / EXTENT).flip(1).movedim(1, -1)
    return F.grid_sample(fields, grid, mode="bilinear", padding_mode="border", align_corners=True)


def sample_smooth(fields: Tensor, points: Tensor) -> Tensor:
    """Sample smooth fields like :func:`sample_lattice`, but faster: at every second point, then interpolated."""
    half = F.interpolate(points, size=[-(-n // 2) for n in points.shape[2:]], mode="area")
    return F.interpolate(sample_lattice(fields, half), size=points.shape[2:], mode="trilinear")


def velocity_fields(members: int, strength: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw smooth velocities ``(M, 3, n, n, n)`` in template units, mostly coarse."""
    coarse, fine = noise_lattice((members, 3), (4, 7), LATTICE, generator, device).unbind(2)
    return strength * (coarse + 0.35 * fine)


def integrate(velocity: Tensor) -> Tensor:
    """Integrate ``velocity`` for unit time; returns the displacement ``(M, 3, n, n, n)``."""
    axis = torch.linspace(-EXTENT, EXTENT, velocity.shape[-1], device=velocity.device)
    identity = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    displacement = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = displacement + sample_lattice(displacement, identity + displacement)
    return displacement
