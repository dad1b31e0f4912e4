"""Building blocks of templates: body walls, ribs, spine, vessels, heart, pairs of organs and lesions."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from medfewshot.synthetic.parts import Part, solid, tube

Rng = np.random.Generator
FAR = 50.0
"""Half axis of a shape without end."""


def mirror(part: Part, rng: Rng) -> list[Part]:
    """Make a pair of organs, right and left, that differ slightly."""
    x, y, z = part.centre
    other = tuple(float(r * np.exp(rng.normal(0, 0.06))) for r in part.radii)
    notch = None if part.notch is None else (-part.notch[0], *part.notch[1:])
    centre = (-x, y + rng.normal(0, 0.02), z + rng.normal(0, 0.04))
    left = replace(part, name=f"left {part.name}", centre=centre, radii=other, tilt=-part.tilt, notch=notch)
    return [replace(part, name=f"right {part.name}"), left]


def draw_power(rng: Rng) -> Literal[2, 3, 4]:
    """Draw the exponent of a shape; a larger one is boxier."""
    return (2, 2, 3, 4)[int(rng.integers(4))]  # type: ignore[return-value]


def vessel_path(
    rng: Rng, start: tuple, step: tuple, count: int, wander: float
) -> tuple[tuple[float, float, float], ...]:
    """Draw the path of a vessel: a straight line with a random walk of its direction."""
    points = [np.asarray(start, dtype=float)]
    for _ in range(count):
        points.append(points[-1] + np.asarray(step) + rng.normal(0, wander, 3))
    return tuple((float(x), float(y), float(z)) for x, y, z in points)


def wall(rng: Rng, width: float, depth: float) -> list[Part]:
    """Draw skin, fat, muscle and the cavity inside, without end along z."""
    power = draw_power(rng)
    fat, muscle = rng.uniform(0.03, 0.16), rng.uniform(0.05, 0.1)
    rough = rng.uniform(0, 0.02)

    def layer(name: str, tissue: str, inset: float) -> Part:
        return solid(
            name, tissue, (0.0, 0.0, 0.0), (width - inset, depth - inset, FAR), power=power,
            rough=rough * (inset > 0), shift=0.004, scale=0.03, labelled=name == "muscle",
        )  # fmt: skip

    return [
        layer("skin", "muscle", 0.0),
        layer("fat", "fat", 0.02),
        layer("muscle", "muscle", 0.02 + fat),
        layer("cavity", "fat", 0.02 + fat + muscle),
    ]


def ribs(rng: Rng, width: float, depth: float, thickness: float) -> Part:
    """Draw slanting ribs in a wall without end."""
    path = ((rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.6), thickness),)
    return Part("ribs", "bone", "ribs", radii=(width, depth, FAR), hollow=0.02, labelled=False, path=path)


def spine(rng: Rng, back: float) -> list[Part]:
    """Draw vertebrae, discs, arches, canal and muscles beside them, in front of the skin at y = ``back``."""
    size = rng.uniform(0.12, 0.17)
    y = back + rng.uniform(0.36, 0.42)
    height = size * rng.uniform(0.75, 0.95)
    middle, arch, canal = (0.0, y, 0.0), (0.0, y - 1.6 * size, 0.0), (0.0, y - 1.35 * size, 0.0)
    muscle = solid("back muscle", "muscle", (0.22, back + 0.2, 0.0), (0.19, 0.14, FAR), rough=0.02, channel=2)
    psoas = solid("psoas", "muscle", (0.24, y + 0.0, -0.3), (0.1, 0.11, 1.0), rough=0.02, channel=2)

    def column(name: str, tissue: str, centre: tuple, radii: tuple, **shape) -> Part:
        return Part(name, tissue, "column", centre, radii, **shape)

    return [
        *mirror(muscle, rng),
        *mirror(psoas, rng),
        solid("disc column", "disc", middle, (size, size * 0.8, FAR), labelled=False),
        column("vertebra", "bone", middle, (size, size * 0.8, height), power=4, rough=0.01, channel=3),
        column("marrow", "marrow", middle, (size * 0.85, size * 0.66, height * 0.8), power=4, labelled=False),
        column("arch", "bone", arch, (size * 1.1, size * 0.45, height * 0.6), rough=0.04, channel=3),
        column("spinous", "bone", (0.0, arch[1] - 0.12, 0.0), (0.025, 0.15, height * 0.5), labelled=False),
        solid("canal", "fluid", canal, (0.07, 0.06, FAR)),
        solid("cord", "soft", canal, (0.04, 0.03, FAR), labelled=False),
    ]


def lesions(rng: Rng, parent: Part, most: int = 3) -> list[Part]:
    """Draw up to ``most`` lesions in an organ; each member has them in other places."""
    parts = []
    for i in range(int(rng.integers(0, most + 1))):
        radii = tuple(min(parent.radii) * rng.uniform(0.1, 0.35) * np.ones(3))
        shape = {"rough": 0.02, "channel": 3, "within": parent.name, "scatter": 0.75, "presence": 0.75, "scale": 0.3}
        parts.append(solid(f"lesion {i} of {parent.name}", "lesion", (0.0, 0.0, 0.0), radii, **shape))
    return parts


def vessels(rng: Rng, back: float) -> list[Part]:
    """Draw aorta, vena cava and a branch."""
    y = back + rng.uniform(0.58, 0.66)
    side = rng.choice([-1.0, 1.0])
    radius = rng.uniform(0.06, 0.085)
    aorta = tube("aorta", "blood", radius, vessel_path(rng, (0.05 * side, y, -1.6), (0, 0, 0.65), 5, 0.03))
    radius = rng.uniform(0.06, 0.09)
    cava = tube("cava", "vein", radius, vessel_path(rng, (-0.12 * side, y, -1.6), (0, 0.02, 0.65), 5, 0.03))
    path = vessel_path(rng, (0.05 * side, y, rng.uniform(-0.2, 0.3)), (0.15 * rng.choice([-1, 1]), 0.1, 0), 3, 0.05)
    return [aorta, cava, tube("branch", "blood", rng.uniform(0.02, 0.04), path, labelled=False)]


def heart(rng: Rng, centre: tuple[float, float, float], size: float) -> list[Part]:
    """Draw a sac of fat with two ventricles and two atria; the left ventricle is a cup."""
    x, y, z = centre
    turn = rng.uniform(-1.2, 1.2)
    pool = size * rng.uniform(0.26, 0.36)
    thickness = size * rng.uniform(0.12, 0.2)
    length = size * rng.uniform(0.55, 0.7)
    valve = (0.0, 0.0, 1.15 * length, 0.45 * length)

    def chamber(name: str, tissue: str, at: tuple, radii: tuple, **shape) -> Part:
        dx, dy, dz = at
        return solid(name, tissue, (x + size * dx, y + size * dy, z + size * dz), radii, **shape)

    def scaled(*radii: float) -> tuple[float, ...]:
        return tuple(size * r for r in radii)

    right, left = (0.3, 0.2, -0.1), (-0.25, 0.0, -0.1)
    rough = {"rough": 0.03, "channel": 2}
    cup = {"rough": 0.01, "channel": 2, "notch": valve}
    return [
        chamber("sac", "fat", (0, 0, 0), (size * 1.05, size * 0.9, size), rough=0.03, channel=1, labelled=False),
        chamber("right ventricle", "vein", right, (size * 0.45, size * 0.36, length), tilt=turn, scale=0.12, **rough),
        chamber("right atrium", "vein", (0.45, -0.05, 0.55), scaled(0.35, 0.33, 0.3), rough=0.02),
        chamber("left atrium", "blood", (-0.1, -0.35, 0.55), scaled(0.36, 0.3, 0.28), rough=0.02),
        chamber("myocardium", "muscle 2", left, (pool + thickness, pool + thickness, length), scale=0.1, **cup),
        chamber("left ventricle", "blood", left, (pool, pool, length - thickness), scale=0.12, **cup),
    ]
