"""How many slices must be drawn for a cohort? A simulated annotator draws the reference, slice by slice.

    python -m lab.studies.effort DATA_SET --scans 8 --rounds 4 --seeds 2 -o effort.csv

Three ways to annotate start with the same scan. ``workbench``: three slices of the scan that the segmenter knows least
about. ``random``: three slices of a random scan. ``whole``: every slice of a random scan that shows a structure. After
each scan the segmenter is adapted again and every scan of the cohort is segmented and scored. The table has the mean
Dice of the cohort against the slices drawn so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.bundle import VolumeSegmenter
from medfewshot.datasets import read_dataset
from medfewshot.io import write_csv
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import IGNORED, Volume
from medfewshot.workbench.choice import Assessment, assess, in_order_of_need
from medfewshot.workflow import LabelledScans, adapt, read_supports

PLACES = (0.25, 0.5, 0.75)
"""Where the three slices lie in the extent of the structures."""
WAYS = ("workbench", "random", "whole")


@dataclass
class Annotator:
    """Draws the reference of one scan after the other.

    Args:
        cohort: All scans with their references.
        way: One of :data:`WAYS`.
        order: Scans in random order.
    """

    cohort: LabelledScans
    way: str
    order: Sequence[int]
    drawn: dict[int, Volume] = field(default_factory=dict)
    slices: int = 0

    def draw(self, assessments: dict[str, Assessment]) -> None:
        """Draw in one more scan."""
        left = [number for number in self.order if number not in self.drawn]
        chosen = left[0]
        if self.way == "workbench" and assessments:
            chosen = int(in_order_of_need({str(number): assessments[str(number)] for number in left})[0])
        label = self.cohort.labels[chosen]
        shown = np.flatnonzero(label.data[0].any(axis=(0, 1)))
        if self.way == "whole":
            self.drawn[chosen], self.slices = label, self.slices + len(shown)
            return
        picked = sorted({int(shown[int(len(shown) * place)]) for place in PLACES})
        partly = np.full_like(label.data, IGNORED)
        partly[..., picked] = label.data[..., picked]
        self.drawn[chosen], self.slices = replace(label, data=partly), self.slices + len(picked)

    def learn(self, settings: AdaptSettings) -> VolumeSegmenter:
        """Adapt to what is drawn so far."""
        images = [self.cohort.images[number] for number in self.drawn]
        return adapt(LabelledScans(images, list(self.drawn.values()), self.cohort.names), settings)


def score(segmenter: VolumeSegmenter, cohort: LabelledScans) -> tuple[float, dict[str, Assessment]]:
    """Segment the cohort; the mean Dice over scans and structures, and how much a label of each scan would teach."""
    means, assessments = [], {}
    for number, (image, label) in enumerate(zip(cohort.images, cohort.labels, strict=True)):
        found = segmenter.segment(image)
        values = [dice(found.labels == value, label.data[0] == value) for value in cohort.names]
        means.append(float(np.nanmean(values)))
        assessments[str(number)] = assess(segmenter, image, found)
    return float(np.mean(means)), assessments


def simulate(cohort: LabelledScans, way: str, seed: int, rounds: int, settings: AdaptSettings) -> list[dict[str, Any]]:
    """Return one annotator; a row after each scan."""
    order = np.random.default_rng(seed).permutation(len(cohort.images)).tolist()
    annotator, rows = Annotator(cohort, way, order), []
    assessments: dict[str, Assessment] = {}
    for drawn in range(1, rounds + 1):
        annotator.draw(assessments)
        mean, assessments = score(annotator.learn(settings), cohort)
        rows.append({"way": way, "seed": seed, "scans": drawn, "slices": annotator.slices, "dice": round(mean, 4)})
        print(*rows[-1].values(), flush=True)
    return rows


def main() -> None:
    """Run the study and write a CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--scans", type=int, default=8, help="size of the cohort: the first scans of the data set")
    parser.add_argument("--rounds", type=int, default=4, help="scans to draw in")
    parser.add_argument("--seeds", type=int, default=2, help="random orders")
    parser.add_argument("--steps", type=int, default=20, help="training steps after each scan")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    dataset = read_dataset(given.dataset)
    cohort = read_supports(replace(dataset, cases=dataset.labelled[: given.scans]))
    settings = AdaptSettings(learner="finetune", steps=given.steps, learning_rate=1e-3, budget_seconds=None)
    rows = [
        row
        for seed in range(given.seeds)
        for way in WAYS
        for row in simulate(cohort, way, seed, given.rounds, settings)
    ]
    write_csv(given.output, rows)


if __name__ == "__main__":
    main()
