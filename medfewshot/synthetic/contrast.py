"""How bright each tissue is: one model per cohort, in the manner of CT, of MR weightings, or of nothing known."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator
Contrast = dict[str, tuple[float, float]]
"""Tissue -> (mean, standard deviation of its texture), about 0 (air) to 1."""

_CT = {
    "air": (0.0, 0.0),
    "lung": (0.06, 0.12),
    "fat": (0.15, 0.22),
    "fluid": (0.38, 0.44),
    "muscle": (0.48, 0.54),
    "muscle 2": (0.5, 0.6),
    "disc": (0.5, 0.58),
    "content": (0.35, 0.6),
    "vein": (0.5, 0.8),
    "blood": (0.5, 0.95),
    "bone": (0.95, 1.3),
    "marrow": (0.6, 0.85),
    "soft": (0.46, 0.6),
    "grey": (0.5, 0.56),
    "grey 2": (0.5, 0.58),
    "white": (0.44, 0.5),
    "lesion": (0.36, 0.52),
}
_T1 = {
    "air": (0.0, 0.02),
    "lung": (0.02, 0.08),
    "fat": (0.7, 1.0),
    "fluid": (0.08, 0.2),
    "muscle": (0.3, 0.42),
    "muscle 2": (0.32, 0.45),
    "disc": (0.25, 0.4),
    "content": (0.15, 0.7),
    "vein": (0.15, 0.5),
    "blood": (0.1, 0.9),
    "bone": (0.02, 0.12),
    "marrow": (0.5, 0.85),
    "soft": (0.3, 0.5),
    "grey": (0.38, 0.46),
    "grey 2": (0.44, 0.56),
    "white": (0.55, 0.68),
    "lesion": (0.15, 0.75),
}
_T2 = {
    "air": (0.0, 0.02),
    "lung": (0.03, 0.1),
    "fat": (0.1, 0.9),
    "fluid": (0.8, 1.0),
    "muscle": (0.15, 0.28),
    "muscle 2": (0.15, 0.3),
    "disc": (0.2, 0.7),
    "content": (0.3, 0.95),
    "vein": (0.1, 0.6),
    "blood": (0.05, 0.9),
    "bone": (0.02, 0.12),
    "marrow": (0.25, 0.7),
    "soft": (0.3, 0.55),
    "grey": (0.5, 0.62),
    "grey 2": (0.45, 0.56),
    "white": (0.34, 0.44),
    "lesion": (0.3, 1.0),
}
_ORGANS = {"ct": (0.48, 0.72), "t1": (0.3, 0.62), "t2": (0.2, 0.65)}
STYLES = {"ct": (0.35, _CT), "t1": (0.2, _T1), "t2": (0.25, _T2), "any": (0.2, {})}
"""Name -> (how often, range of each tissue's mean); ``any``: every tissue may have any brightness."""


def draw_style(rng: Rng) -> str:
    names = list(STYLES)
    return names[int(rng.choice(len(names), p=[STYLES[name][0] for name in names]))]


def draw_contrast(style: str, tissues: set[str], rng: Rng) -> Contrast:
    """Organs of one patient have similar brightness in CT, and differ more in MR."""
    ranges = STYLES[style][1]
    contrast = {}
    for tissue in sorted(tissues):
        low, high = ranges.get(tissue) or _ORGANS.get(style, (0.0, 1.0))
        mean = float(rng.uniform(low, high))
        if style == "any" and tissue in ("air", "lung"):
            mean *= 0.15
        mottled = 0.15 if tissue in ("content", "lung") else 0.05
        texture = float(rng.uniform(0.0, mottled)) * (0.2 if tissue == "air" else 1.0)
        contrast[tissue] = (mean, texture)
    return contrast
