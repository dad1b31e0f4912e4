"""Template of an upper abdomen on contrast-enhanced CT, with named organs, for the demo's cohort."""

from __future__ import annotations

from dataclasses import replace

from medfewshot.synthetic.blocks import FAR, Rng, spine, walk
from medfewshot.synthetic.parts import Part, solid, tube

MIDDLE = (0.0, 0.0, 0.0)
TISSUES: dict[str, tuple[float, float, float]] = {
    "air": (-1000, 0, 0),
    "couch": (-60, 0, 0),
    "lung": (-860, 10, 45),
    "fat": (-104, 3, 5),
    "muscle": (60, 4, 6),
    "bone": (430, 25, 30),
    "marrow": (210, 20, 25),
    "disc": (95, 5, 5),
    "soft": (62, 6, 14),
    "content": (30, 10, 22),
    "fluid": (14, 3, 3),
    "blood": (205, 12, 4),
    "vein": (150, 8, 4),
    "liver": (110, 6, 6),
    "spleen": (122, 6, 5),
    "pancreas": (96, 6, 12),
    "cortex": (190, 10, 8),
    "medulla": (140, 8, 8),
    "lesion": (45, 4, 7),
}
"""Tissue -> mean in HU, its standard deviation from case to case, and that of the texture inside."""

STRUCTURES: dict[str, tuple[str, ...]] = {
    "liver": ("liver", "left lobe", "vessel of the liver"),
    "right kidney": ("right kidney",),
    "left kidney": ("left kidney",),
    "spleen": ("spleen",),
    "liver lesion": ("lesion",),
}
"""Structure of the cohort -> beginnings of the names of its parts."""

_LIVER_VESSELS = (
    ((0.2, 0.0, 0.04), (0.1, 0.0, 0.02), 0.026),
    ((0.24, 0.02, 0.06), (0.07, 0.09, 0.0), 0.02),
    ((0.24, -0.02, 0.06), (0.07, -0.08, 0.03), 0.02),
    ((0.15, -0.12, 0.34), (0.1, 0.03, -0.05), 0.022),
    ((0.15, -0.1, 0.36), (0.04, 0.1, -0.03), 0.022),
    ((0.15, -0.14, 0.34), (0.1, -0.04, -0.03), 0.018),
)
"""First point, step and radius."""
_LESION_SITES = ((0.53, -0.12, 0.2), (0.5, 0.2, 0.08), (0.28, 0.08, 0.24), (0.62, 0.02, -0.06))
"""Inside the liver and far from each other."""


def abdomen(rng: Rng, lesions: int) -> list[Part]:
    """Draw the parts of one patient, from the outside in.

    Args:
        rng: Source of the draws.
        lesions: Number of liver lesions, 0 to 4.
    """
    depth = rng.uniform(0.66, 0.72)
    return [
        *_body(rng, depth),
        *_chest(),
        *_bowel(rng, depth),
        *_stomach(),
        *_spleen_and_liver(rng),
        *_lesions(rng, lesions),
        *_kidneys(),
        *_vessels(0.07 - depth),
        *spine(rng, 0.05 - depth),
    ]


def _body(rng: Rng, depth: float) -> list[Part]:
    """Couch, skin, fat, the muscle wall with ribs, and the cavity."""
    width, fat, muscle = rng.uniform(0.94, 1.0), rng.uniform(0.06, 0.1), 0.075

    def layer(name: str, tissue: str, inset: float) -> Part:
        shape = {"shift": 0.0, "scale": 0.0, "rough": 0.008 * (inset > 0)}
        return solid(name, tissue, MIDDLE, (width - inset, depth - inset, FAR), **shape)

    table = solid("couch", "couch", (0, 2.5 - depth - 0.05, 0), (2.5, 2.5, FAR), hollow=0.045, shift=0.0, scale=0.0)
    thorax = solid("thorax", "muscle", (0, 0, 1.3), (FAR, FAR, 1.35), within="wall", shift=0.0, scale=0.0)
    cage = (width - fat - 0.05, depth - fat - 0.05, FAR)
    ribs = Part(
        "ribs", "bone", "ribs", radii=cage, hollow=0.018, within="thorax", shift=0.0, scale=0.0,
        path=((0.17, 0.5, 0.035),),
    )  # fmt: skip
    marrow = replace(ribs, name="rib marrow", tissue="marrow", hollow=0.007, path=((0.17, 0.5, 0.02),))
    return [
        table,
        layer("skin", "muscle", 0.0),
        layer("fat", "fat", 0.014),
        layer("wall", "muscle", fat),
        thorax,
        layer("cavity", "fat", fat + muscle),
        ribs,
        marrow,
    ]


