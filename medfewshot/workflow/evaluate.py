"""Evaluation of a run or of any folder of segmentations: names, scores, tables, plot and a scored report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_pairs, match_cases
from medfewshot.planning import label_values
from medfewshot.report import save_dice_plot
from medfewshot.settings import EvaluateSettings
from medfewshot.types import Progress
from medfewshot.workflow.cases import check_folder
from medfewshot.workflow.record import REPORT, RUN_RECORD, read_record
from medfewshot.workflow.report import write_report


def evaluate(
    predictions: Path,
    reference: Path,
    settings: EvaluateSettings | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score segmentations, and write tables and a plot; for a run also a report with the scores.

    Args:
        predictions: Folder of segmentations, or one file.
        reference: Folder of reference labels, or one file.
        settings: Structures and tolerance.
        folder: Where to write; None writes nothing.
        progress: Receives one event per case; may cancel.

    Raises:
        InputError: Nothing matches, a file cannot be read, or ``folder`` contains files of something else.
    """
    settings, progress = settings or EvaluateSettings(), progress or Progress()
    if folder is not None:
        check_scores_folder(folder)
    names = label_names(predictions, reference)
    given = settings.labels
    asked = (
        given if isinstance(given, dict) else {v: names.get(v, f"label {v}") for v in label_values(given or (), names)}
    )
    pairs, unmatched = match_cases(predictions, reference)
    evaluation = evaluate_pairs(
        pairs, labels=asked or names or None, tolerance_mm=settings.tolerance_mm, warnings=unmatched,
        progress=progress.at("scoring"),
    )  # fmt: skip
    found = {score.label for score in evaluation.scores if score.status != "absent"}
    nowhere = [name for value, name in asked.items() if value not in found]
    if nowhere:
        warning = f"{', '.join(nowhere)}: in no segmentation and no reference; is that the value in the files?"
        evaluation = replace(evaluation, warnings=(warning, *evaluation.warnings))
    if folder is not None:
        write_scores(evaluation, folder)
        if (predictions / RUN_RECORD).is_file():
            report(predictions, folder / REPORT, reference=reference, evaluation=evaluation, progress=progress)
    return evaluation


def report(
    folder: Path,
    path: Path | None = None,
    *,
    reference: Path | None = None,
    evaluation: Evaluation | None = None,
    viewer: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run, with scores if there are references.

    Args:
        folder: The folder of the run.
        path: The file to write; default: ``report.html`` in ``folder``.
        reference: Folder of reference labels.
        evaluation: The scores, if they are computed already.
        viewer: Whether the page contains the volumes.
        progress: Receives one event per case; may cancel.

    Returns:
        The written file.

    Raises:
        InputError: ``folder`` contains no run, or ``path`` is a folder.
    """
    path, progress = path or folder / REPORT, progress or Progress()
    if path.is_dir():
        raise InputError(f"{path}: is a folder", f"give the name of the file, e.g. {path / REPORT}", setting="output")
    references: dict[str, Path] = {}
    if reference is not None:
        pairs, unmatched = match_cases(folder, reference)
        references = {case: truth for case, _, truth in pairs}
        evaluation = evaluation or evaluate_pairs(
            pairs, labels=label_names(folder, reference) or None, warnings=unmatched,
            progress=progress.at("scoring"),
        )  # fmt: skip
    return write_report(
        folder, path, evaluation=evaluation, references=references, viewer=viewer, progress=progress.at("report")
    )


def check_scores_folder(folder: Path) -> None:
    """Raises InputError if scores would replace a file that no evaluation wrote."""
    check_folder(folder)
    if (folder / "summary.json").is_file() and (folder / "scores.csv").is_file():
        return  # of an earlier evaluation, which this one replaces
    others = [] if (folder / RUN_RECORD).is_file() else [REPORT]  # a run's own page gets its scores
    for name in ("scores.csv", "summary.csv", "summary.json", "dice.png", *others):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: exists already and is of no evaluation", "give another folder", setting="output"
            )


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """Write the tables of an evaluation, and a plot of its Dice scores."""
    evaluation.write(folder)
    by_label: dict[str, list[float]] = {}
    for score in evaluation.scores:
        if score.status != "absent":
            by_label.setdefault(score.label_name, []).append(score.dice)
    if by_label:
        save_dice_plot(folder / "dice.png", by_label)


def label_names(predictions: Path, reference: Path) -> Mapping[int, str]:
    """Names of the structures, by label value.

    The run's record says what was learned; otherwise the ``dataset.json`` of the references lists names. A structure
    that the record knows by number alone takes its name from ``dataset.json``.
    """
    known: dict[int, str] = {}
    for folder in (reference, reference.parent):
        if (folder / "dataset.json").is_file():
            known = dict(read_dataset(folder).labels)
            break
    if not (predictions / RUN_RECORD).is_file():
        return known
    try:
        learned = {int(value): str(name) for value, name in read_record(predictions)["plan"]["labels"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return known
    return {v: known.get(v, name) if name == f"label {v}" else name for v, name in learned.items()}
