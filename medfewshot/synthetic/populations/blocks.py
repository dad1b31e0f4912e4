"""Building blocks of templates: body walls, spine, vessels, heart, pairs and lesions."""

from __future__ import annotations

from typing import Literal

import numpy as np

from medfewshot.synthetic.populations.parts import Part

Rng = np.random.Generator
FAR = 50.0
"""A half axis that never ends."""


def mirror(part: Part, rng: Rng) -> list[Part]:
    """A pair: left and right of one organ, alike but not the same."""
    x, y, z = part.centre
    other = tuple(float(r * np.exp(rng.normal(0, 0.06))) for r in part.radii)
    notch = None if part.notch is None else (-part.notch[0], *part.notch[1:])
    left = Part(
        **{
            **part.__dict__,
            "name": f"left {part.name}",
            "centre": (-x, y + rng.normal(0, 0.02), z + rng.normal(0, 0.04)),
            "radii": other,
            "tilt": -part.tilt,
            "notch": notch,
        }
    )
    return [Part(**{**part.__dict__, "name": f"right {part.name}"}), left]


def draw_power(rng: Rng) -> Literal[2, 3, 4]:
    return (2, 2, 3, 4)[int(rng.integers(4))]  # type: ignore[return-value]


def walk(rng: Rng, start: tuple, step: tuple, count: int, wander: float) -> tuple[tuple[float, float, float], ...]:
    """A vessel's path: straight on, with a wandering direction."""
    points = [np.asarray(start, dtype=float)]
    for _ in range(count):
        points.append(points[-1] + np.asarray(step) + rng.normal(0, wander, 3))
    return tuple((float(x), float(y), float(z)) for x, y, z in points)


def wall(rng: Rng, width: float, depth: float) -> list[Part]:
    """Skin, fat, muscle and what they enclose; endless along z."""
    power = draw_power(rng)
    fat, muscle = rng.uniform(0.03, 0.16), rng.uniform(0.05, 0.1)
    rough = rng.uniform(0, 0.02)
    layers = [
        ("skin", "muscle", 0.0),
        ("fat", "fat", 0.02),
        ("muscle", "muscle", 0.02 + fat),
        ("cavity", "fat", 0.02 + fat + muscle),
    ]
    return [
        Part(
            name,
            tissue,
            radii=(width - inset, depth - inset, FAR),
            power=power,
            rough=rough * (inset > 0),
            channel=0,
            shift=0.004,
            scale=0.03,
            labelled=name == "muscle",
        )
        for name, tissue, inset in layers
    ]


def spine(rng: Rng, back: float) -> list[Part]:
    size = rng.uniform(0.12, 0.17)
    centre = (0.0, back + rng.uniform(0.36, 0.42), 0.0)
    height = size * rng.uniform(0.75, 0.95)
    arch = (0.0, centre[1] - 1.6 * size, 0.0)
    pillar = [
        Part("disc column", "disc", radii=(size, size * 0.8, FAR), centre=centre, labelled=False),
        Part("vertebra", "bone", "column", centre, (size, size * 0.8, height), power=4, rough=0.01, channel=3),
        Part("marrow", "marrow", "column", centre, (size * 0.85, size * 0.66, height * 0.8), power=4, labelled=False),
        Part("arch", "bone", "column", arch, (size * 1.1, size * 0.45, height * 0.6), rough=0.04, channel=3),
        Part("spinous", "bone", "column", (0.0, arch[1] - 0.12, 0.0), (0.025, 0.15, height * 0.5), labelled=False),
        Part("canal", "fluid", radii=(0.07, 0.06, FAR), centre=(0.0, centre[1] - 1.35 * size, 0.0)),
        Part("cord", "soft", radii=(0.04, 0.03, FAR), centre=(0.0, centre[1] - 1.35 * size, 0.0), labelled=False),
    ]
    muscle = Part(
        "back muscle", "muscle", centre=(0.22, back + 0.2, 0.0), radii=(0.19, 0.14, FAR), rough=0.02, channel=2
    )
    psoas = Part("psoas", "muscle", centre=(0.24, centre[1] + 0.0, -0.3), radii=(0.1, 0.11, 1.0), rough=0.02, channel=2)
    return [*mirror(muscle, rng), *mirror(psoas, rng), *pillar]


