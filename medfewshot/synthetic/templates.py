"""Templates of procedural anatomies: what all members of a population have in common.

Each template is drawn again for every population, so no two populations share their anatomy. Parts are listed from the
outside in: later parts cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medfewshot.synthetic.blocks import (
    FAR,
    Rng,
    draw_power,
    heart,
    lesions,
    mirror,
    ribs,
    spine,
    vessel_path,
    vessels,
    wall,
)
from medfewshot.synthetic.parts import Part, solid, tube


def trunk(rng: Rng) -> list[Part]:
    """Draw a section of the trunk: abdomen below, chest above."""
    depth = rng.uniform(0.6, 0.78)
    back, side = -depth, float(rng.choice([-1, 1]))
    frame = [*wall(rng, 1.0, depth), ribs(rng, 0.86, depth - 0.14, 0.035)]
    base = rng.uniform(0.5, 0.8)
    lung = solid("lung", "lung", (0.44, 0.0, base + 0.75), (0.36, depth * 0.72, 0.8), power=3, rough=0.03)
    big = solid(
        "large organ", "organ a", (0.45 * side, 0.08, 0.18), (0.4, depth * 0.66, 0.42), rough=0.05, channel=1,
        shift=0.03, tilt=0.3 * side,
    )  # fmt: skip
    lobe = solid("lobe", "organ a", (0.02 * side, 0.26, 0.28), (0.38, 0.18, 0.2), rough=0.04, channel=2)
    spleen = solid(
        "side organ", "organ b", (-0.62 * side, -0.22, 0.25), (0.17, 0.27, 0.25), rough=0.04, channel=1,
        tilt=-0.5 * side, shift=0.03,
    )  # fmt: skip
    bag = solid("bag", "muscle", (-0.3 * side, 0.2, 0.2), (0.24, 0.2, 0.24), rough=0.05, channel=2, scale=0.25)
    inside = solid(
        "content", "content", bag.centre, tuple(0.85 * r for r in bag.radii), rough=0.05, channel=2, within="bag",
        shift=0.0, labelled=False,
    )  # fmt: skip
    bladder = solid("bladder", "fluid", (0.3 * side, 0.32, -0.02), (0.08, 0.1, 0.08), scale=0.2, presence=0.9)
    strand = tube(
        "strand", "organ d", 0.06, vessel_path(rng, (0.2 * side, 0.1, 0.0), (-0.16 * side, -0.03, 0.04), 3, 0.03),
        rough=0.03, channel=3,
    )  # fmt: skip
    lungs = mirror(lung, rng)
    organs = [*_bowel(depth), *lungs, bag, inside, big, lobe, bladder, spleen, strand]
    organs = [
        p for p in organs if p.name not in ("bag", "content", "bladder", "strand", "lobe") or rng.random() >= 0.15
    ]
    beating = heart(rng, (-0.1 * side, 0.15, base + 0.45), 0.32) if rng.random() < 0.7 else []
    return [
        *frame,
        *organs,
        *beating,
        *_kidneys(rng, back),
        *vessels(rng, back),
        *spine(rng, back),
        *lesions(rng, big),
        *lesions(rng, spleen, 1),
        *lesions(rng, replace(lung, name="right lung"), 2),
    ]


def _bowel(depth: float) -> list[Part]:
    inside = {"channel": 4, "within": "belly", "labelled": False}
    return [
        solid("belly", "fat", (0, 0.15, -0.6), (0.7, depth * 0.62, 0.75), labelled=False),
        Part("bowel wall", "soft", "noise", radii=(-0.15, 0.09, 0), **inside),  # type: ignore[arg-type]
        Part("bowel", "content", "noise", radii=(0.25, 0.09, 0), **inside),  # type: ignore[arg-type]
        Part("gas", "air", "noise", radii=(1.9, 0.09, 0), **inside),  # type: ignore[arg-type]
    ]


def _kidneys(rng: Rng, back: float) -> list[Part]:
    kidney = solid(
        "bean", "organ c", (0.42, back + 0.42, -0.12), (0.12, 0.14, 0.24), rough=0.015, channel=3, tilt=0.6,
        notch=(-0.13, 0.06, 0.0, 0.09), shift=0.03,
    )  # fmt: skip
    core = solid(
        "bean core", "fluid", (0.38, back + 0.44, -0.12), (0.05, 0.06, 0.1), rough=0.03, channel=3, labelled=False
    )
    return [*mirror(kidney, rng), *mirror(core, rng)]


def chest(rng: Rng) -> list[Part]:
    """Draw lungs and a large heart."""
    depth = rng.uniform(0.62, 0.75)
    lung = solid("lung", "lung", (0.47, 0, 0.1), (0.36, depth * 0.75, 1.0), power=3, rough=0.03)

    def branch(side: str, sign: int, number: int) -> Part:
        radius = rng.uniform(0.012, 0.03)
        path = vessel_path(rng, (0.12 * sign, 0, rng.uniform(-0.4, 0.4)), (0.12 * sign, 0, 0), 4, 0.07)
        return tube(f"{side} vessel {number}", "blood", radius, path, within=f"{side} lung", labelled=False)

    tree = [branch(side, sign, i) for i in range(6) for side, sign in (("right", 1), ("left", -1))]
    airway = tube("airway", "air", 0.06, vessel_path(rng, (0, -0.1, 0.3), (0, -0.01, 0.4), 3, 0.02))
    pair = mirror(lung, rng)
    return [
        *wall(rng, 1.0, depth),
        ribs(rng, 0.86, depth - 0.12, 0.04),
        *pair,
        *tree,
        *heart(rng, (-0.12, 0.18, 0.0), rng.uniform(0.36, 0.46)),
        airway,
        *vessels(rng, -depth),
        *spine(rng, -depth),
        *lesions(rng, pair[0]),
        *lesions(rng, pair[1]),
    ]


def head(rng: Rng) -> list[Part]:
    """Draw scalp, skull, brain with folds, ventricles and deep nuclei."""
    a, b, c = 0.72 * rng.uniform(0.92, 1.08), 0.9 * rng.uniform(0.95, 1.05), 0.78 * rng.uniform(0.92, 1.08)

    def layer(name: str, tissue: str, inset: float, **shape) -> Part:
        return solid(name, tissue, (0.0, 0.0, 0.0), (a - inset, b - inset, c - inset), shift=0.003, scale=0.02, **shape)

    fold = rng.uniform(0.035, 0.06)
    nuclei = []
    for i in range(int(rng.integers(2, 4))):
        centre = (rng.uniform(0.1, 0.24), rng.uniform(-0.15, 0.2), rng.uniform(-0.1, 0.1))
        radii = tuple(rng.uniform(0.04, 0.11, 3))
        nuclei.append(
            solid(f"nucleus {i}", "grey 2", centre, radii, tilt=rng.uniform(-0.6, 0.6), rough=0.015, channel=3)
        )
    curve = ((0.05, 0.3, 0.02), (0.07, 0.1, 0.12), (0.1, -0.15, 0.1), (0.18, -0.32, -0.02), (0.24, -0.15, -0.14))
    horn = tube("right ventricle", "fluid", rng.uniform(0.03, 0.06), curve, shift=0.012, scale=0.2)
    worm = tube(
        "worm", "grey", 0.04, ((0.26, 0.06, -0.2), (0.27, -0.06, -0.18), (0.25, -0.18, -0.1)), rough=0.01, channel=3
    )
    white = layer("white", "white", 0.26, rough=fold, channel=4)
    return [
        layer("scalp", "fat", 0.0, labelled=False),
        layer("muscle", "muscle", 0.04, rough=0.02, labelled=False),
        layer("skull", "bone", 0.07),
        layer("diploe", "marrow", 0.09, labelled=False),
        layer("inner table", "bone", 0.11, labelled=False),
        layer("fluid", "fluid", 0.13),
        layer("cortex", "grey", 0.17, rough=0.02, channel=4),
        white,
        solid("hindbrain", "grey 2", (0, -0.45, -0.42), (0.36, 0.26, 0.2), rough=0.03, channel=4),
        tube("stem", "white", 0.1, ((0, -0.12, -0.3), (0, -0.25, -0.9))),
        solid("falx", "fluid", (0, 0, 0.15), (0.012, b - 0.16, c - 0.16), power=3, labelled=False),
        *[part for nucleus in nuclei for part in mirror(nucleus, rng)],
        horn,
        replace(horn, name="left ventricle", path=_flip(horn.path)),
        worm,
        replace(worm, name="left worm", path=_flip(worm.path)),
        *lesions(rng, replace(white, radii=(0.4, 0.5, 0.4))),
    ]


def _flip(path: tuple[tuple[float, float, float], ...]) -> tuple[tuple[float, float, float], ...]:
    return tuple((-x, y, z) for x, y, z in path)


def limb(rng: Rng) -> list[Part]:
    """Draw muscle bellies between septa of fat, one or two bones with marrow, and vessels."""
    width, depth = rng.uniform(0.55, 0.9), rng.uniform(0.5, 0.8)
    parts = wall(rng, width, depth)[:3]
    for i in range(int(rng.integers(5, 9))):
        angle = rng.uniform(0, 2 * np.pi)
        centre = (0.55 * width * np.cos(angle), 0.55 * depth * np.sin(angle), rng.normal(0, 0.2))
        radii = (rng.uniform(0.12, 0.28), rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.4))
        belly = solid(
            f"belly {i}", "muscle" if rng.random() < 0.7 else "muscle 2", centre, radii, tilt=angle, rough=0.02,
            channel=2, within="muscle", shift=0.01, scale=0.04,
        )  # fmt: skip
        wider = tuple(r + 0.02 for r in radii)
        septum = replace(belly, name=f"septum {i}", tissue="fat", radii=wider, shift=0.0, scale=0.0, labelled=False)
        parts += [septum, belly]
    for i in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-0.2, 0.2) + 0.2 * i, rng.uniform(-0.2, 0.2)
        radius = rng.uniform(0.1, 0.18)
        path = ((x, y, -1.6), (x + rng.normal(0, 0.05), y, 0.0), (x, y + rng.normal(0, 0.05), 1.6))
        parts.append(tube(f"bone {i}", "bone", radius, path, rough=0.02, channel=1))
        parts.append(tube(f"marrow {i}", "marrow", radius * 0.65, path, rough=0.02, channel=1))
    for i in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.35, 0.35, 2)
        radius = rng.uniform(0.02, 0.05)
        parts.append(tube(f"vessel {i}", "blood", radius, vessel_path(rng, (x, y, -1.6), (0, 0, 0.65), 5, 0.03)))
    return parts


def tissue(rng: Rng) -> list[Part]:
    """Draw organs of any shape side by side in a mottled background."""
    parts = [
        solid("ground", "organ a", (0.0, 0.0, 0.0), (FAR,) * 3, labelled=False),
        Part("mottle", "organ b", "noise", radii=(rng.uniform(-0.3, 0.8), 0.1, 0), channel=4, labelled=False),
    ]
    for i in range(int(rng.integers(6, 14))):
        centre = tuple(rng.uniform(-0.9, 0.9, 3))
        material = f"organ {'abcdef'[int(rng.integers(6))]}"
        if rng.random() < 0.3:
            path = vessel_path(rng, centre, tuple(rng.normal(0, 0.25, 3)), int(rng.integers(2, 5)), 0.12)
            parts.append(tube(f"cord {i}", material, rng.uniform(0.03, 0.12), path, rough=0.02))
            continue
        body = solid(
            f"body {i}", material, centre, tuple(rng.uniform(0.08, 0.42) * np.exp(rng.normal(0, 0.35, 3))),
            tilt=rng.uniform(0, 3), power=draw_power(rng), rough=rng.uniform(0, 0.08), channel=int(rng.integers(1, 4)),
            shift=0.04, scale=0.12, presence=1.0 if rng.random() < 0.7 else 0.7,
            hollow=0.05 if rng.random() < 0.12 else 0.0,
        )  # fmt: skip
        parts += [body, *lesions(rng, body, 1)] if rng.random() < 0.3 else [body]
    return parts


TEMPLATES: dict[str, tuple[float, Callable[[Rng], list[Part]]]] = {
    "trunk": (0.4, trunk),
    "chest": (0.2, chest),
    "head": (0.2, head),
    "limb": (0.08, limb),
    "tissue": (0.12, tissue),
}
"""Name -> (how often, builder)."""