def _chest() -> list[Part]:
    lungs = [
        solid(f"{side} lung", "lung", (x, 0.0, 1.0), (0.42, 0.54, 0.62), power=3, rough=0.01, scale=0.02)
        for side, x in (("right", 0.42), ("left", -0.42))
    ]
    vessels = [
        Part(f"{lung.name} vessels", "soft", "noise", radii=(2.1, 0.1, 0), channel=4, within=lung.name)
        for lung in lungs
    ]
    return [
        *lungs,
        *vessels,
        solid("heart", "muscle", (-0.12, 0.2, 0.72), (0.36, 0.27, 0.27), rough=0.01, scale=0.04),
        solid("ventricle", "blood", (-0.12, 0.2, 0.74), (0.25, 0.17, 0.2), rough=0.02, within="heart"),
    ]


def _bowel(rng: Rng, depth: float) -> list[Part]:
    """Loops of small bowel in fat, and a frame of colon with stool and gas."""
    parts = [solid("belly", "fat", (0, 0.12, -0.62), (0.62, depth * 0.62, 0.52), within="cavity")]
    for i in range(30):
        start = rng.uniform((-0.45, -0.05, -0.95), (0.45, 0.4, -0.25))
        path = walk(rng, tuple(start), tuple(rng.normal(0, 0.06, 3)), 3, 0.06)
        wall = tube(f"loop {i}", "soft", rng.uniform(0.055, 0.08), path, rough=0.006, channel=4, within="belly")
        inside = replace(wall, name=f"inside of loop {i}", tissue="air" if rng.random() < 0.05 else "content")
        parts += [wall, replace(inside, radii=(wall.radii[0] - 0.018, 0, 0))]
    colon = []
    for name, path in (
        ("ascending", ((0.66, -0.1, -0.95), (0.66, -0.08, -0.45), (0.6, 0.04, -0.26))),
        ("descending", ((-0.66, -0.16, -0.95), (-0.68, -0.17, -0.4), (-0.62, -0.1, -0.06))),
        ("transverse", ((0.58, 0.12, -0.28), (0.3, 0.36, -0.3), (-0.24, 0.37, -0.25), (-0.6, 0.0, -0.04))),
    ):
        radius = rng.uniform(0.085, 0.115)
        wall = tube(f"{name} colon", "soft", radius, path, rough=0.02, channel=4, within="cavity")
        stool = replace(wall, name=f"{name} stool", tissue="content", radii=(radius - 0.018, 0, 0))
        gas = tuple((x, y + 0.07, z) for x, y, z in path)
        colon += [wall, stool, tube(f"{name} gas", "air", 0.06, gas, rough=0.02, channel=3, within=stool.name)]
    return [*parts, *colon]


def _stomach() -> list[Part]:
    """Wall, fluid, and the gas that rises to the front of a patient who lies on the back; the pancreas behind."""
    fundus = solid("stomach", "soft", (-0.38, 0.06, 0.22), (0.2, 0.22, 0.22), rough=0.02, channel=1, within="cavity")
    path = ((-0.36, 0.16, 0.14), (-0.22, 0.3, 0.02), (0.0, 0.32, -0.06), (0.14, 0.26, -0.08))
    inside = replace(fundus, name="stomach content", tissue="content", radii=(0.175, 0.195, 0.195))
    pancreas = ((0.2, 0.05, -0.19), (0.15, 0.1, -0.07), (0.0, 0.09, 0.02), (-0.23, -0.03, 0.08), (-0.43, -0.14, 0.15))
    return [
        tube("pancreas", "pancreas", 0.062, pancreas, rough=0.015, channel=4),
        tube("antrum", "soft", 0.1, path, rough=0.01, channel=1, within="cavity"),
        tube("antrum content", "content", 0.07, path, rough=0.01, channel=1),
        fundus,
        inside,
        solid("stomach gas", "air", (-0.38, 0.28, 0.22), (0.3, 0.15, 0.3), within="stomach content"),
    ]


