"""Implicit shapes of body parts, evaluated for all members of a population at once.

Lengths are in template units: the trunk is about 2 wide. x points to the right, y to the front, z to the head.
``points`` are ``(M, 3, *S)`` template coordinates of M members; distances ``(M, *S)`` are nearly metric near the
surface, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["ellipsoid", "tube", "column", "ribs", "noise"]


@dataclass(frozen=True)
class Part:
    """One structure of a template, and how much it varies between members."""

    name: str
    tissue: str
    kind: Kind = "ellipsoid"
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radii: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Three half axes; for a tube its radius (first) along ``path``; for ribs and columns see :func:`distance`."""
    path: tuple[tuple[float, float, float], ...] = ()
    tilt: float = 0.0
    """Rotation about z, radians."""
    power: Literal[2, 3, 4] = 2
    """2 is an ellipsoid, more is boxier."""
    rough: float = 0.0
    """Amplitude of the surface roughness, which follows the noise field ``channel``."""
    channel: int = 0
    hollow: float = 0.0
    """Above 0, the part is a wall of this thickness outside the surface."""
    notch: tuple[float, float, float, float] | None = None
    """A ball (offset from the centre, radius) that is cut out: the hilum of a kidney, the valves of a ventricle."""
    within: str | None = None
    """Clipped to this part."""
    shift: float = 0.02
    scale: float = 0.08
    presence: float = 1.0
    """Probability that a member has it."""
    scatter: float = 0.0
    """Above 0, each member has the part in another place within this fraction of ``within``: lesions."""
    labelled: bool = True
    """Whether it may become a class."""

    @property
    def size(self) -> float:
        """Approximate volume, for a curriculum by size."""
        if self.kind == "tube":
            ends = torch.tensor(self.path)
            return float(3.1 * self.radii[0] ** 2 * (ends[1:] - ends[:-1]).norm(dim=1).sum())
        return 4.2 * min(self.radii[0], 1.0) * min(self.radii[1], 1.0) * min(self.radii[2], 1.0)


def solid(name: str, tissue: str, centre: tuple, radii: tuple[float, ...], **shape: Any) -> Part:
    """Make an ellipsoid, or a boxier body."""
    return Part(name, tissue, "ellipsoid", centre, radii, **shape)


def tube(name: str, tissue: str, radius: float, path: tuple[tuple[float, float, float], ...], **shape: Any) -> Part:
    """Make a tube along a path."""
    return Part(name, tissue, "tube", radii=(radius, 0, 0), path=path, **shape)


@dataclass(frozen=True)
class DrawnPart:
    """A part in M members.

    Args:
        centre: ``(M, 3)``.
        radii: ``(M, 3)``.
        path: ``(M, n, 3)``.
        present: ``(M,)`` bool.
    """

    centre: Tensor
    radii: Tensor
    path: Tensor
    present: Tensor


