"""What unlabelled scans, moving averages, snapshots and several seeds add to adaptation: support-pool subjects alone.

    python benchmarks/more_than_supports.py predict --data ../shared/data --runs runs/more
    python benchmarks/more_than_supports.py score --data ../shared/data --runs runs/more

``predict`` adapts from the package's weights ``default`` for 100 steps, in as many variants as there are ideas, and
keeps the class probabilities of other pool subjects, one file a draw. ``score`` turns them into Dice on the planned
grid. A draw that is there already is not made again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from pool import Draw, draw_from_pool, mean_dice
from scipy import ndimage
from torch import Tensor

from medfewshot.devices import autocast
from medfewshot.learners import load_start
from medfewshot.learners.atlas import Atlas, AtlasSegmenter
from medfewshot.learners.finetune import Finetune, _Attempt, one_cycle
from medfewshot.learners.fusion import atlas_weight
from medfewshot.learners.hybrid import HybridSegmenter
from medfewshot.learners.losses import dice_cross_entropy_parts
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.native import keep_largest
from medfewshot.types import Support

STEPS = 100
SURE = 0.9
"""Probability from which a voxel of an unlabelled scan counts as labelled."""
DECAY = 0.95
PRIOR_FLOOR, BLUR_MM, MARGIN = 0.02, 15.0, 0.25
CELLS = [
    ("abd-mr-chaos", 1, 101),
    ("Task04_Hippocampus", 5, 100),
    ("abd-mr-chaos", 5, 100),
    ("Task04_Hippocampus", 1, 100),
    ("abd-mr-chaos", 5, 101),
    ("abd-mr-chaos", 1, 102),
    ("Task04_Hippocampus", 5, 101),
    ("Task04_Hippocampus", 1, 101),
]
"""Dataset, shots, draw; in this order, so that the first four say something of everything."""
OTHERS = {"abd-mr-chaos": 9, "Task04_Hippocampus": 14}
UNLABELLED = {("abd-mr-chaos", 1): 4, ("abd-mr-chaos", 5): 5}
"""Of the others, the first so many are unlabelled scans, 6 where nothing is said; the rest is scored. On CHAOS with
five supports nothing is left: there the unlabelled scans are the ones that are scored (transductive)."""
MORE_SEEDS = {("abd-mr-chaos", 1, 101): 1, ("Task04_Hippocampus", 5, 100): 1}
ITSELF = ()
"""Draws in which the network also teaches itself, without the atlas."""


class Run:
    """One adaptation that can be gone back to."""

    def __init__(self, support: Support, seed: int = 0, steps: int = STEPS) -> None:
        learner = Finetune(steps=steps, seed=seed, start=load_start("default").module)
        self.steps, self.done = steps, 0
        self.attempt = _Attempt(learner, support, 0, time.perf_counter())

    @property
    def segmenter(self) -> NetworkSegmenter:
        return NetworkSegmenter(self.attempt.network)

    def to(self, step: int) -> None:
        for _ in self.steps_to(step):
            self.attempt._step()

    def steps_to(self, step: int) -> Iterator[int]:
        while self.done < step:
            self.attempt.optimizer.set_rate(self.attempt.rate * one_cycle(self.done / self.steps))
            self.done += 1
            yield self.done

    def state(self) -> Any:
        parts = [part.state_dict() for part in self.attempt.optimizer.parts]
        network, generator = self.attempt.network.state_dict(), self.attempt.sampler.generator.get_state()
        return copy.deepcopy((self.done, network, parts, generator))

    def back_to(self, state: Any) -> None:
        self.done, network, parts, generator = copy.deepcopy(state)
        self.attempt.network.load_state_dict(network)
        for part, one in zip(self.attempt.optimizer.parts, parts, strict=True):
            part.load_state_dict(one)
        self.attempt.sampler.generator.set_state(generator)


def self_train(run: Run, unlabelled: Support) -> None:
    """To the end, every other step on scans whose label ``classes`` means that nobody knows."""
    attempt = run.attempt
    classes = attempt.support.classes
    sampler = PatchSampler(unlabelled, attempt.learner.augmentation, torch.Generator().manual_seed(1))
    for done in run.steps_to(run.steps):
        if done % 2:
            attempt._step()
            continue
        image, label = sampler.sample(attempt.foreground)
        known = (label < classes).flatten()
        with autocast(image.device):
            logits = attempt.network(image[None])
        loss = dice_cross_entropy_parts(logits.flatten(2)[:, :, known], label.flatten()[known][None])[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(attempt.network.parameters(), 5.0)
        attempt.optimizer.step()
        attempt.optimizer.zero_grad()


def probabilities(segmenter: NetworkSegmenter, image: Tensor, plan: Any) -> Tensor:
    logits = sliding_window_inference(
        image[None], plan.patch_size, 1, segmenter, overlap=0.5, mode="gaussian", padding_mode="replicate"
    )
    assert isinstance(logits, Tensor)
    return logits[0].float().softmax(0)


def pseudo_labels(first: Tensor, second: Tensor, fused: Tensor) -> Tensor:
    """Labels ``(*S)`` where two ``(N + 1, *S)`` say the same and what is made of them is sure; elsewhere N + 1."""
    sure, label = fused.max(0)
    known = (sure >= SURE) & (first.argmax(0) == second.argmax(0))
    return torch.where(known, label, len(fused))


def average(mean: dict[str, Tensor] | None, network: Any) -> dict[str, Tensor]:
    now = network.state_dict()
    if mean is None:
        return {name: value.clone() for name, value in now.items()}
    for name, value in now.items():
        mean[name].lerp_(value, 1 - DECAY)
    return mean


def predict_cell(draw: Draw, unlabelled: int, more_seeds: int, itself: bool) -> dict[str, np.ndarray]:
    """Class probabilities of the scored subjects by every variant, and the seconds that each took."""
    kept: dict[str, np.ndarray] = {}
    scored = list(range(unlabelled, len(draw.images))) or list(range(len(draw.images)))

    def keep(name: str, segmenter: NetworkSegmenter, since: float) -> None:
        print(f"  {name}: {time.perf_counter() - since:.0f} s", flush=True)
        kept[f"seconds.{name}"] = np.array(time.perf_counter() - since)
        for i in scored:
            kept[f"{name}.{i}"] = probabilities(segmenter, draw.images[i], draw.plan).half().numpy()

    begun = time.perf_counter()
    atlas: AtlasSegmenter = Atlas().adapt(draw.support)
    votes = [atlas.votes(image) for image in draw.images]
    kept["seconds.votes"] = np.array((time.perf_counter() - begun) / len(votes))
    for i in scored:
        kept[f"votes.{i}"], kept[f"truth.{i}"] = votes[i].half().numpy(), draw.labels[i].byte().numpy()
        kept[f"image.{i}"] = draw.images[i].half().numpy()
    begun = time.perf_counter()
    run = Run(draw.support)
    run.to(STEPS // 2)
    half = run.state()
    hybrid = _trusting(run.segmenter, atlas)
    own = [probabilities(run.segmenter, draw.images[i], draw.plan) for i in range(unlabelled)]
    fused = [hybrid.fuse(own[i], votes[i]).softmax(0) for i in range(unlabelled)]
    mean: dict[str, Tensor] | None = None
    for _ in run.steps_to(STEPS):
        run.attempt._step()
        mean = average(mean, run.attempt.network)
    keep("plain", run.segmenter, begun)
    run.attempt.network.load_state_dict(mean or {})
    keep("average", run.segmenter, begun)
    kinds = {"taught": [pseudo_labels(a, v, f) for a, v, f in zip(own, votes, fused, strict=False)]}
    if itself:
        kinds["taught-by-itself"] = [pseudo_labels(a, a, a) for a in own]
    for name, labels in kinds.items():
        truths = draw.labels[:unlabelled]
        known = [label < draw.plan.classes for label in labels]
        right = [mean_dice(a[k], t[k], draw.plan.classes) for a, k, t in zip(labels, known, truths, strict=True)]
        print(
            f"  {name}: known {np.mean([float(k.float().mean()) for k in known]):.3f}, Dice there {np.mean(right):.3f}"
        )
        begun = time.perf_counter()
        run.back_to(half)
        taught = Support(
            draw.images[:unlabelled], tuple(labels), draw.plan.classes, draw.plan.patch_size, draw.plan.spacing_mm
        )
        self_train(run, taught)
        keep(name, run.segmenter, begun)
    for seed in range(1, 1 + more_seeds):
        begun = time.perf_counter()
        other = Run(draw.support, seed)
        other.to(STEPS)
        keep(f"seed{seed}", other.segmenter, begun)
    return kept


def predict(data: Path, runs: Path, cells: list[tuple[str, int, int]]) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    for dataset, shots, number in cells:
        path = runs / f"{dataset}-k{shots}-{number}.npz"
        if path.exists():
            continue
        print(path.stem, flush=True)
        draw = draw_from_pool(data, dataset, shots, number, OTHERS[dataset])
        unlabelled = UNLABELLED.get((dataset, shots), 6)
        kept = predict_cell(draw, unlabelled, MORE_SEEDS.get((dataset, shots, number), 0), number in ITSELF)
        kept["keep_largest"] = np.array([draw.plan.label_values.index(v) + 1 for v in draw.plan.keep_largest])
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, **kept)
        path.with_suffix(".part").rename(path)


def score(data: Path, runs: Path) -> None:
    """A table: one row a draw, one column a variant; mean Dice over the scored subjects, stray pieces dropped."""
    rows = []
    for path in sorted(runs.glob("*.npz")):
        dataset, shots, number = path.stem.rsplit("-", 2)
        draw = draw_from_pool(data, dataset, int(shots[1:]), int(number), 0)
        rows.append({"draw": path.stem} | score_cell(np.load(path), draw))
        print(
            path.stem, " ".join(f"{name} {value:.3f}" for name, value in rows[-1].items() if name != "draw"), flush=True
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{row[n]:.3f}" if n != "draw" and n in row else str(row.get(n, "")) for n in names)
            + " |"
        )


def score_cell(kept: Any, draw: Draw) -> dict[str, float]:
    atlas = Atlas().adapt(draw.support)
    hybrid = _trusting(_NO_NETWORK, atlas)
    found: dict[str, list[float]] = {}
    for key in (name for name in kept.files if name.startswith("truth.")):
        i = key.removeprefix("truth.")
        truth = torch.from_numpy(kept[key]).long()
        maps = {
            name: torch.from_numpy(kept[f"{name}.{i}"]).float()
            for name in ("votes", "plain", "average", "taught", "taught-by-itself", "seed1", "seed2")
            if f"{name}.{i}" in kept.files
        }
        if "seed1" in maps:
            maps["two seeds"] = (maps["plain"] + maps["seed1"]) / 2
        if "seed2" in maps:
            maps["three seeds"] = (maps["plain"] + maps["seed1"] + maps["seed2"]) / 3
        for name in ("plain", "taught", "two seeds", "three seeds"):
            if name in maps:
                maps[f"hybrid, {name}"] = hybrid.fuse(maps[name], maps["votes"]).softmax(0)
        for name, values in maps.items():
            tidy = largest(values.argmax(0).numpy(), kept["keep_largest"])
            found.setdefault(name, []).append(mean_dice(torch.from_numpy(tidy), truth, draw.plan.classes))
        for name, tidy in tidied(maps["plain"], draw, kept["keep_largest"]).items():
            found.setdefault(f"[{name}]", []).append(mean_dice(torch.from_numpy(tidy), truth, draw.plan.classes))
    return {name: float(np.mean(values)) for name, values in found.items()}


class _NoNetwork:
    """The hybrid's network, where its probabilities are known already."""

    device = torch.device("cpu")


