"""Is the default as good as the best of its parts on thin, small and texture-like structures? Phantoms.

    python -m lab.studies.shapes OUT.csv                        # all phantoms and learners, about an hour of one core
    python -m lab.studies.shapes OUT.csv --phantoms tubes --learners default

Each phantom has one structure. Supports are the first volumes, queries the last three.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

import medfewshot
from medfewshot.io import write_csv
from medfewshot.structures import dice
from medfewshot.types import Volume

LEARNERS: dict[str, dict[str, str]] = {
    "default": {},
    "network": {"learner": "finetune"},
    "network, random weights": {"learner": "finetune", "weights": "none"},
    "registration": {"learner": "atlas"},
}
QUERIES = 3


def tubes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return winding tubes of two voxels beside bright balls that are no structure: intensities and mask."""
    shape = (256, 256, 12)
    path = np.zeros(shape, bool)
    for _ in range(6):
        steps = np.cumsum(gaussian_filter(generator.normal(0, 1, (4000, 3)), (250, 0)) * (4, 4, 0.2), axis=0)
        points = np.rint(steps + generator.uniform(0.2, 0.8, 3) * shape).astype(int)
        points = points[((points >= 0) & (points < np.array(shape) - 1)).all(1)]
        for corner in np.ndindex(2, 2, 2):
            path[tuple((points + corner).T)] = True
    balls = distance_transform_edt(generator.random(shape) > 0.00003) < 5
    return 2.0 * path + 2.0 * balls, path


def membranes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return dark sheets of two to three voxels between cells of many gray values, as in electron microscopy."""
    field = gaussian_filter(generator.normal(size=(128, 128, 24)), (7, 7, 3))
    sheet = np.abs(field) < 1.3 * np.linalg.norm(np.gradient(field), axis=0)
    cells = gaussian_filter(generator.normal(size=field.shape), 6)
    return cells / cells.std() * 0.7 - 2.0 * sheet, sheet


def shell(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the wall of an ellipsoid, two voxels thick; inside is as outside."""
    away = _ellipsoid((96, 96, 48), generator.uniform(0.4, 0.6, 3), generator.uniform((18, 18, 10), (30, 30, 16)))
    inside = away < 1
    wall = inside & (distance_transform_edt(inside) <= 2)
    return 1.5 * wall, wall


def adrenal(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a thin body above a large one that is as bright, both at about the same place in each volume."""
    shape, centre = (128, 128, 48), np.array([0.5, 0.5, 0.4]) + generator.uniform(-0.06, 0.06, 3)
    kidney = _ellipsoid(shape, centre, (20, 16, 14)) < 1
    above = centre + np.array([0.02, -0.05, 0.42]) + generator.uniform(-0.02, 0.02, 3)
    small = (_ellipsoid(shape, above, (2.2, 9, 4)) < 1) | (_ellipsoid(shape, above, (7, 2.2, 4)) < 1)
    return 1.5 * (kidney | small), small & ~kidney


def texture(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return regions anywhere in which the noise is finer; their mean is that of the rest."""
    shape = (96, 96, 48)
    field = gaussian_filter(generator.normal(size=shape), 10)
    inside = field > np.quantile(field, 0.8)
    coarse, fine = (gaussian_filter(generator.normal(size=shape), sigma) for sigma in (2.5, 0.8))
    return np.where(inside, fine / fine.std(), coarse / coarse.std()) * 1.5, inside


PHANTOMS: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "tubes": tubes,
    "membranes": membranes,
    "shell": shell,
    "adrenal": adrenal,
    "texture": texture,
}


def _ellipsoid(shape: tuple[int, int, int], centre: Any, radii: Any) -> np.ndarray:
    """Return the distance from the centre, in radii; the centre is given as shares of the shape."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm((grid - np.asarray(centre) * shape) / np.asarray(radii), axis=-1)


def make(phantom: str, number: int) -> tuple[Volume, Volume]:
    """Make an image, with noise and a bias field, and its label map; voxels of 1 x 1 x 2 mm."""
    generator = np.random.default_rng(number)
    signal, mask = PHANTOMS[phantom](generator)
    bias = gaussian_filter(generator.normal(size=signal.shape), 20)
    noise = gaussian_filter(generator.normal(size=signal.shape), 0.5)
    image = 100 + 20 * (signal + 0.3 * bias / bias.std() + 0.4 * noise / noise.std())
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return Volume(image[None].astype(np.float32), affine), Volume(mask[None].astype(np.int32), affine)


def main() -> None:
    """Run what is not recorded yet, and print each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--phantoms", nargs="+", choices=tuple(PHANTOMS), default=tuple(PHANTOMS))
    parser.add_argument("--learners", nargs="+", choices=tuple(LEARNERS), default=tuple(LEARNERS))
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--steps", type=int, help="default: those of each learner")
    given = parser.parse_args()
    rows = list(csv.DictReader(given.out.open())) if given.out.is_file() else []
    for phantom, learner in [(p, one) for p in given.phantoms for one in given.learners]:
        key = {"phantom": phantom, "shots": given.shots, "learner": learner}
        if any(all(row[name] == str(value) for name, value in key.items()) for row in rows):
            continue
        made = [make(phantom, number) for number in range(given.shots + QUERIES)]
        begun = time.process_time()
        steps = {"steps": given.steps} if given.steps and learner != "registration" else {}
        chosen: dict[str, Any] = {**LEARNERS[learner], **steps}
        segmenter = medfewshot.adapt(
            made[: given.shots], device="cpu", modality="MR", budget_seconds=None, labels={1: phantom}, **chosen
        )
        scores = [
            dice(medfewshot.segment(image, segmenter).labels == 1, label.data[0] == 1)
            for image, label in made[given.shots :]
        ]
        each = " ".join(f"{one:.3f}" for one in scores)
        seconds = round(time.process_time() - begun)
        rows.append({**key, "dice": round(float(np.mean(scores)), 4), "each": each, "seconds": seconds})
        print(rows[-1], flush=True)
        write_csv(given.out, rows)


if __name__ == "__main__":
    main()
