"""HD95 of 13 organs in a 256 x 256 x 128 volume: ``medfewshot.metrics`` against ``monai.metrics``, both on the CPU.

    python -m lab.studies.hd95

Both get the same 13 pairs of masks, prepared beforehand (MONAI: one-hot tensors), and one thread. The third line is
every score of a case from its two label maps, which is what an evaluation pays. Times are the best of ``--repeats``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance

from medfewshot.evaluation import evaluate_arrays
from medfewshot.metrics import METRICS

SHAPE = (256, 256, 128)
SPACING_MM = (0.9, 0.9, 2.5)
# Largest semi-axis in voxels: liver and spleen down to adrenal gland and vessel.
RADII = (60, 45, 40, 30, 28, 25, 20, 16, 14, 12, 10, 8, 5)


def main() -> None:
    """Print times and differences of the two implementations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)

    prediction, reference = synthetic_case(np.random.default_rng(arguments.seed))
    labels = range(1, len(RADII) + 1)
    masks = [(prediction == label, reference == label) for label in labels]
    one_hot = [torch.from_numpy(np.stack(side))[None] for side in zip(*masks, strict=True)]

    ours, our_time = best_of(arguments.repeats, lambda: [METRICS["hd95_mm"](*pair, SPACING_MM) for pair in masks])
    settings = {"include_background": True, "percentile": 95, "spacing": SPACING_MM}
    theirs, monai_time = best_of(arguments.repeats, lambda: compute_hausdorff_distance(*one_hot, **settings)[0].numpy())
    _, all_time = best_of(arguments.repeats, lambda: evaluate_arrays(prediction, reference, SPACING_MM))
    print(f"monai.metrics.compute_hausdorff_distance   {monai_time:8.3f} s")
    print(f"medfewshot.metrics, hd95_mm                {our_time:8.3f} s   {monai_time / our_time:6.1f} times as fast")
    print(f"medfewshot.evaluation.evaluate_arrays      {all_time:8.3f} s   all metrics of all labels")
    difference = np.abs(np.asarray(ours) - theirs).max()
    print(f"largest difference between the HD95s       {difference:8.1e} mm, the largest HD95 being {max(ours):.2f} mm")


def best_of(repeats: int, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of ``work`` and its shortest wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, min(times)


def synthetic_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference ``SHAPE`` uint8: ellipsoids, and the same ones shifted and swollen a little."""
    prediction, reference = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for label, radius in enumerate(RADII, 1):
        radii = radius * np.array([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.4, 0.6)])
        centre = rng.uniform(radii, np.array(SHAPE) - radii)
        draw_ellipsoid(reference, centre, radii, label)
        draw_ellipsoid(prediction, centre + rng.normal(0.0, 1.5, 3), radii * rng.uniform(0.92, 1.08, 3), label)
    return prediction, reference


def draw_ellipsoid(labels: np.ndarray, centre: np.ndarray, radii: np.ndarray, value: int) -> None:
    """Set the voxels of an ellipsoid to ``value``; ``centre`` and ``radii`` in voxels."""
    axes = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    squared = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
    labels[squared <= 1.0] = value


if __name__ == "__main__":
    main()
