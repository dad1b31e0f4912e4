"""The whole job on made-up (or any MSD) scans: adapt, segment, score, and leave the pictures behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from medfewshot.adaptation import AdaptSettings, adapt_volumes, read_cases
from medfewshot.bundle import VolumeSegmenter
from medfewshot.cohort import CohortOptions, segment_cohort
from medfewshot.datasets import Dataset, read_dataset
from medfewshot.episodes import draw_support
from medfewshot.evaluation import Evaluation, evaluate_pairs
from medfewshot.io import output_suffix, read_image
from medfewshot.report import save_score_plot
from medfewshot.synthetic import make_ct_cohort
from medfewshot.types import Case, InputError, Progress

DEMO_STEPS = 300


@dataclass(frozen=True)
class DemoResult:
    evaluation: Evaluation
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


def run_demo(
    output: Path,
    *,
    data: Path | None = None,
    shots: int = 3,
    queries: int = 4,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> DemoResult:
    """Leave ``segmenter/``, ``segmentations/`` and ``scores/`` (and ``data/`` when scans are made up) in ``output``.

    Raises InputError where ``data`` cannot be read or holds fewer than ``shots + 1`` labelled scans.
    """
    progress = progress or Progress()
    clock = _Clock()
    source = data or make_ct_cohort(output / "data", shots + queries, seed)
    clock.lap("data")
    dataset = read_dataset(source)
    support, query = _split(dataset, shots, queries, seed)
    images, labels = read_cases(support)
    settings = AdaptSettings(steps=steps or DEMO_STEPS, seed=seed, device=device)
    adapted = adapt_volumes(images, labels, settings, dataset.labels, progress)
    segmenter = VolumeSegmenter(adapted.plan, adapted.segmenter, adapted.record)
    segmenter.save(output / "segmenter")
    clock.lap("adapt")
    folder = output / "segmentations"
    about = {"supports": [str(case.image_path) for case in support], "seed": seed}
    result = segment_cohort(
        [case.image_path for case in query], segmenter, folder, CohortOptions(overwrite=True), about, progress
    )
    if result.failed:
        raise InputError(str(result.failed[0].error))
    clock.lap("segment")
    evaluation = _score(query, folder, dataset, output / "scores")
    clock.lap("score")
    return DemoResult(evaluation, clock.seconds, adapted.warnings)


def _split(dataset: Dataset, shots: int, queries: int, seed: int) -> tuple[list[Case], list[Case]]:
    cases = list(dataset.labelled)
    if len(cases) < shots + 1:
        raise InputError(
            f"{dataset.name}: holds {len(cases)} labelled scan(s), the demo needs {shots + 1}; lower --shots"
        )
    chosen = set(draw_support(range(len(cases)), shots, seed))
    support = [case for index, case in enumerate(cases) if index in chosen]
    query = [case for index, case in enumerate(cases) if index not in chosen][:queries]
    return support, query


def _score(query: list[Case], folder: Path, dataset: Dataset, output: Path) -> Evaluation:
    pairs = []
    for case in query:
        assert case.label_path is not None
        prediction = folder / f"{case.case_id}{output_suffix(read_image(case.image_path))}"
        pairs.append((case.case_id, prediction, case.label_path))
    evaluation = evaluate_pairs(pairs, labels=dict(dataset.labels))
    evaluation.write(output)
    by_label: dict[str, list[float]] = {}
    for score in evaluation.scores:
        if score.status != "absent":
            by_label.setdefault(score.label_name, []).append(score.dice)
    save_score_plot(output / "dice.png", by_label, "Dice per structure")
    return evaluation


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 2), now
