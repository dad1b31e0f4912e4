"""How many slices must be drawn for a cohort? A simulated annotator draws and corrects the reference, slice by slice.

    python -m lab.studies.effort abd-mr-chaos -o lab/records/effort/abd-mr-chaos.csv

The cohort is the first scans of the support pool. Four ways to annotate it start with the same random scan:

``workbench``  draws three slices of the first scan. Then it takes the scan that the workbench puts first, corrects the
               three worst slices of its draft, and accepts the mask: all of it becomes an example.
``slices``     the same, but only the corrected slices become examples.
``random``     as ``workbench``, with scans in random order.
``whole``      draws every slice of a random scan that shows a structure.

After each scan the segmenter is adapted again, from the weights, and segments the cohort. A row has the slices that
were drawn or corrected so far, the mean Dice of the segmenter over all scans, and that of the masks (what was drawn or
accepted, and drafts for the rest). Rows that the output has already are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.datasets import read_dataset
from medfewshot.episodes import fixed_split
from medfewshot.io import write_csv
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import IGNORED, Volume
from medfewshot.workbench.choice import Assessment, assess, in_order_of_need
from medfewshot.workflow import LabelledScans, adapt, read_supports

PLACES = (0.25, 0.5, 0.75)
"""Where the first three slices lie in the extent of the structures."""
WAYS = ("workbench", "slices", "random", "whole")


@dataclass
class Annotator:
    """Labels one scan after the other.

    Args:
        cohort: All scans with their references.
        way: One of :data:`WAYS`.
        order: Scans in random order.
        corrected: Most slices to correct in a draft.
    """

    cohort: LabelledScans
    way: str
    order: Sequence[int]
    corrected: int
    examples: dict[int, Volume] = field(default_factory=dict)
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    drafts: list[np.ndarray] = field(default_factory=list)
    assessments: dict[str, Assessment] = field(default_factory=dict)
    slices: int = 0

    def label(self) -> None:
        """Draw in the next scan, or correct its draft."""
        left = [number for number in self.order if number not in self.examples]
        chosen = left[0]
        if self.way in ("workbench", "slices") and self.assessments:
            chosen = int(in_order_of_need({str(number): self.assessments[str(number)] for number in left})[0])
        label = self.cohort.labels[chosen]
        truth = label.data[0]
        shown = np.flatnonzero(truth.any(axis=(0, 1)))
        if self.way == "whole":
            touched, rest, taught = shown, np.zeros_like(truth), np.zeros_like(truth)
        elif not self.drafts:
            touched = np.unique([shown[int(len(shown) * place)] for place in PLACES])
            rest, taught = np.zeros_like(truth), np.full_like(truth, IGNORED)
        else:
            rest = self.drafts[chosen].astype(truth.dtype)
            wrong = (rest != truth).sum(axis=(0, 1))
            worst = np.argsort(-wrong, kind="stable")[: self.corrected]
            touched = worst[wrong[worst] > 0]
            taught = np.full_like(truth, IGNORED) if self.way == "slices" else rest.copy()
        self.slices += len(touched)
        mask = rest.copy()
        for labels in (mask, taught):
            labels[..., touched] = truth[..., touched]
        self.masks[chosen], self.examples[chosen] = mask, replace(label, data=taught[None])

    def learn(self, settings: AdaptSettings) -> tuple[float, float]:
        """Adapt to the examples and draft all scans.

        Returns:
            Mean Dice over scans and structures: of the segmenter, and of the masks that a user would export.
        """
        images = [self.cohort.images[number] for number in self.examples]
        segmenter = adapt(LabelledScans(images, list(self.examples.values()), self.cohort.names), settings)
        self.drafts = []
        for number, image in enumerate(self.cohort.images):
            found = segmenter.segment(image)
            self.drafts.append(found.labels)
            self.assessments[str(number)] = assess(segmenter, image, found)
        partly = next(iter(self.masks)) if self.way != "whole" else None  # the first scan has three slices, and a draft
        kept = {number: mask for number, mask in self.masks.items() if number != partly}
        return self.score(dict(enumerate(self.drafts))), self.score({**dict(enumerate(self.drafts)), **kept})

    def score(self, found: dict[int, np.ndarray]) -> float:
        """Mean Dice of label maps over scans and structures."""
        each = []
        for number, labels in found.items():
            truth = self.cohort.labels[number].data[0]
            each.append(np.nanmean([dice(labels == value, truth == value) for value in self.cohort.names]))
        return float(np.mean(each))


def simulate(annotator: Annotator, rounds: int, settings: AdaptSettings) -> list[dict[str, Any]]:
    """Return one annotator's rows, one after each scan."""
    rows = []
    for scans in range(1, rounds + 1):
        annotator.label()
        segmenter, masks = annotator.learn(settings)
        rows.append({"scans": scans, "slices": annotator.slices, "dice": round(segmenter, 4), "masks": round(masks, 4)})
        print(annotator.way, *rows[-1].values(), flush=True)
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    """Run the study and write a CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset", help="name of a data set with a fixed split, below MEDFEWSHOT_DATA")
    parser.add_argument("--scans", type=int, default=10, help="size of the cohort")
    parser.add_argument("--rounds", type=int, default=6, help="scans to label; 'whole' labels three")
    parser.add_argument("--corrected", type=int, default=3, help="most slices to correct in a draft")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random orders")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--steps", type=int, default=40, help="training steps after each scan")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    dataset = read_dataset(Path(os.environ["MEDFEWSHOT_DATA"]) / given.dataset)
    pool = list(fixed_split(given.dataset)[0])[: given.scans]
    cases = sorted(dataset.labelled, key=lambda case: case.image_path.name)
    cohort = read_supports(replace(dataset, cases=tuple(cases[number] for number in pool)))
    settings = AdaptSettings(learner="finetune", steps=given.steps, quality="draft", budget_seconds=None)
    rows = read_rows(given.output)
    for seed in given.seeds:
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        for way in given.ways:
            if any((row["way"], int(row["seed"])) == (way, seed) for row in rows):
                continue
            rounds = 3 if way == "whole" else given.rounds
            annotator = Annotator(cohort, way, order, given.corrected)
            about = {"dataset": given.dataset, "way": way, "seed": seed}
            rows += [{**about, **row} for row in simulate(annotator, rounds, settings)]
            write_csv(given.output, rows)


if __name__ == "__main__":
    main()
