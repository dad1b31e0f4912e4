"""Is the instant draft ever better than the full one, and does the expected Dice tell?

    python -m lab.studies.instant_draft DATA_SET --drawn slices --steps 30 --first 0

Adapts to support-pool scans as the workbench does: for an instant draft, and fully with so many steps. Prints, for two
other scans of the pool, the true Dice and the expected Dice of both drafts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.datasets import read_dataset
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import IGNORED
from medfewshot.workbench.choice import assess
from medfewshot.workbench.learn import INSTANT
from medfewshot.workflow import LabelledScans, adapt, read_supports

PLACES = (0.25, 0.5, 0.75)
QUERIES = (6, 7)


def only_slices(scans: LabelledScans, axis: int) -> LabelledScans:
    """Keep three slices of the first label, and ignore the others."""
    label = scans.labels[0]
    shown = np.flatnonzero(label.data[0].any(axis=tuple(one for one in range(3) if one != axis)))
    picked = [int(shown[int(len(shown) * place)]) for place in PLACES]
    partly = np.full_like(label.data, IGNORED)
    there = (slice(None),) * (axis + 1) + (picked,)
    partly[there] = label.data[there]
    return replace(scans, labels=[replace(label, data=partly)])


def main() -> None:
    """Print one line for the instant and one for the full adaptation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--drawn", choices=("slices", "scan", "three scans"), default="slices")
    parser.add_argument("--axis", type=int, default=2, help="of the drawn slices")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first labelled scan")
    given = parser.parse_args()
    dataset = read_dataset(given.dataset)
    shots = 3 if given.drawn == "three scans" else 1
    chosen = dataset.labelled[given.first : given.first + shots]
    scans = read_supports(replace(dataset, cases=tuple(chosen)))
    if given.drawn == "slices":
        scans = only_slices(scans, given.axis)
    queries = read_supports(replace(dataset, cases=tuple(dataset.labelled[number] for number in QUERIES)))
    for name, settings in (("instant", INSTANT), ("full", AdaptSettings(steps=given.steps))):
        segmenter = adapt(scans, settings)
        for image, label in zip(queries.images, queries.labels, strict=True):
            found = segmenter.segment(image)
            true = np.nanmean([dice(found.labels == value, label.data[0] == value) for value in dataset.labels])
            expected = 1 - assess(segmenter, image, found).uncertainty
            print(f"{name}: {image.name} Dice {true:.3f}, expected {expected:.2f}", flush=True)


if __name__ == "__main__":
    main()