_NO_NETWORK = _NoNetwork()


def largest(labels: np.ndarray, structures: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    for index in structures:
        keep_largest(labels, int(index))
    return labels


def tidied(plain: Tensor, draw: Draw, structures: np.ndarray) -> dict[str, np.ndarray]:
    """One label map by several ways of tidying it."""
    raw = plain.argmax(0).numpy()
    placed = in_place(raw, draw)
    prior = place_prior(draw, raw.shape)
    weighted = (plain * (prior + PRIOR_FLOOR).sqrt()).argmax(0).numpy()
    return {
        "as it is": raw,
        "holes filled": filled(largest(raw, structures)),
        "in place": placed,
        "in place, largest": largest(placed, structures),
        "prior of place, largest": largest(weighted, structures),
    }


def filled(labels: np.ndarray) -> np.ndarray:
    filled = labels.copy()
    for index in range(1, int(labels.max()) + 1):
        filled[ndimage.binary_fill_holes(labels == index) & (labels == 0)] = index
    return filled


def in_place(labels: np.ndarray, draw: Draw) -> np.ndarray:
    """Without the pieces whose centre lies outside the box of the supports' structures, grown by a quarter."""
    kept = labels.copy()
    for index in range(1, draw.plan.classes):
        low, high = _box_of(draw, index)
        pieces, count = ndimage.label(labels == index, np.ones((3,) * labels.ndim))
        centres = np.array(ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1))).reshape(count, labels.ndim)
        away = ((centres - np.array(labels.shape) / 2 < low) | (centres - np.array(labels.shape) / 2 > high)).any(1)
        if count and not away.all():
            kept[np.isin(pieces, 1 + np.flatnonzero(away))] = 0
    return kept


