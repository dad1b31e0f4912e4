"""Support-pool subjects of the fixed splits on the planned grid: what choices are made on, never the query sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medfewshot.episodes import draw_support, fixed_split
from medfewshot.io import read_image, read_label
from medfewshot.planning import labels_to_plan, make_plan, make_support, to_plan
from medfewshot.settings import PlanSettings
from medfewshot.types import Plan, Support


@dataclass(frozen=True)
class Draw:
    """K supports and other subjects of one pool, planned from the supports."""

    plan: Plan
    support: Support
    images: tuple[Tensor, ...]
    """Of the other subjects: ``(C, *S)`` float32."""
    labels: tuple[Tensor, ...]
    """``(*S)`` int64; only for scoring."""
    subjects: tuple[int, ...]


def draw_from_pool(data: Path, dataset: str, shots: int, draw: int, others: int) -> Draw:
    """Return ``shots`` supports by ``default_rng(draw)``, and the first ``others`` of the pool's other subjects."""
    pool = list(fixed_split(dataset)[0])
    chosen = draw_support(pool, shots, draw)
    rest = [i for i in pool if i not in chosen][:others]
    return plan_draw(data, dataset, chosen, rest, PlanSettings(modality="MR"))


def plan_draw(data: Path, dataset: str, chosen: Sequence[int], rest: Sequence[int], settings: PlanSettings) -> Draw:
    """Supports ``chosen`` and other subjects ``rest``, by their place in the dataset, on the grid of the supports."""
    files = sorted((data / dataset / "imagesTr").glob("*.nii.gz"))
    images = {i: read_image(files[i]) for i in (*chosen, *rest)}
    labels = {i: read_label(data / dataset / "labelsTr" / files[i].name) for i in (*chosen, *rest)}
    plan = make_plan([images[i] for i in chosen], [labels[i] for i in chosen], settings=settings)
    return Draw(
        plan,
        make_support([images[i] for i in chosen], [labels[i] for i in chosen], plan),
        tuple(to_plan(images[i], plan).image for i in rest),
        tuple(labels_to_plan(labels[i], plan) for i in rest),
        tuple(rest),
    )


def mean_dice(found: Tensor, truth: Tensor, classes: int) -> float:
    """Return the mean Dice over the structures in ``truth``; a missed one counts 0."""
    scores = []
    for index in range(1, classes):
        a, b = found == index, truth == index
        if b.any():
            scores.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return float(torch.tensor(scores).mean())