def as_columns(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(M, 3)`` so that it broadcasts against ``like (M, 3, *S)``."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))


def distance(part: Part, draw: DrawnPart, points: Tensor, noise: Tensor) -> Tensor:
    """Compute the signed distance ``(M, *S)`` to a part.

    Args:
        part: The part.
        draw: The part in each of M members.
        points: Template coordinates ``(M, 3, *S)``.
        noise: The population's noise fields ``(M, channels, *S)``, which roughen surfaces.
    """
    if part.kind == "tube":
        d = _tube(points, draw.path, draw.radii[:, 0])
    elif part.kind == "noise":
        d = part.radii[0] - noise[:, part.channel]  # where the field is high; as an area of loops and septa
        d = d * part.radii[1]
    else:
        d = _ellipsoid(part, draw, _repeat_vertebrae(part, points) if part.kind == "column" else points)
    if part.rough and part.kind != "noise":
        d = d + part.rough * noise[:, part.channel]
    if part.kind == "ribs":
        d = _ribs(part, points, d)
    elif part.hollow:
        d = torch.maximum(-d, d - part.hollow)
    if part.notch is not None:
        x, y, z, radius = part.notch
        offset = points - as_columns(draw.centre + draw.centre.new_tensor([x, y, z]), points)
        d = torch.maximum(d, radius - offset.square().sum(1).sqrt())
    return d


def _ellipsoid(part: Part, draw: DrawnPart, points: Tensor) -> Tensor:
    offset = points - as_columns(draw.centre, points)
    if part.tilt:
        c, s = float(torch.cos(torch.tensor(part.tilt))), float(torch.sin(torch.tensor(part.tilt)))
        x, y, z = offset.unbind(1)
        offset = torch.stack([c * x + s * y, c * y - s * x, z], dim=1)
    # The lengths of the offset and of the scaled offset are weighted sums of powers over axis 1. Products are much
    # faster than ``pow``.
    squares = offset.square()
    ones = torch.ones_like(draw.radii)
    if part.power == 2:
        reach, length = _weighted(squares, ones, draw.radii**-2).sqrt_().unbind(1)
    else:
        powers = squares * offset.abs() if part.power == 3 else squares.square()
        reach = _weighted(squares, ones).sqrt_()[:, 0]
        length = _weighted(powers, draw.radii ** -float(part.power))[:, 0]
        length = length.clamp_min_(1e-12).log_().div_(3).exp_() if part.power == 3 else length.sqrt_().sqrt_()
    # In the direction of each point the surface lies at reach / length: exact along the axes.
    return reach.clamp_max(4.0) * (1 - length.clamp_min_(1e-3).reciprocal_())


def _weighted(values: Tensor, *weights: Tensor) -> Tensor:
    """Compute weighted sums over axis 1: ``(M, 3, *S)`` and k times ``(M, 3)`` -> ``(M, k, *S)``."""
    return torch.bmm(torch.stack(weights, 1), values.flatten(2)).unflatten(2, values.shape[2:])


def _repeat_vertebrae(part: Part, points: Tensor) -> Tensor:
    """Repeat the points along z with a period of 2.4 half heights."""
    period = 2.4 * part.radii[2]
    x, y, z = points.unbind(1)
    return torch.stack([x, y, z - period * torch.round(z / period) + part.centre[2]], dim=1)


def _ribs(part: Part, points: Tensor, wall: Tensor) -> Tensor:
    """Compute slanting bars in a wall; ``hollow`` is their thickness, ``path[0]`` = (pitch, slope, width)."""
    pitch, slope, width = part.path[0]
    height = (points[:, 2] + slope * points[:, 1]) / pitch
    across = (height - torch.round(height)).abs() * pitch
    return torch.maximum(wall.abs() - part.hollow, across - width)


def _tube(points: Tensor, path: Tensor, radius: Tensor) -> Tensor:
    """Compute the distance to a polyline.

    Per segment it is |p - a|^2 - 2 t (p - a).d + t^2 |d|^2, from the products p.a and p.d.
    """
    flat = points.flatten(2)
    start, along = path[:, :-1], path[:, 1:] - path[:, :-1]
    products = torch.bmm(torch.cat([start, along], 1), flat)
    count = start.shape[1]
    own = flat.square().sum(1, keepdim=True)
    from_start = own - 2 * products[:, :count] + start.square().sum(2, keepdim=True)
    projected = products[:, count:] - (start * along).sum(2, keepdim=True)
    squared = along.square().sum(2, keepdim=True).clamp_min(1e-9)
    share = (projected / squared).clamp_(0, 1)
    gap = from_start + share * (share * squared - 2 * projected)
    nearest = gap.amin(1).clamp_min_(0).sqrt_().view(points.shape[0], *points.shape[2:])
    return nearest - radius.view(-1, *[1] * (points.ndim - 2))


def draw_part(part: Part, parent: DrawnPart | None, members: int, generator: torch.Generator) -> DrawnPart:
    """Draw every member's own version of ``part``, with random numbers on the CPU."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).clamp(-2.5, 2.5)

    shift = part.shift * normal(members, 3)
    centre = torch.tensor(part.centre, dtype=torch.float32).expand(members, 3) + shift
    radii = torch.tensor(part.radii, dtype=torch.float32) * torch.exp(
        part.scale * (normal(members, 1) + 0.4 * normal(members, 3))
    )
    if part.scatter and parent is not None:
        direction = normal(members, 3)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-6)
        reach = part.scatter * torch.rand((members, 1), generator=generator) ** (1 / 3)
        centre = parent.centre + direction * reach * parent.radii.clamp_max(2.0)
    points: Sequence[Sequence[float]] = part.path or ((0.0, 0.0, 0.0),)
    path = torch.tensor(points, dtype=torch.float32).expand(members, -1, 3) + shift.unsqueeze(1)
    if part.kind == "tube":
        path = path + 0.5 * part.shift * normal(members, len(points), 3)
    present = torch.rand(members, generator=generator) < part.presence
    return DrawnPart(centre, radii, path, present)
