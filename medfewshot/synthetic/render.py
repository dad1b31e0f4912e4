"""Render the members of a population as images and label maps, with one template and one contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medfewshot.settings import read_yaml
from medfewshot.synthetic import acquisition, warp
from medfewshot.synthetic.parts import DrawnPart, Part, as_columns, distance, draw_part
from medfewshot.synthetic.templates import TEMPLATES

Rng = np.random.Generator
NOISE_KNOTS = (5, 7, 10, 14, 20)
"""Number of knots of the surface noise fields, channels 0 to 4."""
TEXTURE_KNOTS = (9, 26)
MM_PER_UNIT = 170.0
Contrast = dict[str, tuple[float, float]]
"""Tissue -> (mean, standard deviation of its texture), about 0 (air) to 1."""

RANGES: dict[str, dict[str, tuple[float, float]]] = read_yaml(Path(__file__).with_name("contrast.yaml"))
"""Tissue -> style -> range of its mean."""
STYLES = {"ct": 0.35, "t1": 0.2, "t2": 0.25, "any": 0.2}
"""Name -> how often; with ``any``, every tissue may have any brightness."""


@dataclass(frozen=True)
class View:
    """The part of the template that the patches show.

    Args:
        centre: ``(3,)`` in template units.
        extent: Size of the patch along its three axes, in template units.
    """

    centre: np.ndarray
    extent: np.ndarray


@dataclass(frozen=True)
class Tones:
    """Brightness of tissues.

    Args:
        brightness: Tissue -> brightness in each member ``(M,)``.
        texture: Tissue -> standard deviation of its texture.
    """

    brightness: Mapping[str, Tensor]
    texture: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Rendered:
    """Rendered members of a population.

    Args:
        images: Network input ``(M, 1, *S)``.
        labels: ``(M, *S)`` int16; i + 1 for the i-th of ``parts``.
        parts: The parts of the template.
        style: Name of the contrast.
    """

    images: Tensor
    labels: Tensor
    parts: tuple[Part, ...]
    style: str


def draw_template(rng: Rng) -> tuple[str, list[Part]]:
    """Draw a body template by its frequency.

    Returns:
        Its name and parts.
    """
    names = list(TEMPLATES)
    name = names[int(rng.choice(len(names), p=[TEMPLATES[n][0] for n in names]))]
    return name, TEMPLATES[name][1](rng)


def draw_view(parts: list[Part], focus: Part, patch: tuple[int, ...], spacing: np.ndarray, rng: Rng) -> View:
    """Draw a window that contains the focus: from a close-up to the whole section of the body."""
    ends = np.array(focus.path) if focus.path else np.array([focus.centre])
    centre = ends.mean(axis=0)
    reach = np.minimum(np.array(focus.radii if focus.kind != "tube" else (focus.radii[0],) * 3), 0.6).max()
    body = 2 * min(1.0, max(min(p.radii[:2]) if p.kind == "ellipsoid" else 0.2 for p in parts[:1])) + 0.15
    # The shape of the window in template units follows from voxels and their spacing.
    shape = np.array(patch) * spacing
    widest = max(body, 2.6 * reach)
    narrowest = min(max(3.0 * reach, 0.35), widest)
    width = float(np.exp(rng.uniform(np.log(narrowest), np.log(widest * 1.05))))
    extent = shape / np.sort(shape)[-2:].mean() * width
    share = np.clip(1 - width / (widest * 1.05), 0, 1)  # a wide view is centred on the body, a close one on the focus
    middle = np.array([0.0, 0.0, centre[2]])
    wander = rng.normal(0, 0.1, 3) * extent
    return View(centre * share**0.5 + middle * (1 - share**0.5) + wander * share, extent)


def render(
    parts: list[Part],
    view: View,
    patch: tuple[int, int, int],
    members: int,
    *,
    thick: bool,
    other_contrast_for: int,
    rng: Rng,
    generator: torch.Generator,
    device: torch.device,
    acquire: Callable[..., Tensor] = acquisition.acquire,
) -> Rendered:
    """Render all members at once.

    Args:
        parts: The template.
        view: What the patches show.
        patch: Size in voxels.
        members: Number of members.
        thick: Whether the slices of the patch are thick.
        other_contrast_for: Number of members, counted from the last, with another contrast under the same protocol.
        rng: Draws what members share.
        generator: Draws what differs between members.
        device: Device of images and labels.
        acquire: Simulates the scanner.
    """
    points = _template_points(view, patch, members, rng, generator, device)
    edge = float(np.min(view.extent / np.array(patch)))
    style = draw_style(rng)
    tissues = {part.tissue for part in parts} | {"air"}
    contrasts = [draw_contrast(style, tissues, rng)] * members
    protocol = acquisition.draw_protocol(style, thick, rng)
    if other_contrast_for:
        other = draw_contrast(draw_style(rng), tissues, rng)
        contrasts = [*contrasts[: members - other_contrast_for], *[other] * other_contrast_for]
    clean, labels = paint(parts, points, edge, _draw_tones(contrasts, tissues, rng), generator)
    images = acquire(clean, protocol, rng, generator)
    kept = members - other_contrast_for
    normal = [acquisition.normalise(part, protocol) for part in (images[:kept], images[kept:]) if len(part)]
    return Rendered(torch.cat(normal), labels, tuple(parts), style)


def _template_points(
    view: View, patch: tuple[int, int, int], members: int, rng: Rng, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Compute template coordinates ``(M, 3, *patch)`` of every voxel: pose of the patient, then the member's warp."""
    axes = [torch.arange(n, dtype=torch.float32, device=device).add(0.5).div(n).sub(0.5) for n in patch]
    extent = torch.as_tensor(view.extent, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")) * extent.view(3, 1, 1, 1).to(device)
    thin = patch[2] == 1
    spread = torch.tensor([0.02, 0.02, 0.1] if thin else [0.04, 0.04, 0.1])
    angles = torch.randn((members, 3), generator=generator) * spread
    # Rotations: the matrix exponential of the cross product with each rotation vector.
    turn = torch.linalg.matrix_exp(torch.linalg.cross(torch.eye(3)[None], angles[:, None]))
    zoom = torch.exp(0.08 * torch.randn((members, 1, 1), generator=generator))
    offset = 0.06 * torch.randn((members, 3), generator=generator) * extent
    if thin:
        offset[:, 2] = 0.03 * torch.randn(members, generator=generator)
    centre = torch.as_tensor(view.centre).float() + offset
    posed = torch.einsum("mij,j...->mi...", (turn * zoom).to(device), grid) + as_columns(centre.to(device), grid[None])
    velocity = warp.velocity_fields(members, float(rng.uniform(0.03, 0.11)), generator, device)
    return posed + warp.sample_smooth(warp.integrate(velocity), posed)


def paint(
    parts: list[Part], points: Tensor, edge: float, tones: Tones, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paint the parts, later ones over earlier ones.

    Args:
        parts: The template, from the outside in.
        points: Template coordinates ``(M, 3, *S)`` of every voxel of M members.
        edge: Edge of a voxel, in template units.
        tones: Brightness of every tissue; "air" is what no part covers.
        generator: Draws surfaces, textures and what members differ in.

    Returns:
        Brightness ``(M, 1, *S)`` with partial volume at every border, and part numbers ``(M, *S)`` int16, from 1.
    """
    members, device = len(points), points.device
    shared = warp.noise_lattice((1,), NOISE_KNOTS, 28, generator, device).expand(members, -1, -1, -1, -1)
    own = warp.noise_lattice((members,), TEXTURE_KNOTS, 28, generator, device)
    noise = warp.sample_smooth(torch.cat([shared, own], dim=1), points)
    texture = noise[:, len(NOISE_KNOTS) :].sum(1)
    coarse = CoarseGrid(points, noise)
    draws: dict[str, DrawnPart] = {}
    depths: dict[str, Tensor] = {}
    parents = {part.within for part in parts}
    shape = (members, *[1] * (points.ndim - 2))
    image = tones.brightness["air"].to(device).view(shape).expand(texture.shape).clone()
    labels = torch.zeros(texture.shape, dtype=torch.int16, device=device)
    for index, part in enumerate(parts, start=1):
        draw = draw_part(part, draws.get(part.within or ""), members, generator)
        draws[part.name] = draw
        draw = DrawnPart(*(value.to(device) for value in (draw.centre, draw.radii, draw.path, draw.present)))
        box = coarse.box(part, draw, edge)
        if box is None:
            continue
        at: Any = (..., *box)
        depth = distance(part, draw, points[at], noise[at])
        if part.within is not None and part.within in depths:
            depth = torch.maximum(depth, depths[part.within][at])
        if part.presence < 1:
            depth = torch.where(draw.present.view(shape), depth, edge)
        if part.name in parents:
            depths[part.name] = torch.full_like(texture, edge)
            depths[part.name][at] = depth
        here = image[at]
        value = tones.brightness[part.tissue].to(device).view(shape) + tones.texture[part.tissue] * texture[at]
        here += (0.5 - depth / edge).clamp_(0, 1) * (value - here)
        labels[at].masked_fill_(depth < 0, index)
    return image.unsqueeze(1), labels


class CoarseGrid:
    """Every fourth point of each axis, to find where a part can be; so small parts cost little.

    Args:
        points: Template coordinates ``(M, 3, *S)``.
        noise: Noise fields ``(M, channels, *S)``.
    """

    def __init__(self, points: Tensor, noise: Tensor) -> None:
        self.shape = points.shape[2:]
        self.steps = [4 if n >= 16 else 1 for n in self.shape]
        every: Any = (..., *(slice(step // 2, None, step) for step in self.steps))
        self.points, self.noise = points[every].contiguous(), noise[every].contiguous()
        between = [self.points.diff(dim=axis) for axis in range(2, 5) if self.points.shape[axis] > 1]
        reach = [step.square().sum(1).amax() for step in between]
        self.margin = torch.stack(reach).sum().sqrt() if reach else self.points.new_tensor(0.0)

    def box(self, part: Part, draw: DrawnPart, edge: float) -> tuple[slice, ...] | None:
        """Return the voxels that ``part`` may cover in some member; None if it is outside the view."""
        near = (distance(part, draw, self.points, self.noise) < self.margin + edge).any(0)
        # One transfer from the device per part, because waiting for transfers is slow.
        found = torch.cat([near.any(2).any(1), near.any(2).any(0), near.any(1).any(0)]).tolist()
        slices = []
        for size, count, step in zip(self.shape, near.shape, self.steps, strict=True):
            axis, found = found[:count], found[count:]
            if True not in axis:
                return None
            low, high = axis.index(True), count - 1 - axis[::-1].index(True)
            slices.append(slice(max(0, (low - 1) * step), min(size, (high + 2) * step)))
        return tuple(slices)


def draw_style(rng: Rng) -> str:
    """Draw the name of a style."""
    return str(rng.choice(list(STYLES), p=list(STYLES.values())))


def draw_contrast(style: str, tissues: set[str], rng: Rng) -> Contrast:
    """Draw a mean and a texture for every tissue. Organs are similar in CT and differ more in MR."""
    contrast = {}
    for tissue in sorted(tissues):
        low, high = (0.0, 1.0) if style == "any" else RANGES.get(tissue, RANGES["other"])[style]
        mean = float(rng.uniform(low, high))
        if style == "any" and tissue in ("air", "lung"):
            mean *= 0.15
        mottled = 0.15 if tissue in ("content", "lung") else 0.05
        texture = float(rng.uniform(0.0, mottled)) * (0.2 if tissue == "air" else 1.0)
        contrast[tissue] = (mean, texture)
    return contrast


def _draw_tones(contrasts: list[Contrast], tissues: set[str], rng: Rng) -> Tones:
    """Draw the brightness of each member: its contrast with small random differences."""
    brightness = {}
    for tissue in sorted(tissues):
        drawn = [c[tissue][0] + (0.0 if tissue == "air" else float(rng.normal(0, 0.02))) for c in contrasts]
        brightness[tissue] = torch.tensor(drawn, dtype=torch.float32)
    return Tones(brightness, {tissue: contrasts[0][tissue][1] for tissue in tissues})
