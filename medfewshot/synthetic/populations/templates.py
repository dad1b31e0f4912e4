"""Templates: what a population has in common. Each is drawn anew, so no two populations share their anatomy.

Parts are listed from the outside in: later ones cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from medfewshot.synthetic.populations.parts import Part

Rng = np.random.Generator
FAR = 50.0
"""A half axis that never ends."""


def _mirror(part: Part, rng: Rng) -> list[Part]:
    """A pair: left and right of one organ, alike but not the same."""
    x, y, z = part.centre
    other = tuple(float(r * np.exp(rng.normal(0, 0.06))) for r in part.radii)
    notch = None if part.notch is None else (-part.notch[0], *part.notch[1:])
    left = Part(**{**part.__dict__, "name": f"left {part.name}", "centre": (-x, y + rng.normal(0, 0.02), z + rng.normal(0, 0.04)),
                   "radii": other, "tilt": -part.tilt, "notch": notch})  # fmt: skip
    return [Part(**{**part.__dict__, "name": f"right {part.name}"}), left]


def _power(rng: Rng) -> Literal[2, 3, 4]:
    return (2, 2, 3, 4)[int(rng.integers(4))]  # type: ignore[return-value]


def _walk(rng: Rng, start: tuple, step: tuple, count: int, wander: float) -> tuple[tuple[float, float, float], ...]:
    """A vessel's path: straight on, with a wandering direction."""
    points = [np.asarray(start, dtype=float)]
    for _ in range(count):
        points.append(points[-1] + np.asarray(step) + rng.normal(0, wander, 3))
    return tuple((float(x), float(y), float(z)) for x, y, z in points)


def _wall(rng: Rng, width: float, depth: float) -> list[Part]:
    """Skin, fat, muscle and what they enclose; endless along z."""
    power = _power(rng)
    fat, muscle = rng.uniform(0.03, 0.16), rng.uniform(0.05, 0.1)
    rough = rng.uniform(0, 0.02)
    layers = [
        ("skin", "muscle", 0.0),
        ("fat", "fat", 0.02),
        ("muscle", "muscle", 0.02 + fat),
        ("cavity", "fat", 0.02 + fat + muscle),
    ]
    return [
        Part(name, tissue, radii=(width - inset, depth - inset, FAR), power=power, rough=rough * (inset > 0), channel=0,
             shift=0.004, scale=0.03, labelled=name == "muscle")
        for name, tissue, inset in layers
    ]  # fmt: skip


def _spine(rng: Rng, back: float) -> list[Part]:
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
    return [*_mirror(muscle, rng), *_mirror(psoas, rng), *pillar]


def _lesions(rng: Rng, parent: Part, most: int = 3) -> list[Part]:
    """Nested in an organ, elsewhere in each member."""
    count = int(rng.integers(0, most + 1))
    base = min(parent.radii)
    return [
        Part(f"lesion {i} of {parent.name}", "lesion", radii=tuple(base * rng.uniform(0.1, 0.35) * np.ones(3)), rough=0.02,
             channel=3, within=parent.name, roams=0.75, presence=0.75, scale=0.3)
        for i in range(count)
    ]  # fmt: skip


def _vessels(rng: Rng, back: float) -> list[Part]:
    y = back + rng.uniform(0.58, 0.66)
    side = rng.choice([-1.0, 1.0])
    aorta = Part("aorta", "blood", "tube", radii=(rng.uniform(0.06, 0.085), 0, 0),
                 path=_walk(rng, (0.05 * side, y, -1.6), (0, 0, 0.65), 5, 0.03), shift=0.02)  # fmt: skip
    cava = Part("cava", "vein", "tube", radii=(rng.uniform(0.06, 0.09), 0, 0),
                path=_walk(rng, (-0.12 * side, y, -1.6), (0, 0.02, 0.65), 5, 0.03), shift=0.02)  # fmt: skip
    branch = _walk(rng, (0.05 * side, y, rng.uniform(-0.2, 0.3)), (0.15 * rng.choice([-1, 1]), 0.1, 0), 3, 0.05)
    mesentery = Part("branch", "blood", "tube", radii=(rng.uniform(0.02, 0.04), 0, 0), path=branch, labelled=False)
    return [aorta, cava, mesentery]


