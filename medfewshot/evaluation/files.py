"""Evaluate files: pair predictions with references by case id, and score one pair at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from medfewshot.errors import InputError, some
from medfewshot.evaluation.pairs import Pair, PairScorer, PairScores
from medfewshot.evaluation.results import Evaluation
from medfewshot.evaluation.scores import CaseScore, absent_score
from medfewshot.io import case_id, case_of_image, case_of_label, format_of, looks_like_label, specific_names
from medfewshot.metrics import DEFAULT_TOLERANCE_MM
from medfewshot.types import Progress
from medfewshot.workers import Lost, RayCluster, Threads, Workers

_PREDICTION = re.compile(r"(?<=.)[_-](prediction|pred)\Z", re.IGNORECASE)
"""Suffixes that tools append to the name of a case, besides the usual names of labels."""
PLOTS = ("dice.png", "bland_altman.png")
"""Beside ``scores.csv``, these are plots of the scores, not scans."""
_REFERENCE_FOLDERS = ("labelsTr", "labels/final", "labels")
_SHOWN = 5


def match_cases(
    predictions: Path, reference: Path, *, roles: tuple[str, str] = ("prediction", "reference")
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Pair the files of two folders by case id, or two single files, or a single file with one of a folder.

    ``case_seg.nii.gz`` and similar names count as ``case``. If ``case.nii.gz`` exists too, it is the prediction; among
    references it is the scan, and ignored.

    Args:
        predictions: Folder or file.
        reference: Folder or file; a dataset folder with ``labelsTr`` will do.
        roles: What a file of each is called in messages.

    Returns:
        The pairs, sorted by case id; and warnings about files that have no counterpart.

    Raises:
        InputError: A path does not exist, nothing matches, or a case has two files.
    """
    predictions, reference = Path(predictions), Path(reference)
    labels = (reference / name for name in _REFERENCE_FOLDERS)
    reference = next((folder for folder in labels if folder.is_dir()), reference)
    predicted_files, reference_files = _files(predictions), _files(reference)
    if predictions.is_file() and reference.is_file():
        return ((_case_of(reference), predictions, reference),), ()
    predicted, extra = _by_case(predicted_files)
    true, unused = _by_case(reference_files, scans_beside=reference.is_dir())
    for case in predicted.keys() - true.keys():
        number = case_of_image(predicted[case])
        if number in true and number not in predicted:  # volume-7 was predicted, segmentation-7 is its reference
            true[case] = true.pop(number)
    pairs = tuple((case, predicted[case], true[case]) for case in sorted(predicted.keys() & true.keys()))
    if not pairs:
        raise InputError(
            f"no {roles[0]} in {predictions} (e.g. {predicted_files[0].name}) has the case id of a {roles[1]} in "
            f"{reference} (e.g. {reference_files[0].name})",
            "name both files after the case",
        )
    unused += [path for case, path in true.items() if case not in predicted]
    extra += [path for case, path in predicted.items() if case not in true]
    left_over = (
        (unused, len(reference_files), f"{roles[1]}s in {reference} have no {roles[0]} in {predictions}"),
        (extra, len(predicted_files), f"{roles[0]}s in {predictions} have no {roles[1]} in {reference}"),
    )
    return pairs, tuple(
        f"{len(paths)} of {total} {what} and are not scored: {some([path.name for path in sorted(paths)], _SHOWN)}"
        for paths, total, what in left_over
        if paths
    )


