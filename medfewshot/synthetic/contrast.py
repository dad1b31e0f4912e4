"""How bright each tissue is: one model per cohort, in the manner of CT, of MR weightings, or of nothing known."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator
Contrast = dict[str, tuple[float, float]]
"""Tissue -> (mean, standard deviation of its texture), about 0 (air) to 1."""

_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "air": ((0.0, 0.0), (0.0, 0.02), (0.0, 0.02)),
    "lung": ((0.06, 0.12), (0.02, 0.08), (0.03, 0.1)),
    "fat": ((0.15, 0.22), (0.7, 1.0), (0.1, 0.9)),
    "fluid": ((0.38, 0.44), (0.08, 0.2), (0.8, 1.0)),
    "muscle": ((0.48, 0.54), (0.3, 0.42), (0.15, 0.28)),
    "muscle 2": ((0.5, 0.6), (0.32, 0.45), (0.15, 0.3)),
    "disc": ((0.5, 0.58), (0.25, 0.4), (0.2, 0.7)),
    "content": ((0.35, 0.6), (0.15, 0.7), (0.3, 0.95)),
    "vein": ((0.5, 0.8), (0.15, 0.5), (0.1, 0.6)),
    "blood": ((0.5, 0.95), (0.1, 0.9), (0.05, 0.9)),
    "bone": ((0.95, 1.3), (0.02, 0.12), (0.02, 0.12)),
    "marrow": ((0.6, 0.85), (0.5, 0.85), (0.25, 0.7)),
    "soft": ((0.46, 0.6), (0.3, 0.5), (0.3, 0.55)),
    "grey": ((0.5, 0.56), (0.38, 0.46), (0.5, 0.62)),
    "grey 2": ((0.5, 0.58), (0.44, 0.56), (0.45, 0.56)),
    "white": ((0.44, 0.5), (0.55, 0.68), (0.34, 0.44)),
    "lesion": ((0.36, 0.52), (0.15, 0.75), (0.3, 1.0)),
}
"""Tissue -> range of its mean in the manner of CT, of T1 and of T2."""
_ORGANS = ((0.48, 0.72), (0.3, 0.62), (0.2, 0.65))
"""The same for every other tissue."""
STYLES = {"ct": 0.35, "t1": 0.2, "t2": 0.25, "any": 0.2}
"""Name -> how often; with ``any``, every tissue may have any brightness."""


def draw_style(rng: Rng) -> str:
    """Draw the name of a style."""
    return list(STYLES)[int(rng.choice(len(STYLES), p=list(STYLES.values())))]


def draw_contrast(style: str, tissues: set[str], rng: Rng) -> Contrast:
    """Draw a mean and a texture for every tissue. Organs of one patient are alike in CT, and differ more in MR."""
    column = list(STYLES).index(style)
    contrast = {}
    for tissue in sorted(tissues):
        low, high = (0.0, 1.0) if style == "any" else _RANGES.get(tissue, _ORGANS)[column]
        mean = float(rng.uniform(low, high))
        if style == "any" and tissue in ("air", "lung"):
            mean *= 0.15
        mottled = 0.15 if tissue in ("content", "lung") else 0.05
        texture = float(rng.uniform(0.0, mottled)) * (0.2 if tissue == "air" else 1.0)
        contrast[tissue] = (mean, texture)
    return contrast
