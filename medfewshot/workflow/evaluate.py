"""Evaluation of a run or of any folder of segmentations: scores, tables, plot and a scored report."""

from __future__ import annotations

from pathlib import Path

from medfewshot.evaluation import Evaluation
from medfewshot.evaluation.results import has_scores
from medfewshot.evaluation.scores import by_structure
from medfewshot.report import save_dice_plot, save_volume_plot
from medfewshot.settings import EvaluateSettings
from medfewshot.types import Progress
from medfewshot.workers import Workers
from medfewshot.workflow.record import REPORT, RUN_RECORD, SCORES
from medfewshot.workflow.report import report
from medfewshot.workflow.scoring import score
from medfewshot.workflow.volumes import check_tables_folder

VOLUME_PLOT = SCORES[-1]


def evaluate(
    predictions: Path,
    reference: Path,
    settings: EvaluateSettings | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Score segmentations, and write tables and a plot; for a run also a report with the scores.

    Args:
        predictions: Folder of segmentations, or one file.
        reference: Folder of reference labels, or one file.
        settings: Structures and tolerance.
        folder: Where to write; None writes nothing.
        progress: Receives one event per case; may cancel.
        workers: Who scores; None for this thread. The scores are the same.

    Raises:
        InputError: Nothing matches, a file cannot be read, or ``folder`` contains files of something else.
    """
    if folder is not None:
        others = [] if (folder / RUN_RECORD).is_file() else [REPORT]  # a run's own page gets its scores
        check_tables_folder(folder, () if has_scores(folder) else (*SCORES, *others), "evaluate")
    evaluation = score(predictions, reference, settings, progress=progress, workers=workers)
    if folder is not None:
        write_scores(evaluation, folder)
        if (predictions / RUN_RECORD).is_file():
            report(predictions, folder / REPORT, reference=reference, evaluation=evaluation, progress=progress)
    return evaluation


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """Write the tables of an evaluation, and plots of its Dice and its volumes, in place of those of an earlier one."""
    for name in SCORES[3:]:
        (folder / name).unlink(missing_ok=True)
    evaluation.write(folder)
    if present := by_structure(score for score in evaluation.scores if score.status != "absent"):
        save_dice_plot(folder / "dice.png", {name: [one.dice for one in scores] for name, scores in present.items()})
    if volumes := evaluation.volumes:
        save_volume_plot(folder / VOLUME_PLOT, volumes)
