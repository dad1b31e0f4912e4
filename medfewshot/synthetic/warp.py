"""Strong, smooth, invertible warps: every member of a population is the template seen through one of its own.

Arsigny et al. 2006, "A log-Euclidean framework for statistics on diffeomorphisms": a smooth velocity field, integrated
by scaling and squaring. Fields live on a lattice over the cube [-EXTENT, EXTENT]^3 of the template.
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
    """Smooth unit-variance fields ``(*shape, len(knots), n, n, n)``, n = ``lattice``; ``knots``: how fine each is."""
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
    """As :func:`sample_lattice`, read at every second point and interpolated: a fifth of the time for smooth fields."""
    half = F.interpolate(points, size=[-(-n // 2) for n in points.shape[2:]], mode="area")
    return F.interpolate(sample_lattice(fields, half), size=points.shape[2:], mode="trilinear")


def velocity_fields(members: int, strength: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Random smooth velocities ``(M, 3, n, n, n)`` in template units, most of it coarse."""
    coarse, fine = noise_lattice((members, 3), (4, 7), LATTICE, generator, device).unbind(2)
    return strength * (coarse + 0.35 * fine)


def integrate(velocity: Tensor) -> Tensor:
    """The displacement ``(M, 3, n, n, n)`` of flowing along ``velocity`` for unit time."""
    axis = torch.linspace(-EXTENT, EXTENT, velocity.shape[-1], device=velocity.device)
    identity = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    displacement = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = displacement + sample_lattice(displacement, identity + displacement)
    return displacement
