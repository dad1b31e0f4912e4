"""Template of an upper abdomen on contrast-enhanced CT; ``abdomen.yaml`` contains what all patients share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medfewshot.settings import read_yaml
from medfewshot.synthetic.blocks import FAR, Rng, spine, vessel_path
from medfewshot.synthetic.parts import Part, solid, tube

MIDDLE = (0.0, 0.0, 0.0)
_SHARED = read_yaml(Path(__file__).with_name("abdomen.yaml"))
TISSUES: dict[str, tuple[float, float, float]] = {name: tuple(values) for name, values in _SHARED["tissues"].items()}
"""Tissue -> mean in HU, its standard deviation between cases, and the standard deviation of its texture."""
STRUCTURES: dict[str, tuple[str, ...]] = {name: tuple(begins) for name, begins in _SHARED["structures"].items()}
"""Structure of the cohort -> beginnings of the names of its parts."""


def abdomen(rng: Rng, lesions: int) -> list[Part]:
    """Draw the parts of one patient, from the outside in.

    Args:
        rng: Source of the draws.
        lesions: Number of liver lesions, 0 to 4.
    """
    depth = rng.uniform(0.66, 0.72)
    front = 0.07 - depth + 0.56  # of the spine
    return [
        *_body(rng, depth),
        *_shared("chest"),
        *_bowel(rng, depth),
        *_shared("stomach"),
        *_shared("liver"),
        *_liver_vessels(rng),
        *_shared("gallbladder"),
        *_lesions(rng, lesions),
        *_shared("kidneys"),
        *(replace(one, path=tuple((x, y + front, z) for x, y, z in one.path)) for one in _shared("vessels")),
        *spine(rng, 0.05 - depth),
    ]


def _shared(group: str) -> list[Part]:
    """Return the parts of a group in ``abdomen.yaml``."""
    return [Part(**{field: _tuples(value) for field, value in part.items()}) for part in _SHARED[group]]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _body(rng: Rng, depth: float) -> list[Part]:
    """Draw couch, skin, fat, the muscle wall with ribs, and the cavity."""
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


def _bowel(rng: Rng, depth: float) -> list[Part]:
    """Draw loops of small bowel in fat, and a frame of colon with stool and gas."""
    parts = [solid("belly", "fat", (0, 0.12, -0.62), (0.62, depth * 0.62, 0.52), within="cavity")]
    for i in range(30):
        start = rng.uniform((-0.45, -0.05, -0.95), (0.45, 0.4, -0.25))
        path = vessel_path(rng, tuple(start), tuple(rng.normal(0, 0.06, 3)), 3, 0.06)
        wall = tube(f"loop {i}", "soft", rng.uniform(0.055, 0.08), path, rough=0.006, channel=4, within="belly")
        inside = replace(wall, name=f"inside of loop {i}", tissue="air" if rng.random() < 0.05 else "content")
        parts += [wall, replace(inside, radii=(wall.radii[0] - 0.018, 0, 0))]
    colon = []
    for name, points in _SHARED["colon"].items():
        radius, path = rng.uniform(0.085, 0.115), _tuples(points)
        wall = tube(f"{name} colon", "soft", radius, path, rough=0.02, channel=4, within="cavity")
        stool = replace(wall, name=f"{name} stool", tissue="content", radii=(radius - 0.018, 0, 0))
        gas = tuple((x, y + 0.07, z) for x, y, z in path)
        colon += [wall, stool, tube(f"{name} gas", "air", 0.06, gas, rough=0.02, channel=3, within=stool.name)]
    return [*parts, *colon]


def _liver_vessels(rng: Rng) -> list[Part]:
    tree = []
    for i, vessel in enumerate(_SHARED["liver vessels"]):
        path, name = vessel_path(rng, vessel["start"], vessel["step"], 4, 0.025), f"vessel of the liver {i}"
        tree.append(tube(name, "vein", vessel["radius"], path, within="liver", rough=0.004, channel=4))
    return tree


def _lesions(rng: Rng, count: int) -> list[Part]:
    """Draw dark metastases of 12 to 24 mm radius."""
    sites = _tuples(_SHARED["lesion sites"])
    parts = []
    for i, site in enumerate(rng.permutation(len(sites))[:count]):
        radii = (float(rng.uniform(0.075, 0.13)),) * 3
        shape = {"rough": 0.008, "channel": 4, "within": "liver", "scale": 0.08}
        parts.append(solid(f"lesion {i}", "lesion", sites[site], radii, **shape))
    return parts
