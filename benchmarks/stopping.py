"""Would adaptation be better for stopping early, and does a support that is left out tell when?

    python benchmarks/stopping.py --data ../shared/data

K = 5 supports of the pool: one is left out and the other four are adapted to, from the package's weights, for 100
steps. Prints the Dice of the support left out and of other pool subjects every 25 steps, largest pieces alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from more_than_supports import STEPS, Run, largest, probabilities
from pool import draw_from_pool, mean_dice
from torch import Tensor

CELLS = [("Task04_Hippocampus", 100), ("abd-mr-chaos", 100)]
EVERY, OTHERS = 25, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    for dataset, number in CELLS:
        draw = draw_from_pool(arguments.data, dataset, 5, number, OTHERS)
        support = replace(draw.support, images=draw.support.images[:-1], labels=draw.support.labels[:-1])
        structures = [draw.plan.label_values.index(v) + 1 for v in draw.plan.keep_largest]
        run = Run(support)

        def dice_of(image: Tensor, label: Tensor, run=run, draw=draw, structures=structures) -> float:  # type: ignore[no-untyped-def]
            found = probabilities(run.segmenter, image, draw.plan).argmax(0).numpy()
            return mean_dice(torch.from_numpy(largest(found, structures)), label, draw.plan.classes)

        for step in range(EVERY, STEPS + 1, EVERY):
            run.to(step)
            left_out = dice_of(draw.support.images[-1], draw.support.labels[-1])
            others = [dice_of(image, label) for image, label in zip(draw.images, draw.labels, strict=True)]
            print(f"| {dataset} | {step} | {left_out:.3f} | {sum(others) / len(others):.3f} |", flush=True)


if __name__ == "__main__":
    main()
