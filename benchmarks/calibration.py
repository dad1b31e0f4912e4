"""Does the predicted Dice tell good segmentations from bad ones?

    python benchmarks/calibration.py --data ../shared/data --runs runs/calibration

Adapts to K = 5 supports of the fixed splits (hippocampus for 200 steps, CHAOS for 300), segments the subjects of the
query set, and compares what the probabilities predict with the true Dice: Spearman's rank correlation per structure and
over all, mean absolute error, and how many volumes were flagged as unlike the supports. The rest of the support pool,
which no figure is taken from, is segmented too: the offset of ``medfewshot.quality.CALIBRATION`` is fitted to it.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from big_ct import call
from scipy import stats

from medfewshot.episodes import draw_support, fixed_split

CELLS = {"Task04_Hippocampus": 200, "abd-mr-chaos": 300}
SHOTS = 5


@dataclass(frozen=True)
class Pair:
    """One structure in one volume: what was predicted, what was true, and what else was known."""

    dataset: str
    part: str
    case: str
    label: int
    predicted: float
    mean_probability: float
    true: float
    flags: tuple[str, ...]


def run_cell(dataset: str, steps: int, seed: int, data: Path, runs: Path) -> list[Pair]:
    folder = runs / f"{dataset}-s{seed}"
    done = folder / "pairs.json"
    if done.is_file():
        return [Pair(**entry) for entry in json.loads(done.read_text())]
    folder.mkdir(parents=True, exist_ok=True)
    images = sorted((data / dataset / "imagesTr").glob("*.nii.gz"))
    pool, query = fixed_split(dataset)
    supports = list(draw_support(pool, SHOTS, seed))
    if not (folder / "segmenter" / "segmenter.json").is_file():
        pairs = [f"{images[i]}={data / dataset / 'labelsTr' / images[i].name}" for i in supports]
        words = [word for pair in pairs for word in ("--support", pair)]
        settings = ["--steps", str(steps), "--budget", "100000", "--seed", str(seed), "--modality", "MR"]
        call(["adapt", *words, *settings, "-o", str(folder / "segmenter"), "--device", "cpu"], folder / "adapt.log")
    parts = {"pool": [i for i in pool if i not in supports], "query": list(query)}
    pairs = [
        pair
        for part, numbers in parts.items()
        for pair in compare(dataset, part, [images[i] for i in numbers], folder / "segmenter")
    ]
    done.write_text(json.dumps([asdict(pair) for pair in pairs], indent=1) + "\n")
    return pairs


def compare(dataset: str, part: str, images: list[Path], segmenter_folder: Path) -> list[Pair]:
    from medfewshot.bundle import load_segmenter
    from medfewshot.io import read_image, read_label

    segmenter = load_segmenter(segmenter_folder)
    pairs = []
    for path in images:
        result = segmenter.segment(read_image(path))
        truth = read_label(path.parent.parent / "labelsTr" / path.name).data[0]
        for value in segmenter.plan.label_values:
            found, real = result.labels == value, truth == value
            if not (found.any() and real.any()):
                continue  # a missed structure has no prediction; it is told as "not found"
            dice = 2 * np.count_nonzero(found & real) / (np.count_nonzero(found) + np.count_nonzero(real))
            predicted, probability = result.predicted_dice[value], result.confidence[value]
            pairs.append(Pair(dataset, part, path.name, value, predicted, probability, float(dice), result.flags))
    return pairs


def logit(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, 1e-3, 1 - 1e-3)
    return np.log(values / (1 - values))


def fit_offset(pairs: list[Pair]) -> float:
    """The offset on the logit scale that takes the expected Dice to the true one; every dataset counts the same.

    A slope is not fitted: where predictions rank weakly it comes out far below 1, and would call bad results good.
    """
    from medfewshot.quality import CALIBRATION

    means = []
    for dataset in {p.dataset for p in pairs}:
        mine = [p for p in pairs if p.dataset == dataset]
        raw = logit(np.array([p.predicted for p in mine])) - CALIBRATION
        means.append(float((logit(np.array([p.true for p in mine])) - raw).mean()))
    return float(np.mean(means))


def row(name: str, pairs: list[Pair]) -> str:
    predicted, true = np.array([p.predicted for p in pairs]), np.array([p.true for p in pairs])
    sure = np.array([p.mean_probability for p in pairs])
    spearman, baseline = stats.spearmanr(predicted, true).statistic, stats.spearmanr(sure, true).statistic
    low, high = stats.bootstrap(
        (predicted, true), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=500, method="percentile", random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    flagged = len({p.case for p in pairs if p.flags})
    return (
        f"| {name} | {len(pairs)} | **{spearman:.2f}** [{low:.2f}, {high:.2f}] | {baseline:.2f} | {true.mean():.3f} "
        f"| {predicted.mean():.3f} | {np.abs(predicted - true).mean():.3f} "
        f"| {flagged} of {len({p.case for p in pairs})} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDFEWSHOT_DATA", "../shared/data")))
    parser.add_argument("--runs", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(CELLS), default=list(CELLS))
    given = parser.parse_args()
    cells = [(name, seed) for name in given.only for seed in given.seeds]
    pairs = [p for name, seed in cells for p in run_cell(name, CELLS[name], seed, given.data, given.runs)]
    print("| queries | structures | Spearman [95 % CI] | of mean probability | true Dice | predicted | MAE | flagged |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        mine = [p for p in pairs if p.dataset == name and p.part == "query"]
        for label in sorted({p.label for p in mine}):
            print(row(f"{name}, label {label}", [p for p in mine if p.label == label]))
        print(row(f"{name}, all", mine))
    print(row("all", [p for p in pairs if p.part == "query"]))
    offset = fit_offset([p for p in pairs if p.part == "pool"])
    print(f"\nOffset fitted to the support pool (not the queries): {offset:.2f}")


if __name__ == "__main__":
    main()
