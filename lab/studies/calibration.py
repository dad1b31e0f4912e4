"""Does the predicted Dice tell good segmentations from bad ones?

    medfewshot benchmark configs/benchmark/calibration.yaml -o runs/calibration
    python -m lab.studies.calibration runs/calibration

Reads the cells of a run directory, of any benchmark file, and compares what the probabilities predict with the true
Dice, structure by structure: Spearman's rank correlation over all, within each label and of whole volumes, mean
absolute error, and how many volumes were flagged as unlike the supports. A structure that was missed has no prediction
("not found" is reported as such), nor has one that is not there. Rows whose data set ends in ``-pool`` are support-pool
subjects: no figure is taken from them, and the offsets (``CALIBRATION`` of ``medfewshot.quality`` and of the hybrid)
are fitted to them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from lab.records import read_records, read_run
from medfewshot.learners import hybrid
from medfewshot.quality import CALIBRATION

POOL = "-pool"


@dataclass(frozen=True)
class Pair:
    """One structure in one volume: what was predicted, what was true, and what else was known."""

    dataset: str
    learner: str
    shots: int
    seed: int
    case: str
    label: str
    predicted: float
    mean_probability: float
    true: float
    flagged: bool
    offset: float
    """Offset that the prediction contains already."""


def read_pairs(run: str) -> list[Pair]:
    """Return every prediction of the finished cells of a run directory, or of a run in the records."""
    recorded = [record for record in read_records("volume") if record.run == run]
    pairs = []
    for record in recorded or read_run(Path(run)):
        cell = record.content["cell"]
        where = cell["dataset"]["name"], cell["learner"]["name"], cell["shots"], cell["seed"]
        offset = hybrid.CALIBRATION if cell["learner"]["learner"] == "hybrid" else CALIBRATION
        for row in record.scores:
            if row.get("predicted_dice") and row["dice"]:
                numbers = (float(row[name]) for name in ("predicted_dice", "confidence", "dice"))
                pairs.append(Pair(*where, row["case_id"], row["label_name"], *numbers, bool(row["flags"]), offset))
    return pairs


def fit_offset(pairs: Iterable[Pair]) -> float:
    """Return the offset on the logit scale that takes the expected Dice to the true one; every dataset counts the same.

    A slope is not fitted: where predictions rank weakly it comes out far below 1, and would call bad results good.
    """
    by_dataset: dict[str, list[float]] = {}
    for pair in pairs:
        by_dataset.setdefault(pair.dataset, []).append(_logit(pair.true) - (_logit(pair.predicted) - pair.offset))
    return float(np.mean([np.mean(values) for values in by_dataset.values()]))


def _logit(value: float) -> float:
    value = float(np.clip(value, 1e-3, 1 - 1e-3))
    return float(np.log(value / (1 - value)))


def row(name: str, pairs: list[Pair]) -> str:
    """Return a line of the table: correlations with an interval over subjects, means, error, flags."""
    predicted, true = np.array([p.predicted for p in pairs]), np.array([p.true for p in pairs])
    low, high = _interval(pairs)
    within = _within_labels(pairs)
    flagged = {(p.case, p.shots, p.seed) for p in pairs if p.flagged}
    volumes = {(p.case, p.shots, p.seed) for p in pairs}
    return (
        f"| {name} | {len(pairs)} | **{_rank(predicted, true):.2f}** [{low:.2f}, {high:.2f}] | {within} "
        f"| {_between_volumes(pairs):.2f} "
        f"| {_rank(np.array([p.mean_probability for p in pairs]), true):.2f} | {true.mean():.3f} ± {true.std():.3f} "
        f"| {predicted.mean():.3f} | {np.abs(predicted - true).mean():.3f} | {len(flagged)} of {len(volumes)} |"
    )


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(stats.spearmanr(first, second).statistic)


def _between_volumes(pairs: list[Pair]) -> float:
    """Correlate the means over each volume's structures: does the prediction tell which scans came out worse?"""
    volumes = dict.fromkeys((p.case, p.shots, p.seed) for p in pairs)
    mine = [[p for p in pairs if (p.case, p.shots, p.seed) == volume] for volume in volumes]
    predicted, true = ([float(np.mean([getattr(p, n) for p in of])) for of in mine] for n in ("predicted", "true"))
    return _rank(np.array(predicted), np.array(true))


def _within_labels(pairs: list[Pair]) -> str:
    found = []
    for label in dict.fromkeys(p.label for p in pairs):
        mine = [p for p in pairs if p.label == label]
        found.append(f"{_rank(np.array([p.predicted for p in mine]), np.array([p.true for p in mine])):.2f}")
    return " ".join(found)


def _interval(pairs: list[Pair]) -> tuple[float, float]:
    """Bootstrap 95 % interval over subjects: structures, draws and K of one subject are not independent."""
    cases = sorted({p.case for p in pairs})
    members = [[i for i, p in enumerate(pairs) if p.case == case] for case in cases]
    predicted, true = np.array([p.predicted for p in pairs]), np.array([p.true for p in pairs])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(500):
        drawn = [i for k in rng.integers(len(cases), size=len(cases)) for i in members[k]]
        found.append(_rank(predicted[drawn], true[drawn]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Print how predicted and measured Dice agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", nargs="+", help="run directories of medfewshot benchmark, or names of runs in the records"
    )
    given = parser.parse_args()
    pairs = [pair for run in given.run for pair in read_pairs(run)]
    if not pairs:
        parser.error("no finished cell there holds predictions")
    print("| queries | structures | Spearman [95 % CI] | within labels | of volumes | of mean probability | true Dice "
          "| predicted | MAE | flagged |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    queries = [p for p in pairs if not p.dataset.endswith(POOL)]
    for dataset, learner in dict.fromkeys((p.dataset, p.learner) for p in queries):
        mine = [p for p in queries if (p.dataset, p.learner) == (dataset, learner)]
        for shots, seed in dict.fromkeys((p.shots, p.seed) for p in mine):
            part = [p for p in mine if (p.shots, p.seed) == (shots, seed)]
            print(row(f"{dataset}, {learner}, K = {shots}, seed {seed}", part))
        print(row(f"{dataset}, {learner}, all", mine))
    pool = [p for p in pairs if p.dataset.endswith(POOL)]
    for learner in dict.fromkeys(p.learner for p in pool):
        offset = fit_offset(p for p in pool if p.learner == learner)
        print(f"\nOffset of {learner}, fitted to support-pool subjects (not the queries): {offset:.2f}")


if __name__ == "__main__":
    main()
