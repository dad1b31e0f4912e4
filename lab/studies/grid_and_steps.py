"""What do a finer grid and more steps gain? Support-pool subjects alone; Dice on the original grid.

    python -m lab.studies.grid_and_steps --data ../shared/data abd-ct-sabs --settings '{"quality": "best"}'

One call is one adaptation. It prints its seconds of one core, the spacing, and per structure the ceiling
of the grid and the mean Dice over other subjects of the pool. With ``--ceilings`` it only plans.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from medfewshot.datasets import read_dataset
from medfewshot.episodes import draw_support, fixed_split
from medfewshot.io import read_image, read_label
from medfewshot.planning import make_plan
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import Plan
from medfewshot.workflow import adapt, read_supports

POOLS = {"cord-mr-gm": 3, "fetalhead-us2d": 6, "carotid-us2d": 7, "octa-faz2d": 6, "heart-mr-hvsmr2d": 9}
"""Sizes of the pools that are no fixed split of the package (README of the data)."""


def main() -> None:
    """Adapt once, segment other subjects of the pool, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--labels")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON: settings of the adaptation")
    parser.add_argument("--ceilings", action="store_true", help="only print the grid and its ceilings")
    given = parser.parse_args()
    settings = AdaptSettings(**{"labels": given.labels, "budget_seconds": None, "device": "cpu", **given.settings})
    cases = read_dataset(given.data / given.dataset).labelled
    pool = list(range(POOLS[given.dataset]) if given.dataset in POOLS else fixed_split(given.dataset)[0])
    chosen = draw_support(pool, given.shots, given.draw)
    rest = [number for number in pool if number not in chosen][: given.queries]
    begun = time.process_time()
    scans = read_supports([cases[number] for number in chosen])
    if given.ceilings:
        print_ceilings(given.dataset, make_plan(scans.images, scans.labels, names=scans.names, settings=settings))
        return
    segmenter = adapt(scans, settings)
    seconds = time.process_time() - begun
    plan = segmenter.plan
    scores: dict[int, list[float]] = {value: [] for value in plan.labels}
    for number in rest:
        truth = read_label(cases[number].label_path).data[0]
        found = segmenter.segment(read_image(cases[number].image_paths)).labels
        for value, values in scores.items():
            if (truth == value).any():
                values.append(dice(found == value, truth == value))
    means = {plan.labels[value]: round(float(np.mean(values)), 3) for value, values in scores.items()}
    print(
        json.dumps(
            {
                "dataset": given.dataset,
                "shots": given.shots,
                "draw": given.draw,
                "queries": rest,
                "settings": given.settings,
                "spacing_mm": [round(mm, 2) for mm in plan.spacing_mm],
                "patch": plan.patch_size,
                "core_seconds": round(seconds),
                "segment_core_seconds": round((time.process_time() - begun - seconds) / len(rest)),
                "dice": round(float(np.mean(list(means.values()))), 4),
                "ceilings": {plan.labels[value]: round(score, 3) for value, score in plan.ceilings.items()},
                "structures": means,
            }
        ),
        flush=True,
    )


def print_ceilings(dataset: str, plan: Plan) -> None:
    """Print a row of a table: data set, spacing, the structure with the lowest ceiling, and those below 0.98."""
    lowest = min(plan.ceilings, key=lambda value: plan.ceilings[value])
    below = sum(dice < 0.98 for dice in plan.ceilings.values())
    mm = " x ".join(f"{one:.3g}" for one in plan.spacing_mm)
    print(f"| {dataset} | {mm} | {plan.labels[lowest]} {plan.ceilings[lowest]:.3f} | {below} of {len(plan.ceilings)} |")


if __name__ == "__main__":
    main()
