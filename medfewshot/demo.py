"""The demo: run the whole workflow on synthetic scans (or any dataset), with pictures, tables and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from medfewshot.datasets import Dataset, read_dataset
from medfewshot.episodes import draw_support
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_pairs
from medfewshot.learners import make_learner
from medfewshot.settings import AdaptSettings, SegmentSettings
from medfewshot.synthetic import COHORT_NAME, make_ct_cohort
from medfewshot.types import Case, Progress
from medfewshot.workflow import REPORT, RUN_RECORD, Batch, adapt_to_folder, check_folder, report, segment, write_scores

DEMO_STEPS = 450


@dataclass(frozen=True)
class DemoResult:
    """Scores of the demo, seconds per stage, and warnings of the adaptation."""

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
    make_data: Callable[..., Path] = make_ct_cohort,
) -> DemoResult:
    """Write ``report.html``, ``segmenter/``, ``segmentations/``, ``scores/`` and synthetic ``data/`` into ``output``.

    Args:
        output: Folder to write into.
        data: A dataset to use instead of synthetic scans.
        shots: Labelled scans to adapt to.
        queries: Scans to segment and score.
        settings: How to adapt; the seed also draws the supports.
        command: The command line, for the record.
        progress: Receives events of the stages; may cancel.
        make_data: Writes the synthetic dataset: ``(folder, cases, seed, progress=)`` -> its folder.

    Raises:
        InputError: ``data`` cannot be read or contains fewer than ``shots + 1`` labelled scans; or ``output`` contains
            files that no demo wrote.
    """
    progress, settings = progress or Progress(), settings or AdaptSettings()
    settings = settings.replace(steps=DEMO_STEPS) if settings.steps is None else settings
    make_learner(settings)  # reports what is wrong with the settings before anything is written
    check_folder(output)
    _check_own(output, makes_data=data is None)
    ends = {"": time.perf_counter()}
    if data is None:
        making = progress.at("making scans")
        data = make_data(output / "data", shots + queries, settings.seed, progress=making.update)
    ends["data"] = time.perf_counter()
    dataset = read_dataset(data)
    support, query = _split(dataset, shots, queries, settings.seed)
    supports = replace(dataset, cases=tuple(support))
    segmenter = adapt_to_folder(supports, output / "segmenter", settings, overwrite=True, progress=progress)
    ends["adapt"] = time.perf_counter()
    folder = output / "segmentations"
    batch = Batch(tuple(query), folder, SegmentSettings(overwrite=(folder / RUN_RECORD).is_file()))
    result = segment(batch, segmenter, command=command, progress=progress)
    if result.failed:
        raise InputError(str(result.failed[0].error))
    ends["segment"] = time.perf_counter()
    pairs = [
        (case.case_id, folder / str(one.labels), Path(str(case.label_path)))
        for case, one in zip(query, result.results, strict=True)
    ]
    evaluation = evaluate_pairs(pairs, labels=segmenter.plan.labels, progress=progress.at("scoring"))
    write_scores(evaluation, output / "scores")
    ends["score"] = time.perf_counter()
    references = {case_id: reference for case_id, _, reference in pairs}
    report(folder, output / REPORT, reference=references, evaluation=evaluation, progress=progress)
    ends["report"] = time.perf_counter()
    seconds = {stage: round(end - begun, 2) for (_, begun), (stage, end) in pairwise(ends.items())}
    return DemoResult(evaluation, seconds, tuple(segmenter.record["warnings"]))


def _check_own(folder: Path, makes_data: bool) -> None:
    """Raises InputError if ``folder`` contains files that the demo would replace and no demo wrote, finished or not."""
    described = folder / "data" / "dataset.json"
    made = described.is_file() and COHORT_NAME in described.read_text(encoding="utf-8", errors="replace")
    foreign = [described] if makes_data and described.is_file() and not made else []
    foreign += [folder / RUN_RECORD]  # results of medfewshot segment, which keep their segmenter beside them
    if not made and not (folder / "segmentations" / RUN_RECORD).is_file():
        foreign += [folder / name for name in (REPORT, "segmentations", "scores")]
    for path in foreign:
        if path.exists():
            raise InputError(
                f"{path}: exists already and was not written by the demo", "give another folder", setting="output"
            )


def _split(dataset: Dataset, shots: int, queries: int, seed: int) -> tuple[list[Case], list[Case]]:
    cases = list(dataset.labelled)
    if len(cases) < shots + 1:
        raise InputError(
            f"{dataset.name}: has too few labelled scans ({len(cases)}, {shots + 1} are needed)",
            "adapt to fewer of them",
            setting="shots",
        )
    chosen = set(draw_support(range(len(cases)), shots, seed))
    support = [case for index, case in enumerate(cases) if index in chosen]
    query = [case for index, case in enumerate(cases) if index not in chosen][:queries]
    return support, query
