"""Brightness of each tissue: one model per cohort, like CT, like MR weightings, or random."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medfewshot.settings import read_yaml

Rng = np.random.Generator
Contrast = dict[str, tuple[float, float]]
"""Tissue -> (mean, standard deviation of its texture), about 0 (air) to 1."""

RANGES: dict[str, dict[str, tuple[float, float]]] = read_yaml(Path(__file__).with_name("contrast.yaml"))
"""Tissue -> style -> range of its mean."""
STYLES = {"ct": 0.35, "t1": 0.2, "t2": 0.25, "any": 0.2}
"""Name -> how often; with ``any``, every tissue may have any brightness."""


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
