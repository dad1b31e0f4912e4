"""Queries unlike the support, and structures that were not learned: who is to be believed? Support-pool subjects alone.

    python -m lab.studies.unlike_support --data ../shared/data            # all, two to five minutes a cell on one core
    python -m lab.studies.unlike_support --data ../shared/data --cells 1

Each cell adapts a hybrid and prints mean Dice on the planned grid, no component kept: of the network, of the one half
way back to its start, of the atlas, of the hybrid that takes the network for stable, for one that has learned
everything and for meta-trained, and of the hybrid.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lab.studies.pool import Draw, mean_dice, plan_draw
from medfewshot.episodes import fixed_split
from medfewshot.learners import Finetune, Hybrid, load_start
from medfewshot.learners.base import OVERLAP
from medfewshot.learners.hybrid import HybridSegmenter
from medfewshot.learners.hybrid_fusion import WEIGHT, stabilise
from medfewshot.settings import PlanSettings


@dataclass(frozen=True)
class Cell:
    """One experiment: a data set, a draw of supports, and the weights."""

    dataset: str
    modality: str
    weights: str | None
    draw: int
    others: int
    shots: int = 1
    first: int | None = None
    """The support by its place in the pool; None: the first ones of the draw."""
    labels: tuple[int, ...] | None = None
    steps: int = 400


FOUR = (1, 2, 3, 6)
CELLS = [
    Cell("abd-ct-sabs", "CT", "novel", 100, 6, first=12, labels=FOUR),
    Cell("abd-ct-sabs", "CT", "novel", 100, 6, first=14, labels=FOUR),
    Cell("abd-ct-sabs", "CT", "novel", 100, 6, first=3, labels=FOUR),
    Cell("abd-mr-chaos", "MR", "default", 101, 8),
    Cell("card-mr-mscmr", "MR", "default", 100, 8, steps=200),
    Cell("Task04_Hippocampus", "MR", "default", 100, 20),
    Cell("lung-nodule-lidc", "CT", "novel", 100, 12),
    Cell("abd-ct-sabs", "CT", None, 101, 5),
    Cell("abd-ct-sabs", "CT", None, 100, 5, shots=5),
    Cell("abd-ct-sabs", "CT", None, 100, 6, first=12, labels=FOUR),
    Cell("abd-ct-sabs", "CT", None, 100, 6, first=3, labels=FOUR),
    Cell("abd-ct-sabs", "CT", None, 100, 5, first=14),
    Cell("abd-mr-chaos", "MR", None, 101, 8),
    Cell("card-mr-mscmr", "MR", None, 100, 8),
    Cell("Task04_Hippocampus", "MR", None, 100, 20),
    Cell("lung-nodule-lidc", "CT", None, 100, 12),
]


def draw_of(cell: Cell, data: Path) -> Draw:
    """Draw the supports and queries of a cell."""
    pool = list(fixed_split(cell.dataset)[0])
    order = [int(i) for i in np.random.default_rng(cell.draw).permutation(len(pool))]
    if cell.first is not None:
        order = [cell.first, *(i for i in order if i != cell.first)]
    subjects = [pool[i] for i in order]
    settings = PlanSettings(modality=cell.modality, labels=cell.labels)
    rest = subjects[cell.shots : cell.shots + cell.others]
    return plan_draw(data, cell.dataset, subjects[: cell.shots], rest, settings)


@torch.no_grad()
def scores(hybrid: HybridSegmenter, image: torch.Tensor, label: torch.Tensor, classes: int) -> list[float]:
    """Dice of network, half-way network, atlas, hybrid before, hybrid."""
    network, votes = hybrid._slide(hybrid.network, image, OVERLAP), hybrid.atlas.votes(image)
    trusting = HybridSegmenter(
        hybrid.network, hybrid.atlas, patch_size=hybrid.patch_size, atlas_weight=WEIGHT, atlas_trust=hybrid.atlas_trust
    )
    before = trusting.fuse(network, votes)[0]
    alone = network.argmax(0)
    interpolated = hybrid._slide(hybrid.interpolated, image, OVERLAP) if hybrid.interpolated is not None else network
    half_way, stability = interpolated.argmax(0), None
    if hybrid.interpolated is not None:
        network, stability = stabilise(network, interpolated)
    found = [alone, half_way, votes.argmax(0), before.argmax(0), hybrid.fuse(network, votes, stability)[0].argmax(0)]
    return [mean_dice(one, label, classes) for one in found]


def main() -> None:
    """Print the Dice of each learner in each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cells", type=int, help="only the first so many")
    arguments = parser.parse_args()
    print("network, half way, atlas, hybrid before, hybrid")
    for cell in CELLS[: arguments.cells]:
        draw = draw_of(cell, arguments.data)
        start = load_start(cell.weights).module if cell.weights else None
        hybrid = Hybrid(Finetune(steps=cell.steps, start=start)).adapt(draw.support)  # type: ignore[arg-type]
        each = [
            scores(hybrid, image, label, draw.plan.classes)
            for image, label in zip(draw.images, draw.labels, strict=True)
        ]
        print(cell, [round(float(value), 3) for value in np.mean(each, axis=0)], flush=True)


if __name__ == "__main__":
    main()
