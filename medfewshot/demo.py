"""The whole job on made-up (or any MSD) scans: adapt, segment, score, and leave the pictures behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medfewshot.adaptation import adapt_volumes, make_learner, read_cases
from medfewshot.bundle import VolumeSegmenter
from medfewshot.cohort import REPORT, RUN_RECORD, CohortOptions, check_folder, segment_cohort, write_report
from medfewshot.datasets import Dataset, read_dataset
from medfewshot.episodes import draw_support
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_pairs
from medfewshot.report import save_score_plot
from medfewshot.settings import AdaptSettings
from medfewshot.synthetic import COHORT_NAME, make_ct_cohort
from medfewshot.types import Case, Progress

DEMO_STEPS = 450


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
    settings: AdaptSettings | None = None,
    command: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Leave ``report.html``, ``segmenter/``, ``segmentations/`` and ``scores/`` (and ``data/``, made up) in ``output``.

    ``settings``: how to adapt; the seed also draws the supports. Raises InputError where ``data`` cannot be read or
    holds fewer than ``shots + 1`` labelled scans.
    """
    progress = progress or Progress()
    settings = settings or AdaptSettings(steps=DEMO_STEPS)
    make_learner(settings)  # whatever is wrong with the settings shows before anything is written
    check_folder(output)
    _check_own(output, makes_data=data is None)
    clock = _Clock()
    source = data or _make_data(output / "data", shots + queries, settings.seed, progress)
    clock.lap("data")
    dataset = read_dataset(source)
    support, query = _split(dataset, shots, queries, settings.seed)
    images, labels = read_cases(support)
    adapted = adapt_volumes(images, labels, settings, dataset.labels, progress)
    segmenter = VolumeSegmenter(adapted.plan, adapted.segmenter, adapted.record)
    segmenter.save(output / "segmenter")
    clock.lap("adapt")
    folder = output / "segmentations"
    options = CohortOptions(overwrite=(folder / RUN_RECORD).is_file())
    result = segment_cohort(query, segmenter, folder, options, command, progress)
    if result.failed:
        raise InputError(str(result.failed[0].error))
    clock.lap("segment")
    pairs = [
        (case.case_id, folder / str(one.labels), Path(str(case.label_path)))
        for case, one in zip(query, result.results, strict=True)
    ]
    evaluation = evaluate_pairs(pairs, labels=adapted.plan.labels)
    write_scores(evaluation, output / "scores")
    clock.lap("score")
    references = {case_id: reference for case_id, _, reference in pairs}
    write_report(folder, output / REPORT, evaluation=evaluation, references=references, progress=progress)
    clock.lap("report")
    return DemoResult(evaluation, clock.seconds, adapted.warnings)


def check_scores_folder(folder: Path) -> None:
    """Raises InputError where scores would replace a file that no evaluation wrote."""
    check_folder(folder)
    if (folder / "summary.json").is_file() and (folder / "scores.csv").is_file():
        return  # an evaluation's own: its tables are made anew
    others = [] if (folder / RUN_RECORD).is_file() else [REPORT]  # a run's own page gets its scores
    for name in ("scores.csv", "summary.csv", "summary.json", "dice.png", *others):
        if (folder / name).exists():
            raise InputError(f"{folder / name}: is there already, and no evaluation's; give another folder with -o")


def _check_own(folder: Path, makes_data: bool) -> None:
    """Raises InputError where ``folder`` holds what the demo would replace and no demo, cut short or not, has made."""
    described = folder / "data" / "dataset.json"
    made = described.is_file() and COHORT_NAME in described.read_text(encoding="utf-8", errors="replace")
    foreign = [described] if makes_data and described.is_file() and not made else []
    foreign += [folder / RUN_RECORD]  # results of medfewshot segment, whose segmenter lies beside them
    if not made and not (folder / "segmentations" / RUN_RECORD).is_file():
        foreign += [folder / name for name in (REPORT, "segmentations", "scores")]
    for path in foreign:
        if path.exists():
            raise InputError(f"{path}: is there already, and no demo's; give another folder with -o")


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """The tables of an evaluation, and a plot of its Dice scores."""
    evaluation.write(folder)
    by_label: dict[str, list[float]] = {}
    for score in evaluation.scores:
        if score.status != "absent":
            by_label.setdefault(score.label_name, []).append(score.dice)
    if by_label:
        save_score_plot(folder / "dice.png", by_label, "Dice per structure")


def _make_data(folder: Path, cases: int, seed: int, progress: Progress) -> Path:
    def update(done: int, total: int) -> None:
        progress.update(done, total, "making scans")

    return make_ct_cohort(folder, cases, seed, progress=update)


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


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 2), now
