"""Templates: what a population has in common. Each is drawn anew, so no two populations share their anatomy.

Parts are listed from the outside in: later ones cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medfewshot.synthetic.populations.blocks import (
    FAR,
    Rng,
    draw_power,
    heart,
    lesions,
    mirror,
    spine,
    vessels,
    walk,
    wall,
)
from medfewshot.synthetic.populations.parts import Part


def trunk(rng: Rng) -> list[Part]:
    """A section of the trunk: abdomen below, chest above."""
    depth = rng.uniform(0.6, 0.78)
    back, side = -depth, float(rng.choice([-1, 1]))
    parts = wall(rng, 1.0, depth)
    parts.append(
        Part(
            "ribs",
            "bone",
            "ribs",
            radii=(0.86, depth - 0.14, FAR),
            hollow=0.02,
            labelled=False,
            path=((rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.6), 0.035),),
        )
    )
    belly = Part("belly", "fat", centre=(0, 0.15, -0.6), radii=(0.7, depth * 0.62, 0.75), labelled=False)
    loops = [
        Part("bowel wall", "soft", "noise", radii=(-0.15, 0.09, 0), channel=4, within="belly", labelled=False),
        Part("bowel", "content", "noise", radii=(0.25, 0.09, 0), channel=4, within="belly", labelled=False),
        Part("gas", "air", "noise", radii=(1.9, 0.09, 0), channel=4, within="belly", labelled=False),
    ]
    base = rng.uniform(0.5, 0.8)
    lung = Part("lung", "lung", centre=(0.44, 0.0, base + 0.75), radii=(0.36, depth * 0.72, 0.8), power=3, rough=0.03)
    big = Part(
        "large organ",
        "organ a",
        centre=(0.45 * side, 0.08, 0.18),
        radii=(0.4, depth * 0.66, 0.42),
        rough=0.05,
        power=2,
        channel=1,
        shift=0.03,
        tilt=0.3 * side,
    )
    lobe = Part("lobe", "organ a", centre=(0.02 * side, 0.26, 0.28), radii=(0.38, 0.18, 0.2), rough=0.04, channel=2)
    spleen = Part(
        "side organ",
        "organ b",
        centre=(-0.62 * side, -0.22, 0.25),
        radii=(0.17, 0.27, 0.25),
        rough=0.04,
        channel=1,
        tilt=-0.5 * side,
        shift=0.03,
    )
    bag = Part(
        "bag", "muscle", centre=(-0.3 * side, 0.2, 0.2), radii=(0.24, 0.2, 0.24), rough=0.05, channel=2, scale=0.25
    )
    inside = Part(
        "content",
        "content",
        centre=bag.centre,
        radii=tuple(0.85 * r for r in bag.radii),
        rough=0.05,
        channel=2,
        within="bag",
        shift=0.0,
        labelled=False,
    )
    bladder = Part(
        "bladder", "fluid", centre=(0.3 * side, 0.32, -0.02), radii=(0.08, 0.1, 0.08), scale=0.2, presence=0.9
    )
    kidney = Part(
        "bean",
        "organ c",
        centre=(0.42, back + 0.42, -0.12),
        radii=(0.12, 0.14, 0.24),
        rough=0.015,
        channel=3,
        tilt=0.6,
        notch=(-0.13, 0.06, 0.0, 0.09),
        shift=0.03,
    )
    core = Part(
        "bean core",
        "fluid",
        centre=(0.38, back + 0.44, -0.12),
        radii=(0.05, 0.06, 0.1),
        rough=0.03,
        channel=3,
        labelled=False,
    )
    strand = Part(
        "strand",
        "organ d",
        "tube",
        radii=(0.06, 0, 0),
        path=walk(rng, (0.2 * side, 0.1, 0.0), (-0.16 * side, -0.03, 0.04), 3, 0.03),
        rough=0.03,
        channel=3,
    )
    organs = [belly, *loops, *mirror(lung, rng), bag, inside, big, lobe, bladder, spleen, strand]
    optional = [p for p in organs if p.name in ("bag", "content", "bladder", "strand", "lobe") and rng.random() < 0.15]
    organs = [p for p in organs if p not in optional]
    beating = heart(rng, (-0.1 * side, 0.15, base + 0.45), 0.32) if rng.random() < 0.7 else []
    kidneys = [*mirror(kidney, rng), *mirror(core, rng)]
    return [
        *parts,
        *organs,
        *beating,
        *kidneys,
        *vessels(rng, back),
        *spine(rng, back),
        *lesions(rng, big),
        *lesions(rng, spleen, 1),
        *lesions(rng, Part(**{**lung.__dict__, "name": "right lung"}), 2),
    ]


def chest(rng: Rng) -> list[Part]:
    """Lungs and a large heart."""
    depth = rng.uniform(0.62, 0.75)
    lung = Part("lung", "lung", centre=(0.47, 0, 0.1), radii=(0.36, depth * 0.75, 1.0), power=3, rough=0.03)
    tree = [
        Part(
            f"{side} vessel {i}",
            "blood",
            "tube",
            radii=(rng.uniform(0.012, 0.03), 0, 0),
            within=f"{side} lung",
            labelled=False,
            path=walk(rng, (0.12 * sign, 0, rng.uniform(-0.4, 0.4)), (0.12 * sign, 0, 0), 4, 0.07),
        )
        for i in range(6)
        for side, sign in (("right", 1), ("left", -1))
    ]
    windpipe = Part(
        "airway", "air", "tube", radii=(0.06, 0, 0), path=walk(rng, (0, -0.1, 0.3), (0, -0.01, 0.4), 3, 0.02)
    )
    pair = mirror(lung, rng)
    return [
        *wall(rng, 1.0, depth),
        Part(
            "ribs",
            "bone",
            "ribs",
            radii=(0.86, depth - 0.12, FAR),
            hollow=0.02,
            labelled=False,
            path=((rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.6), 0.04),),
        ),
        *pair,
        *tree,
        *heart(rng, (-0.12, 0.18, 0.0), rng.uniform(0.36, 0.46)),
        windpipe,
        *vessels(rng, -depth),
        *spine(rng, -depth),
        *lesions(rng, pair[0]),
        *lesions(rng, pair[1]),
    ]


def head(rng: Rng) -> list[Part]:
    """Scalp, skull, brain with folds, ventricles and deep nuclei."""
    a, b, c = 0.72 * rng.uniform(0.92, 1.08), 0.9 * rng.uniform(0.95, 1.05), 0.78 * rng.uniform(0.92, 1.08)
    layer = lambda inset: (a - inset, b - inset, c - inset)  # noqa: E731
    common = {"power": 2, "shift": 0.003, "scale": 0.02}
    fold = rng.uniform(0.035, 0.06)
    nuclei = [
        Part(
            f"nucleus {i}",
            "grey 2",
            centre=(rng.uniform(0.1, 0.24), rng.uniform(-0.15, 0.2), rng.uniform(-0.1, 0.1)),
            radii=tuple(rng.uniform(0.04, 0.11, 3)),
            tilt=rng.uniform(-0.6, 0.6),
            rough=0.015,
            channel=3,
        )
        for i in range(int(rng.integers(2, 4)))
    ]
    curve = ((0.05, 0.3, 0.02), (0.07, 0.1, 0.12), (0.1, -0.15, 0.1), (0.18, -0.32, -0.02), (0.24, -0.15, -0.14))
    swell = rng.uniform(0.03, 0.06)
    horns = [
        Part(
            f"{side} ventricle",
            "fluid",
            "tube",
            radii=(swell, 0, 0),
            shift=0.012,
            scale=0.2,
            path=tuple((sign * x, y, z) for x, y, z in curve),
        )
        for side, sign in (("right", 1), ("left", -1))
    ]
    hippocampus = Part(
        "worm",
        "grey",
        "tube",
        radii=(0.04, 0, 0),
        rough=0.01,
        channel=3,
        path=((0.26, 0.06, -0.2), (0.27, -0.06, -0.18), (0.25, -0.18, -0.1)),
    )
    worms = [
        hippocampus,
        Part(
            **{**hippocampus.__dict__, "name": "left worm", "path": tuple((-x, y, z) for x, y, z in hippocampus.path)}
        ),
    ]
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
        *[p for nucleus in nuclei for p in mirror(nucleus, rng)],
        *horns,
        *worms,
        *lesions(rng, Part(**{**brain.__dict__, "name": "white", "radii": (0.4, 0.5, 0.4)})),
    ]


def limb(rng: Rng) -> list[Part]:
    """Muscle bellies between septa of fat, one or two bones with marrow, vessels."""
    width, depth = rng.uniform(0.55, 0.9), rng.uniform(0.5, 0.8)
    parts = wall(rng, width, depth)[:3]
    for i in range(int(rng.integers(5, 9))):
        angle = rng.uniform(0, 2 * np.pi)
        centre = (0.55 * width * np.cos(angle), 0.55 * depth * np.sin(angle), rng.normal(0, 0.2))
        radii = (rng.uniform(0.12, 0.28), rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.4))
        parts.append(
            Part(
                f"septum {i}",
                "fat",
                centre=centre,
                radii=tuple(r + 0.02 for r in radii),
                tilt=angle,
                rough=0.02,
                channel=2,
                labelled=False,
                within="muscle",
                shift=0.0,
                scale=0.0,
            )
        )
        parts.append(
            Part(
                f"belly {i}",
                "muscle" if rng.random() < 0.7 else "muscle 2",
                centre=centre,
                radii=radii,
                tilt=angle,
                rough=0.02,
                channel=2,
                within="muscle",
                shift=0.01,
                scale=0.04,
            )
        )
    for i in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-0.2, 0.2) + 0.2 * i, rng.uniform(-0.2, 0.2)
        radius = rng.uniform(0.1, 0.18)
        path = ((x, y, -1.6), (x + rng.normal(0, 0.05), y, 0.0), (x, y + rng.normal(0, 0.05), 1.6))
        parts.append(Part(f"bone {i}", "bone", "tube", radii=(radius, 0, 0), path=path, rough=0.02, channel=1))
        parts.append(
            Part(f"marrow {i}", "marrow", "tube", radii=(radius * 0.65, 0, 0), path=path, rough=0.02, channel=1)
        )
    for i in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.35, 0.35, 2)
        parts.append(
            Part(
                f"vessel {i}",
                "blood",
                "tube",
                radii=(rng.uniform(0.02, 0.05), 0, 0),
                path=walk(rng, (x, y, -1.6), (0, 0, 0.65), 5, 0.03),
            )
        )
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
            path = walk(rng, centre, tuple(rng.normal(0, 0.25, 3)), int(rng.integers(2, 5)), 0.12)
            part = Part(f"cord {i}", material, "tube", radii=(rng.uniform(0.03, 0.12), 0, 0), path=path, rough=0.02)
        else:
            radii = tuple(rng.uniform(0.08, 0.42) * np.exp(rng.normal(0, 0.35, 3)))
            part = Part(
                f"body {i}",
                material,
                centre=centre,
                radii=radii,
                tilt=rng.uniform(0, 3),
                power=draw_power(rng),
                rough=rng.uniform(0, 0.08),
                channel=int(rng.integers(1, 4)),
                shift=0.04,
                scale=0.12,
                presence=1.0 if rng.random() < 0.7 else 0.7,
                hollow=0.05 if rng.random() < 0.12 else 0.0,
            )
        parts += [part, *lesions(rng, part, 1)] if part.kind == "ellipsoid" and rng.random() < 0.3 else [part]
    return parts


TEMPLATES: dict[str, tuple[float, Callable[[Rng], list[Part]]]] = {
    "trunk": (0.4, trunk),
    "chest": (0.2, chest),
    "head": (0.2, head),
    "limb": (0.08, limb),
    "tissue": (0.12, tissue),
}
"""Name -> (how often, builder)."""