def trunk(rng: Rng) -> list[Part]:
    """A section of the trunk: abdomen below, chest above."""
    depth = rng.uniform(0.6, 0.78)
    back, side = -depth, float(rng.choice([-1, 1]))
    parts = _wall(rng, 1.0, depth)
    parts.append(Part("ribs", "bone", "ribs", radii=(0.86, depth - 0.14, FAR), hollow=0.02, labelled=False,
                      path=((rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.6), 0.035),)))  # fmt: skip
    belly = Part("belly", "fat", centre=(0, 0.15, -0.6), radii=(0.7, depth * 0.62, 0.75), labelled=False)
    loops = [
        Part("bowel wall", "soft", "noise", radii=(-0.15, 0.09, 0), channel=4, within="belly", labelled=False),
        Part("bowel", "content", "noise", radii=(0.25, 0.09, 0), channel=4, within="belly", labelled=False),
        Part("gas", "air", "noise", radii=(1.9, 0.09, 0), channel=4, within="belly", labelled=False),
    ]
    base = rng.uniform(0.5, 0.8)
    lung = Part("lung", "lung", centre=(0.44, 0.0, base + 0.75), radii=(0.36, depth * 0.72, 0.8), power=3, rough=0.03)
    big = Part("large organ", "organ a", centre=(0.45 * side, 0.08, 0.18), radii=(0.4, depth * 0.66, 0.42), rough=0.05,
               power=2, channel=1, shift=0.03, tilt=0.3 * side)  # fmt: skip
    lobe = Part("lobe", "organ a", centre=(0.02 * side, 0.26, 0.28), radii=(0.38, 0.18, 0.2), rough=0.04, channel=2)
    spleen = Part("side organ", "organ b", centre=(-0.62 * side, -0.22, 0.25), radii=(0.17, 0.27, 0.25), rough=0.04,
                  channel=1, tilt=-0.5 * side, shift=0.03)  # fmt: skip
    bag = Part(
        "bag", "muscle", centre=(-0.3 * side, 0.2, 0.2), radii=(0.24, 0.2, 0.24), rough=0.05, channel=2, scale=0.25
    )
    inside = Part("content", "content", centre=bag.centre, radii=tuple(0.85 * r for r in bag.radii), rough=0.05, channel=2,
                  within="bag", shift=0.0, labelled=False)  # fmt: skip
    bladder = Part(
        "bladder", "fluid", centre=(0.3 * side, 0.32, -0.02), radii=(0.08, 0.1, 0.08), scale=0.2, presence=0.9
    )
    kidney = Part("bean", "organ c", centre=(0.42, back + 0.42, -0.12), radii=(0.12, 0.14, 0.24), rough=0.015, channel=3,
                  tilt=0.6, notch=(-0.13, 0.06, 0.0, 0.09), shift=0.03)  # fmt: skip
    core = Part("bean core", "fluid", centre=(0.38, back + 0.44, -0.12), radii=(0.05, 0.06, 0.1), rough=0.03, channel=3,
                labelled=False)  # fmt: skip
    strand = Part("strand", "organ d", "tube", radii=(0.06, 0, 0),
                  path=_walk(rng, (0.2 * side, 0.1, 0.0), (-0.16 * side, -0.03, 0.04), 3, 0.03), rough=0.03, channel=3)  # fmt: skip
    organs = [belly, *loops, *_mirror(lung, rng), bag, inside, big, lobe, bladder, spleen, strand]
    optional = [p for p in organs if p.name in ("bag", "content", "bladder", "strand", "lobe") and rng.random() < 0.15]
    organs = [p for p in organs if p not in optional]
    heart = _heart(rng, (-0.1 * side, 0.15, base + 0.45), 0.32) if rng.random() < 0.7 else []
    kidneys = [*_mirror(kidney, rng), *_mirror(core, rng)]
    return [
        *parts, *organs, *heart, *kidneys, *_vessels(rng, back), *_spine(rng, back), *_lesions(rng, big),
        *_lesions(rng, spleen, 1), *_lesions(rng, Part(**{**lung.__dict__, "name": "right lung"}), 2),
    ]  # fmt: skip


def _heart(rng: Rng, centre: tuple[float, float, float], size: float) -> list[Part]:
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
        Part("right ventricle", "vein", centre=at(0.3, 0.2, -0.1), radii=(size * 0.45, size * 0.36, length), tilt=turn,
             rough=0.03, channel=2, scale=0.12),
        Part("right atrium", "vein", centre=at(0.45, -0.05, 0.55), radii=(size * 0.35, size * 0.33, size * 0.3), rough=0.02),
        Part("left atrium", "blood", centre=at(-0.1, -0.35, 0.55), radii=(size * 0.36, size * 0.3, size * 0.28), rough=0.02),
        Part("myocardium", "muscle 2", centre=chamber, radii=(pool + wall, pool + wall, length), rough=0.01, channel=2,
             notch=valve, scale=0.1),
        Part("left ventricle", "blood", centre=chamber, radii=(pool, pool, length - wall), rough=0.01, channel=2,
             notch=valve, scale=0.12),
    ]  # fmt: skip


