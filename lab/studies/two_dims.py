"""What should 2D images begin with? Fixed splits of pictures and slices: Dice of learners and starts at equal steps.

    python -m lab.studies.two_dims OUT.csv --data ../shared/data --score pool --shots 5 --draws 0 --steps 100

``pool``: the other subjects of the support pool, to choose on; ``queries``: to report. The query sets see no choice.
The set ``phantoms`` has 3D volumes of two channels, each of which shows one of two structures; supports are the first.
A start is ``monai-unet``, ``in_context``, weights for ``finetune``, or ``hybrid`` and weights. After ``volume``, images
are volumes of one slice. After ``mean`` or ``first``, each filter of the stem begins with the mean of the channels, or
with the first one alone; otherwise, filters are shared out among the channels.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from lab.peers.monai_unet import MonaiUnet
from medfewshot.episodes import draw_support, fixed_split
from medfewshot.inference import segment_volume
from medfewshot.io import read_image, read_label, write_csv
from medfewshot.learners import make_learner
from medfewshot.learners.weights import load_start
from medfewshot.planning import make_plan, make_support
from medfewshot.settings import AdaptSettings
from medfewshot.structures import dice
from medfewshot.types import Volume

SETS = ("carotid-us2d", "fetalhead-us2d", "octa-faz2d", "heart-mr-hvsmr2d", "skin-derm-isic-rgb", "skin grey")
Example = tuple[Volume, Volume]


def read_set(data: Path, name: str) -> list[Example]:
    """Read images and labels of a set, sorted by file name; ``skin grey`` is the mean of the colours."""
    folder = data / name.replace("skin grey", "skin-derm-isic-rgb")
    images = next(path for path in (folder / "imagesTr", folder / "images") if path.is_dir())
    labels = folder / images.name.replace("images", "labels")
    read = [(read_image(path), read_label(labels / path.name)) for path in sorted(images.iterdir())]
    if name == "skin grey":
        read = [(replace(image, data=image.data.mean(0, keepdims=True)), label) for image, label in read]
    return [(as_picture(image), as_picture(label)) for image, label in read]


def phantoms(count: int) -> list[Example]:
    """Return volumes of two channels with balls in a smooth field: one in the first channel, one in the second."""
    found, spots = [], np.stack(np.meshgrid(*map(np.arange, (48, 48, 16)), indexing="ij"), -1) * (1, 1, 2.5)
    for number in range(count):
        generator = np.random.default_rng(number)
        inside = [
            np.linalg.norm(spots - generator.uniform((12, 12, 12), (36, 36, 28)), axis=-1) < generator.uniform(6, 9)
            for _ in range(4)
        ]
        label = np.where(inside[1], 2, np.where(inside[0], 1, 0))
        images = []
        for shown, other in ((1, inside[2]), (2, inside[3])):  # each channel also shows a ball that is no structure
            smooth = gaussian_filter(generator.normal(size=label.shape), 4)
            image = 3 * (label == shown) - 3 * (other & (label == 0)) + smooth / smooth.std()
            images.append(image + generator.normal(0, 0.7, label.shape))
        affine = np.diag([1, 1, 2.5, 1])
        found.append(
            (Volume(np.stack(images).astype(np.float32), affine), Volume(label[None].astype(np.int16), affine))
        )
    return found


def as_picture(volume: Volume) -> Volume:
    """Return a volume of one slice as a 2D image."""
    return volume if volume.spatial_dims == 2 else replace(volume, data=volume.data[..., 0])


def as_volume(volume: Volume) -> Volume:
    """Return a 2D image as a volume of one slice."""
    return replace(volume, data=volume.data[..., None])


def with_stem(network: Any, channels: int, how: str) -> Any:
    """Copy a network for one channel to several: each filter sees their mean, or the first alone."""
    copied = network.with_channels(channels)
    stem = copied.stem.weight.data
    kernels = network.stem.weight.data
    stem[:] = kernels / channels
    if how == "first":
        stem[:, :1], stem[:, 1:] = kernels, 0
    return copied


def score(start: str, supports: Sequence[Example], queries: Sequence[Example], *, steps: int, seed: int) -> list[float]:
    """Adapt to the supports; returns a mean Dice per query over its structures that a support shows."""
    settings = AdaptSettings(learner="finetune", weights="none", steps=steps, seed=seed, device="cpu")
    if start.startswith("volume "):
        start = start.removeprefix("volume ")
        supports, queries = (
            [(as_volume(image), as_volume(label)) for image, label in some] for some in (supports, queries)
        )
    images, labels = zip(*supports, strict=True)
    plan = make_plan(images, labels, settings=settings)
    learner: Any
    if start == "monai-unet":
        learner = MonaiUnet(steps=steps, seed=seed)
    elif start == "in_context":
        learner = make_learner(settings.replace(learner="in_context", weights="in-context-2d", steps=0))
    elif start.startswith("hybrid"):
        learner = make_learner(settings.replace(learner="hybrid", weights=start.partition(" ")[2] or "none"))
    elif start.startswith(("mean ", "first ")):
        how, _, weights = start.partition(" ")
        begun: Any = load_start(weights).module
        begun.backbone = with_stem(begun.backbone, images[0].data.shape[0], how)
        learner = replace(make_learner(settings), start=begun)
    else:
        learner = make_learner(settings.replace(weights=start))
    segmenter = learner.adapt(make_support(images, labels, plan))
    scores = []
    for image, label in queries:
        found, truth = segment_volume(image, plan, segmenter).labels, label.data[0]
        there = [value for value in plan.label_values if (truth == value).any()]
        scores.append(float(np.mean([dice(found == value, truth == value) for value in there])))
    return scores


def main() -> None:
    """Run what is not recorded yet, and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--score", choices=("pool", "queries"), default="pool")
    parser.add_argument("--shots", type=int, default=5, help="at most all but one of the pool")
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--starts", nargs="+", default=["none", "default"])
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    rows = list(csv.DictReader(given.out.open())) if given.out.is_file() else []
    for name, draw, start in [(n, d, s) for d in given.draws for n in given.sets for s in given.starts]:
        examples = phantoms(12) if name == "phantoms" else read_set(given.data, name)
        splits = (range(6), range(6, 12)) if name == "phantoms" else None
        pool, queries = splits or fixed_split(name.replace("skin grey", "skin-derm-isic-rgb"))
        shots = min(given.shots, len(pool) - (given.score == "pool"))
        key = {"set": name, "shots": shots, "draw": draw, "scored": given.score, "start": start, "steps": given.steps}
        if any(all(row[field] == str(value) for field, value in key.items()) for row in rows):
            continue
        chosen = draw_support(list(pool), shots, draw)
        others = [i for i in pool if i not in chosen] if given.score == "pool" else queries
        begun = time.process_time()
        scores = score(
            start, [examples[i] for i in chosen], [examples[i] for i in others], steps=given.steps, seed=draw
        )
        row = key | {"dice": np.mean(scores).round(4), "lowest": min(scores), "seconds": time.process_time() - begun}
        rows.append({field: str(value) for field, value in row.items()})
        print(rows[-1], flush=True)
        write_csv(given.out, rows)


if __name__ == "__main__":
    main()