def evaluate_pairs(
    pairs: Sequence[Pair],
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    names: Mapping[int, str] | None = None,
    reference_names: Mapping[int, str] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    ignore: int | None = None,
    expected: Iterable[int] = (),
    subjects: Mapping[str, str] | None = None,
    scans: Mapping[str, Path] | None = None,
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Score files label by label.

    Args:
        pairs: Case id, prediction and reference of each case: files, or label maps in memory.
        labels: Label values to score, with or without names. None: every value in any reference or prediction, so
            that a label that is predicted but never drawn counts as a false alarm.
        names: Label value -> name in the predictions, as the record of their run states it. References that name
            their structures (3D Slicer, DICOM) are matched by these names.
        reference_names: Label value -> name in the references, as their data set states it.
        tolerance_mm: Tolerance of the surface Dice.
        ignore: Label value of voxels in the references that are not scored; None: the label named ``ignore``, if any.
        expected: Label values that must occur; a warning names those in no segmentation and no reference.
        subjects: Case id -> subject id for the bootstrap; None: every case is a subject.
        scans: Case id -> scan that was segmented, as far as they are known: films need it to compensate motion.
        warnings: Warnings about the pairs, from :func:`match_cases`; they come first in the result's.
        progress: Called at the beginning and after each case.
        workers: Who scores; None for this thread.

    Raises:
        InputError: There are no pairs, a case comes twice, or names and values contradict each other.
        GridMismatchError: The grids of a pair differ.
    """
    if not pairs:
        raise InputError("nothing to evaluate: no pair of prediction and reference was given")
    seen: set[str] = set()
    for case, _, reference in pairs:
        if case in seen:
            raise InputError(f"case {case} comes twice, the second time with {reference}", "give each case once")
        seen.add(case)
    progress, subjects_of, notes = progress or Progress(), dict(subjects or {}), list(warnings)
    score = PairScorer(
        labels, specific_names(names or {}), specific_names(reference_names or {}), tolerance_mm, ignore, scans or {}
    )
    scored = _score_all(pairs, score, workers or Threads(), progress)
    table = score.new_table()
    for number, pair in enumerate(pairs):  # in order: the names of a file may decide what the next one means
        if not scored[number].agrees_with(table):
            scored[number] = score(pair, table=table)
        if scored[number].films:
            subjects_of |= {frame.name: subjects_of.get(pair[0], pair[0]) for frame in scored[number].frames}
    frames = [frame for part in scored for frame in part.frames]
    scores = [
        replace(one, subject_id=subjects_of.get(one.case_id, one.case_id)) for frame in frames for one in frame.scores
    ]
    dims = {frame.name: frame.spatial_dims for frame in frames}
    without_spacing = [frame.name for frame in frames if not frame.has_spacing]
    partly = [frame.name for frame in frames if frame.partly]
    notes += [note for frame in frames for note in frame.notes]
    if labels is None:
        scores = _with_absent_rows(scores, dims, subjects_of, table.names)
    found = {one.label for one in scores if one.status != "absent"}
    if nowhere := dict.fromkeys(one.label_name for one in scores if one.label in set(expected) - found):
        notes.insert(0, f"{some(nowhere)}: in no segmentation and no reference; check the label values in the files")
    if not scores:
        notes.append("nothing was scored: every label map is background only; pass labels to score correct absences")
    if partly:
        notes.append(
            f"{len(partly)} of {len(dims)} references are partly annotated: only annotated voxels are scored, and "
            f"distances are undefined there ({some(partly, _SHOWN)})"
        )
    elif ignore is not None:
        notes.append(f"no reference has the value {ignore} to ignore: every voxel is scored")
    if without_spacing:
        notes.append(
            f"{len(without_spacing)} of {len(dims)} references state no voxel size in mm: their distances, and the "
            f"tolerance of their surface Dice, are in pixels, not mm ({some(without_spacing, _SHOWN)})"
        )
    unknown = [case for case in dims if subjects is not None and case not in subjects_of]
    if unknown:
        notes.append(f"no subject is known for {some(unknown, _SHOWN)}: each counts as a subject of its own")
    return Evaluation(
        tuple(scores), tuple(dict.fromkeys(notes)), tolerance_mm, tuple(film for part in scored for film in part.films)
    )


def _score_all(pairs: Sequence[Pair], score: PairScorer, workers: Workers, progress: Progress) -> list[PairScores]:
    """Score every pair, in any order."""
    found: dict[int, PairScores] = {}
    if isinstance(workers, RayCluster):  # its processes start in other folders
        pairs = [(case, predicted.resolve(), true.resolve()) for case, predicted, true in pairs]
    work = partial(_score_or_error, score=score)
    progress.update(0, len(pairs), pairs[0][0])
    with workers.ready(*pairs[0][1:]), closing(workers.run(work, pairs, progress)) as results:
        for done, (number, result) in enumerate(results, start=1):
            if isinstance(result, Lost):
                raise InputError(f"{pairs[number][1]}: could not be scored ({result.reason})", "try again")
            if isinstance(result, InputError):
                raise result
            found[number] = result
            progress.update(done, len(pairs), pairs[number][0])
    return [found[number] for number in range(len(pairs))]


def _score_or_error(pair: Pair, progress: Progress, *, score: PairScorer) -> PairScores | InputError:
    """Return an error as a value: it comes back from a node as it is."""
    try:
        return score(pair)
    except InputError as error:
        return error


def _files(path: Path) -> list[Path]:
    """List the image files of a folder, including those named as labels, which ``find_images`` ignores."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    plots = PLOTS if (path / "scores.csv").is_file() else ()
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != "." and format_of(file))
    files = [file for file in files if file.name not in plots]
    if not files:
        raise InputError(f"{path}: no image files in this folder")
    return files


def _by_case(files: Iterable[Path], scans_beside: bool = False) -> tuple[dict[str, Path], list[Path]]:
    """Map case ids to files, and list files whose case has a file with a better name.

    With ``scans_beside``, ``case`` beside ``case_seg`` is the scan and is ignored.
    """
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_case_of(path), []).append(path)
    chosen: dict[str, Path] = {}
    others: list[Path] = []
    for case, group in groups.items():
        labels = [path for path in group if looks_like_label(path)]
        if scans_beside and labels:
            group = labels
        if scans_beside and not labels and case_of_image(group[0]) in groups:
            continue  # volume-7 beside segmentation-7
        exact = [path for path in group if case_id(path) == case]
        best = exact or group
        if len(best) > 1:
            raise InputError(f"two files for case {case}: {best[0]} and {best[1]}", "keep one of them there")
        chosen[case] = best[0]
        others += [path for path in group if path != best[0]]
    return chosen, others


def _case_of(path: Path) -> str:
    """Return the case id: ``a`` of ``a_seg.nii.gz`` and ``a_pred.nii.gz``, ``7`` of ``segmentation-7.nii``."""
    return (case_of_label(path) or _PREDICTION.sub("", case_id(path))).removesuffix("_0000")


def _with_absent_rows(
    scores: Sequence[CaseScore], dims: Mapping[str, int], subjects: Mapping[str, str], names: Mapping[int, str]
) -> list[CaseScore]:
    """Add rows for the labels that a case lacks, and names: all are known only after the last case."""
    by_key = {(score.case_id, score.label): score for score in scores}
    called = {value: names.get(value, str(value)) for value in sorted({score.label for score in scores})}
    return [
        replace(by_key[case, value], label_name=name)
        if (case, value) in by_key
        else absent_score(case, subjects.get(case, case), value, name, spatial_dims)
        for case, spatial_dims in dims.items()
        for value, name in called.items()
    ]