def lesions(rng: Rng, parent: Part, most: int = 3) -> list[Part]:
    """Nested in an organ, elsewhere in each member."""
    count = int(rng.integers(0, most + 1))
    base = min(parent.radii)
    return [
        Part(
            f"lesion {i} of {parent.name}",
            "lesion",
            radii=tuple(base * rng.uniform(0.1, 0.35) * np.ones(3)),
            rough=0.02,
            channel=3,
            within=parent.name,
            roams=0.75,
            presence=0.75,
            scale=0.3,
        )
        for i in range(count)
    ]


def vessels(rng: Rng, back: float) -> list[Part]:
    y = back + rng.uniform(0.58, 0.66)
    side = rng.choice([-1.0, 1.0])
    aorta = Part(
        "aorta",
        "blood",
        "tube",
        radii=(rng.uniform(0.06, 0.085), 0, 0),
        path=walk(rng, (0.05 * side, y, -1.6), (0, 0, 0.65), 5, 0.03),
        shift=0.02,
    )
    cava = Part(
        "cava",
        "vein",
        "tube",
        radii=(rng.uniform(0.06, 0.09), 0, 0),
        path=walk(rng, (-0.12 * side, y, -1.6), (0, 0.02, 0.65), 5, 0.03),
        shift=0.02,
    )
    branch = walk(rng, (0.05 * side, y, rng.uniform(-0.2, 0.3)), (0.15 * rng.choice([-1, 1]), 0.1, 0), 3, 0.05)
    mesentery = Part("branch", "blood", "tube", radii=(rng.uniform(0.02, 0.04), 0, 0), path=branch, labelled=False)
    return [aorta, cava, mesentery]


def heart(rng: Rng, centre: tuple[float, float, float], size: float) -> list[Part]:
    """A sac of fat with two ventricles and two atria; the left ventricle is a cup."""
    x, y, z = centre
    turn = rng.uniform(-1.2, 1.2)
    at = lambda dx, dy, dz: (x + size * dx, y + size * dy, z + size * dz)  # noqa: E731
    pool = size * rng.uniform(0.26, 0.36)
    wall = size * rng.uniform(0.12, 0.2)
    length = size * rng.uniform(0.55, 0.7)
    valve = (0.0, 0.0, 1.15 * length, 0.45 * length)
    chamber = at(-0.25, 0.0, -0.1)
    return [
        Part("sac", "fat", centre=centre, radii=(size * 1.05, size * 0.9, size), rough=0.03, channel=1, labelled=False),
        Part(
            "right ventricle",
            "vein",
            centre=at(0.3, 0.2, -0.1),
            radii=(size * 0.45, size * 0.36, length),
            tilt=turn,
            rough=0.03,
            channel=2,
            scale=0.12,
        ),
        Part(
            "right atrium",
            "vein",
            centre=at(0.45, -0.05, 0.55),
            radii=(size * 0.35, size * 0.33, size * 0.3),
            rough=0.02,
        ),
        Part(
            "left atrium",
            "blood",
            centre=at(-0.1, -0.35, 0.55),
            radii=(size * 0.36, size * 0.3, size * 0.28),
            rough=0.02,
        ),
        Part(
            "myocardium",
            "muscle 2",
            centre=chamber,
            radii=(pool + wall, pool + wall, length),
            rough=0.01,
            channel=2,
            notch=valve,
            scale=0.1,
        ),
        Part(
            "left ventricle",
            "blood",
            centre=chamber,
            radii=(pool, pool, length - wall),
            rough=0.01,
            channel=2,
            notch=valve,
            scale=0.12,
        ),
    ]