def _box_of(draw: Draw, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners in voxels from the centre of the field of view."""
    where = [np.argwhere(label.numpy() == index) - np.array(label.shape) / 2 for label in draw.support.labels]
    low, high = (np.stack([f(w, 0) for w in where if len(w)]) for f in (np.min, np.max))
    margin = (high.max(0) - low.min(0)) * MARGIN
    return low.min(0) - margin, high.max(0) + margin


def place_prior(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    """How often the supports have each structure there ``(N + 1, *shape)``, centre on centre, blurred."""
    total = np.zeros((draw.plan.classes, *shape), np.float32)
    for label in draw.support.labels:
        for index in range(1, draw.plan.classes):
            mask = (label.numpy() == index).astype(np.float32)
            shift = (np.array(mask.shape) - np.array(shape)) / 2
            laid = ndimage.affine_transform(mask, np.ones(mask.ndim), shift, output_shape=shape, order=1)
            sigma = [BLUR_MM / spacing for spacing in draw.plan.spacing_mm]
            total[index] += ndimage.gaussian_filter(laid, sigma) / len(draw.support.labels)
    total[0] = 1 - total[1:].sum(0)
    return torch.from_numpy(total.clip(0))


def _trusting(network: Any, atlas: AtlasSegmenter) -> HybridSegmenter:
    """The hybrid as it fuses where every structure is trusted: no support was left out to find that."""
    trust = [1.0] * (atlas.classes - 1)
    return HybridSegmenter(network, atlas, patch_size=(), weight=atlas_weight(len(atlas.images)), trust=trust)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["predict", "score"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/more"))
    parser.add_argument("--cells", type=int, help="only the first so many")
    arguments = parser.parse_args()
    if arguments.what == "predict":
        predict(arguments.data, arguments.runs, CELLS[: arguments.cells])
    else:
        score(arguments.data, arguments.runs)


if __name__ == "__main__":
    main()