def chest(rng: Rng) -> list[Part]:
    """Lungs and a large heart."""
    depth = rng.uniform(0.62, 0.75)
    lung = Part("lung", "lung", centre=(0.47, 0, 0.1), radii=(0.36, depth * 0.75, 1.0), power=3, rough=0.03)
    tree = [
        Part(f"vessel {i}", "blood", "tube", radii=(rng.uniform(0.012, 0.03), 0, 0), within=f"{side} lung", labelled=False,
             path=_walk(rng, (0.12 * sign, 0, rng.uniform(-0.4, 0.4)), (0.12 * sign, 0, 0), 4, 0.07))
        for i in range(6) for side, sign in (("right", 1), ("left", -1))
    ]  # fmt: skip
    windpipe = Part(
        "airway", "air", "tube", radii=(0.06, 0, 0), path=_walk(rng, (0, -0.1, 0.3), (0, -0.01, 0.4), 3, 0.02)
    )
    pair = _mirror(lung, rng)
    return [
        *_wall(rng, 1.0, depth),
        Part("ribs", "bone", "ribs", radii=(0.86, depth - 0.12, FAR), hollow=0.02, labelled=False,
             path=((rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.6), 0.04),)),
        *pair, *tree, *_heart(rng, (-0.12, 0.18, 0.0), rng.uniform(0.36, 0.46)), windpipe, *_vessels(rng, -depth),
        *_spine(rng, -depth), *_lesions(rng, pair[0]), *_lesions(rng, pair[1]),
    ]  # fmt: skip


def head(rng: Rng) -> list[Part]:
    """Scalp, skull, brain with folds, ventricles and deep nuclei."""
    a, b, c = 0.72 * rng.uniform(0.92, 1.08), 0.9 * rng.uniform(0.95, 1.05), 0.78 * rng.uniform(0.92, 1.08)
    layer = lambda inset: (a - inset, b - inset, c - inset)  # noqa: E731
    common = {"power": 2, "shift": 0.003, "scale": 0.02}
    fold = rng.uniform(0.035, 0.06)
    nuclei = [
        Part(f"nucleus {i}", "grey 2", centre=(rng.uniform(0.1, 0.24), rng.uniform(-0.15, 0.2), rng.uniform(-0.1, 0.1)),
             radii=tuple(rng.uniform(0.04, 0.11, 3)), tilt=rng.uniform(-0.6, 0.6), rough=0.015, channel=3)
        for i in range(int(rng.integers(2, 4)))
    ]  # fmt: skip
    curve = ((0.05, 0.3, 0.02), (0.07, 0.1, 0.12), (0.1, -0.15, 0.1), (0.18, -0.32, -0.02), (0.24, -0.15, -0.14))
    swell = rng.uniform(0.03, 0.06)
    horns = [
        Part(f"{side} ventricle", "fluid", "tube", radii=(swell, 0, 0), shift=0.012, scale=0.2,
             path=tuple((sign * x, y, z) for x, y, z in curve))
        for side, sign in (("right", 1), ("left", -1))
    ]  # fmt: skip
    hippocampus = Part("worm", "grey", "tube", radii=(0.04, 0, 0), rough=0.01, channel=3,
                       path=((0.26, 0.06, -0.2), (0.27, -0.06, -0.18), (0.25, -0.18, -0.1)))  # fmt: skip
    worms = [hippocampus, Part(**{**hippocampus.__dict__, "name": "left worm",
                                  "path": tuple((-x, y, z) for x, y, z in hippocampus.path)})]  # fmt: skip
    brain = Part("cortex", "grey", radii=layer(0.17), rough=0.02, channel=4, **common)  # type: ignore[arg-type]
    return [
        Part("scalp", "fat", radii=layer(0.0), labelled=False, **common),  # type: ignore[arg-type]
        Part("muscle", "muscle", radii=layer(0.04), rough=0.02, labelled=False, **common),  # type: ignore[arg-type]
        Part("skull", "bone", radii=layer(0.07), **common),  # type: ignore[arg-type]
        Part("diploe", "marrow", radii=layer(0.09), labelled=False, **common),  # type: ignore[arg-type]
        Part("inner table", "bone", radii=layer(0.11), labelled=False, **common),  # type: ignore[arg-type]
        Part("fluid", "fluid", radii=layer(0.13), **common),  # type: ignore[arg-type]
        brain,
        Part("white", "white", radii=layer(0.26), rough=fold, channel=4, **common),  # type: ignore[arg-type]
        Part("hindbrain", "grey 2", centre=(0, -0.45, -0.42), radii=(0.36, 0.26, 0.2), rough=0.03, channel=4),
        Part("stem", "white", "tube", radii=(0.1, 0, 0), path=((0, -0.12, -0.3), (0, -0.25, -0.9))),
        Part("falx", "fluid", radii=(0.012, b - 0.16, c - 0.16), centre=(0, 0, 0.15), power=3, labelled=False),
        *[p for nucleus in nuclei for p in _mirror(nucleus, rng)],
        *horns, *worms, *_lesions(rng, Part(**{**brain.__dict__, "name": "white", "radii": (0.4, 0.5, 0.4)})),
    ]  # fmt: skip