def _spleen_and_liver(rng: Rng) -> list[Part]:
    spleen = solid(
        "spleen", "spleen", (-0.6, -0.2, 0.2), (0.2, 0.32, 0.29), tilt=-0.35, rough=0.015, channel=1,
        notch=(0.3, 0.1, -0.05, 0.22), within="cavity", scale=0.07,
    )  # fmt: skip
    liver = solid(
        "liver", "liver", (0.43, 0.0, 0.06), (0.46, 0.54, 0.37), rough=0.02, channel=1, notch=(-0.42, 0.02, -0.48, 0.5),
        within="cavity", scale=0.05,
    )  # fmt: skip
    lobe = solid(
        "left lobe", "liver", (0.04, 0.3, 0.17), (0.36, 0.17, 0.17), tilt=0.1, rough=0.02, channel=1, within="cavity"
    )
    tree = []
    for i, (start, step, radius) in enumerate(_LIVER_VESSELS):
        path = walk(rng, start, step, 4, 0.025)
        tree.append(tube(f"vessel of the liver {i}", "vein", radius, path, within="liver", rough=0.004, channel=4))
    bile = solid("gallbladder", "fluid", (0.3, 0.27, -0.2), (0.075, 0.11, 0.11), scale=0.15)
    return [spleen, lobe, liver, *tree, bile]


def _lesions(rng: Rng, count: int) -> list[Part]:
    """Dark metastases of 12 to 24 mm radius."""
    parts = []
    for i, site in enumerate(rng.permutation(len(_LESION_SITES))[:count]):
        radii = (float(rng.uniform(0.075, 0.13)),) * 3
        shape = {"rough": 0.008, "channel": 4, "within": "liver", "scale": 0.08}
        parts.append(solid(f"lesion {i}", "lesion", _LESION_SITES[site], radii, **shape))
    return parts


def _kidneys() -> list[Part]:
    """In a bed of fat: bright cortex, darker pyramids, and a sinus of fat that opens to the middle."""
    parts = []
    for side, x, z in (("right", 0.44, -0.24), ("left", -0.44, -0.14)):
        turn = 0.45 if x > 0 else -0.45
        kidney = solid(
            f"{side} kidney", "cortex", (x, -0.24, z), (0.15, 0.17, 0.31), tilt=turn, rough=0.008, channel=3,
            notch=(-0.42 * x, 0.1, 0.0, 0.1), scale=0.07,
        )  # fmt: skip
        bed = solid(f"{side} bed", "fat", (x, -0.24, z), (0.23, 0.24, 0.42), tilt=turn, within="cavity")
        core = replace(kidney, name=f"{side} kidney core", radii=(0.095, 0.11, 0.25), within=kidney.name, scale=0.0)
        pyramids = Part(
            f"{side} kidney pyramids", "medulla", "noise", radii=(-0.2, 0.05, 0), channel=4, within=core.name
        )
        sinus = replace(core, name=f"{side} kidney sinus", tissue="fat", radii=(0.055, 0.05, 0.13))
        pelvis = replace(core, name=f"{side} kidney pelvis", tissue="fluid", radii=(0.028, 0.025, 0.08))
        parts += [bed, kidney, core, pyramids, sinus, pelvis]
    return parts


def _vessels(back: float) -> list[Part]:
    y = back + 0.56
    paths = {
        "aorta": ("blood", 0.066, ((-0.09, y - 0.08, 1.0), (-0.06, y - 0.02, 0.1), (-0.04, y + 0.02, -1.0))),
        "cava": ("vein", 0.072, ((0.12, y + 0.06, 1.0), (0.13, y + 0.02, 0.1), (0.11, y, -1.0))),
        "mesenteric artery": (
            "blood",
            0.026,
            ((-0.05, y + 0.02, 0.05), (-0.02, y + 0.16, -0.06), (0.01, y + 0.2, -0.6)),
        ),
        "renal vein": ("vein", 0.026, ((-0.26, y - 0.02, -0.13), (0.0, y + 0.09, -0.1), (0.24, y - 0.02, -0.2))),
    }
    return [tube(name, tissue, radius, path) for name, (tissue, radius, path) in paths.items()]
