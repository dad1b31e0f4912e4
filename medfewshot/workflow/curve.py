"""A learning curve by leave-out: adapt to some of the labelled scans, and score the others."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medfewshot.data_dictionary import write_table
from medfewshot.datasets import Dataset
from medfewshot.errors import InputError
from medfewshot.evaluation import CurveScore, LearningCurve, evaluate_arrays
from medfewshot.intensities import voxel_digest
from medfewshot.io import write_text
from medfewshot.learners import LEARNERS
from medfewshot.planning import named_labels
from medfewshot.report import save_learning_curve_plot
from medfewshot.settings import AdaptSettings, CurveSettings
from medfewshot.structures import boxes
from medfewshot.types import Case, Progress, Volume
from medfewshot.workflow.adapt import Learners, adapt, fingerprint_of
from medfewshot.workflow.supports import LabelledScans, read_supports
from medfewshot.workflow.volumes import check_tables_folder

SCORES, POINTS, PLOT, RECORD = "curve_scores.csv", "curve.csv", "curve.png", "curve.json"
FEWEST = 3
"""Labelled scans: two to learn from at most, and one to score."""


@dataclass(frozen=True)
class _Cell:
    """One model: the scans that it learns from, and those that it segments, as positions in the data set."""

    shots: int
    draw: int
    learned: tuple[int, ...]
    tested: tuple[int, ...]


def learning_curve(
    source: Dataset,
    folder: Path,
    settings: AdaptSettings | None = None,
    curve: CurveSettings | None = None,
    *,
    progress: Progress | None = None,
    learners: Learners = LEARNERS,
) -> LearningCurve:
    """Measure how the Dice on other scans rises with the number of labelled scans.

    The folder receives ``curve_scores.csv`` (every test), ``curve.csv`` (means with intervals), ``curve.png`` and
    ``curve.json``. It can be stopped at any moment: the same call continues after the last finished model.

    Args:
        source: What :func:`~medfewshot.workflow.find_supports` found. Scans of one subject are never on both sides, nor
            are copies of a scan.
        folder: Where to write.
        settings: How to adapt.
        curve: Which tests.
        progress: Receives events of each model; may cancel.
        learners: Those that ``settings`` may name.

    Raises:
        InputError: There are too few labelled scans, or the folder contains a curve of other scans or settings.
    """
    settings, curve, progress = settings or AdaptSettings(), curve or CurveSettings(), progress or Progress()
    scans = read_supports(source, frame=settings.frame, progress=progress)
    cases = _copies_together(scans.images, _case_of_each(scans.images, source.labelled))
    cells = plan_cells(cases, curve, seed=settings.seed)
    request = _request(source, settings, cells, scans.names)
    done = _open(folder, request, {case.case_id: case.subject_id for case in cases}, curve.overwrite)
    names = _names(scans.ignoring(settings.ignore), settings)
    for number, cell in enumerate(cells):
        progress.at("models").update(number, len(cells), f"{cell.shots} labelled scans, choice {cell.draw}")
        if (cell.shots, cell.draw) not in {(score.shots, score.draw) for score in done}:
            done += _test(cell, cases, scans, names, settings, progress.part(number, len(cells)), learners)
            write_table(folder / SCORES, [score.row() for score in done])
    found = LearningCurve(tuple(done), len(cases))
    _write(found, folder, request)
    progress.at("models").update(len(cells), len(cells), "done")
    return found


def _case_of_each(images: Sequence[Volume], cases: Sequence[Case]) -> Sequence[Case]:
    """Return the case of each example: a film gives one for each labelled frame."""
    if len(images) == len(cases):
        return cases
    of_path = {case.image_path: case for case in cases}
    each = [(of_path[image.path], image.frame) for image in images if image.path is not None]
    return [case if n is None else replace(case, case_id=f"{case.case_id} frame {n}", frame=n) for case, n in each]


def _copies_together(images: Sequence[Volume], cases: Sequence[Case]) -> Sequence[Case]:
    """Return the cases where scans with the same voxels, and all others of their subjects, have one subject."""
    subjects = {case.subject_id: case.subject_id for case in cases}
    first: dict[str, str] = {}
    for image, case in zip(images, cases, strict=True):
        same = subjects[first.setdefault(voxel_digest(image.data), case.subject_id)]
        subjects = {name: same if of == subjects[case.subject_id] else of for name, of in subjects.items()}
    return [replace(case, subject_id=subjects[case.subject_id]) for case in cases]


def plan_cells(cases: Sequence[Case], curve: CurveSettings, *, seed: int) -> list[_Cell]:
    """Choose what each model learns from and segments.

    The scans are shuffled into a circle. Choice d begins at its d-th part, so that a larger support contains the
    smaller one of the same choice.

    Raises:
        InputError: There are too few scans, or no other scan is left to score.
    """
    count = len(cases)
    if count < FEWEST:
        raise InputError(f"{count} labelled scan(s): a curve needs at least {FEWEST}", "label more scans")
    shots = curve.shots or _steps(count)
    if max(shots) >= count:
        raise InputError(f"{max(shots)} of {count} labelled scans leave none to score", "give less", setting="shots")
    circle = np.random.default_rng(seed).permutation(count).tolist()
    cells = []
    for number in sorted(set(shots)):
        for draw in range(min(curve.draws, count)):
            start = draw * count // min(curve.draws, count)
            turned = circle[start:] + circle[:start]
            learned, others = turned[:number], turned[number:]
            subjects = {cases[one].subject_id for one in learned}
            tested = [one for one in others if cases[one].subject_id not in subjects][: curve.tests]
            if tested:
                cells.append(_Cell(number, draw + 1, tuple(learned), tuple(tested)))
    if not cells:
        raise InputError("every labelled scan is of the same subject", "label scans of other subjects")
    if lost := set(curve.shots or ()) - {cell.shots for cell in cells}:
        raise InputError(f"{min(lost)} labelled scans leave no other subject to score", "give less", setting="shots")
    return cells


def _steps(count: int) -> tuple[int, ...]:
    """Return 1, 2, 3, 5, 8, ... below ``count - 1``, and ``count - 1``."""
    steps = [1, 2]
    while steps[-1] < count - 1:
        steps.append(steps[-1] + steps[-2])
    return (*[step for step in steps if step < count - 1], count - 1)


def _request(source: Dataset, settings: AdaptSettings, cells: Sequence[_Cell], names: Mapping[int, str]) -> str:
    tests = json.dumps([asdict(cell) for cell in cells])
    if in_files := {value: name for value, name in names.items() if source.labels.get(value) != name}:
        tests += json.dumps(in_files, sort_keys=True)
    return hashlib.sha256((fingerprint_of(source, settings) + tests).encode()).hexdigest()


def _open(folder: Path, request: str, subjects: Mapping[str, str], overwrite: bool) -> list[CurveScore]:
    """Return the scores of an earlier call with the same request and subjects; otherwise prepare the folder."""
    record, scores = folder / RECORD, folder / SCORES
    check_tables_folder(folder, () if record.is_file() else (SCORES, POINTS, PLOT), "curve")
    if record.is_file() and not overwrite:
        try:
            same = json.loads(record.read_text(encoding="utf-8"))["request"] == request
            with open(scores, newline="", encoding="utf-8") as file:
                earlier = [CurveScore.from_row(row) for row in csv.DictReader(file)]
        except FileNotFoundError:
            earlier = []
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{folder}: the earlier curve is damaged", "replace it", setting="overwrite") from None
        if not same or any(subjects.get(score.case, score.subject) != score.subject for score in earlier):
            raise InputError(
                f"{folder}: contains a curve of other scans or settings", "give another folder, or replace it",
                setting=("output", "overwrite"),
            )  # fmt: skip
        return earlier
    for name in (SCORES, POINTS, PLOT):
        (folder / name).unlink(missing_ok=True)
    write_text(record, json.dumps({"request": request}) + "\n")
    return []


def _names(scans: LabelledScans, settings: AdaptSettings) -> dict[int, str]:
    """Label value -> name of what is learned and scored."""
    marked = sorted({value for label in scans.labels for value in boxes(label.data[0])})
    return named_labels(settings.labels or marked, scans.names)


def _test(
    cell: _Cell, cases: Sequence[Case], scans: LabelledScans, names: Mapping[int, str], settings: AdaptSettings,
    progress: Progress, learners: Learners,
) -> list[CurveScore]:  # fmt: skip
    """Adapt to some scans and score the others. A structure that the former do not show counts as missed."""
    learned = replace(
        scans, images=[scans.images[n] for n in cell.learned], labels=[scans.labels[n] for n in cell.learned]
    )
    marked = {value for label in learned.labels for value in boxes(label.data[0])}
    own = {value: name for value, name in names.items() if value in marked}
    segmenter = None
    if own:
        segmenter = adapt(learned, settings.replace(labels=own), progress=progress, learners=learners)
    scores = []
    for number in cell.tested:
        case, image = cases[number], scans.images[number]
        truth = scans.ignoring(settings.ignore).labels[number].data[0]
        found = segmenter.segment(image).labels if segmenter is not None else np.zeros_like(truth)
        rows = evaluate_arrays(found, truth, image.spacing_mm, labels=names, case_id=case.case_id)
        scores += [
            CurveScore(cell.shots, cell.draw, case.case_id, case.subject_id, row.label_name, row.dice) for row in rows
        ]
    return scores


def _write(found: LearningCurve, folder: Path, request: str) -> None:
    gain, low, high = (None if np.isnan(value) else value for value in found.gain)
    write_table(folder / POINTS, [point.row() for point in found.points])
    if found.overall:
        save_learning_curve_plot(folder / PLOT, found)
    content = {
        "request": request, "labelled": found.labelled, "sentence": found.sentence,
        "gain_of_five_more": {"dice": gain, "ci_low": low, "ci_high": high},
    }  # fmt: skip
    write_text(folder / RECORD, json.dumps(content, indent=1, allow_nan=False) + "\n")