def limb(rng: Rng) -> list[Part]:
    """Muscle bellies between septa of fat, one or two bones with marrow, vessels."""
    width, depth = rng.uniform(0.55, 0.9), rng.uniform(0.5, 0.8)
    parts = _wall(rng, width, depth)[:3]
    for i in range(int(rng.integers(5, 9))):
        angle = rng.uniform(0, 2 * np.pi)
        centre = (0.55 * width * np.cos(angle), 0.55 * depth * np.sin(angle), rng.normal(0, 0.2))
        radii = (rng.uniform(0.12, 0.28), rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.4))
        parts.append(Part(f"septum {i}", "fat", centre=centre, radii=tuple(r + 0.02 for r in radii), tilt=angle, rough=0.02,
                          channel=2, labelled=False, within="muscle", shift=0.0, scale=0.0))  # fmt: skip
        parts.append(Part(f"belly {i}", "muscle" if rng.random() < 0.7 else "muscle 2", centre=centre, radii=radii,
                          tilt=angle, rough=0.02, channel=2, within="muscle", shift=0.01, scale=0.04))  # fmt: skip
    for i in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-0.2, 0.2, 2) + (0.2 * i, 0)
        radius = rng.uniform(0.1, 0.18)
        path = ((x, y, -1.6), (x + rng.normal(0, 0.05), y, 0.0), (x, y + rng.normal(0, 0.05), 1.6))
        parts.append(Part(f"bone {i}", "bone", "tube", radii=(radius, 0, 0), path=path, rough=0.02, channel=1))
        parts.append(
            Part(f"marrow {i}", "marrow", "tube", radii=(radius * 0.65, 0, 0), path=path, rough=0.02, channel=1)
        )
    for i in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.35, 0.35, 2)
        parts.append(Part(f"vessel {i}", "blood", "tube", radii=(rng.uniform(0.02, 0.05), 0, 0),
                          path=_walk(rng, (x, y, -1.6), (0, 0, 0.65), 5, 0.03)))  # fmt: skip
    return parts


def tissue(rng: Rng) -> list[Part]:
    """A close look at nothing in particular: organs of any shape side by side in a mottled ground."""
    parts = [
        Part("ground", "organ a", radii=(FAR,) * 3, labelled=False),
        Part("mottle", "organ b", "noise", radii=(rng.uniform(-0.3, 0.8), 0.1, 0), channel=4, labelled=False),
    ]
    for i in range(int(rng.integers(6, 14))):
        centre = tuple(rng.uniform(-0.9, 0.9, 3))
        material = f"organ {'abcdef'[int(rng.integers(6))]}"
        if rng.random() < 0.3:
            path = _walk(rng, centre, tuple(rng.normal(0, 0.25, 3)), int(rng.integers(2, 5)), 0.12)
            part = Part(f"cord {i}", material, "tube", radii=(rng.uniform(0.03, 0.12), 0, 0), path=path, rough=0.02)
        else:
            radii = tuple(rng.uniform(0.08, 0.42) * np.exp(rng.normal(0, 0.35, 3)))
            part = Part(f"body {i}", material, centre=centre, radii=radii, tilt=rng.uniform(0, 3), power=_power(rng),
                        rough=rng.uniform(0, 0.08), channel=int(rng.integers(1, 4)), shift=0.04, scale=0.12,
                        presence=1.0 if rng.random() < 0.7 else 0.7,
                        hollow=0.05 if rng.random() < 0.12 else 0.0)  # fmt: skip
        parts += [part, *_lesions(rng, part, 1)] if part.kind == "ellipsoid" and rng.random() < 0.3 else [part]
    return parts


TEMPLATES: dict[str, tuple[float, Callable[[Rng], list[Part]]]] = {
    "trunk": (0.4, trunk),
    "chest": (0.2, chest),
    "head": (0.2, head),
    "limb": (0.08, limb),
    "tissue": (0.12, tissue),
}
"""Name -> (how often, builder)."""
