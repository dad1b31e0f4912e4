"""Matching of predictions and references by case id; files without a counterpart are reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io import case_id, format_of, looks_like_label

Pair = tuple[str, Path, Path]
"""Case id, prediction and reference."""

# What tools append to the name of a case when they write its segmentation.
_ENDING = re.compile(r"(?<=.)_(segmentation|prediction|labels?|pred|mask|seg|gt)\Z", re.IGNORECASE)
_REFERENCE_FOLDERS = ("labelsTr", "labels")
_SHOWN = 5


def match_cases(predictions: Path, reference: Path) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Pair the files of two folders by case id, or two single files, or a single file with one of a folder.

    ``case_seg.nii.gz`` and similar names count as ``case``. If ``case.nii.gz`` exists too, it is the prediction; among
    references it is the scan, and ignored.

    Args:
        predictions: Folder or file.
        reference: Folder or file; a dataset folder with ``labelsTr`` will do.

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
    pairs = tuple((case, predicted[case], true[case]) for case in sorted(predicted.keys() & true.keys()))
    if not pairs:
        raise InputError(
            f"no prediction in {predictions} (e.g. {predicted_files[0].name}) has the case id of a reference in "
            f"{reference} (e.g. {reference_files[0].name})",
            "name both files after the case",
        )
    unused += [path for case, path in true.items() if case not in predicted]
    extra += [path for case, path in predicted.items() if case not in true]
    left_over = (
        (unused, len(reference_files), f"references in {reference} have no prediction"),
        (extra, len(predicted_files), f"predictions in {predictions} have no reference"),
    )
    return pairs, tuple(
        f"{len(paths)} of {total} {what} and are not scored: {some([path.name for path in sorted(paths)])}"
        for paths, total, what in left_over
        if paths
    )


def some(names: Sequence[str]) -> str:
    """Return the first few of many names for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _files(path: Path) -> list[Path]:
    """Unlike ``find_images``, keep files whose names say that they are labels."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != "." and format_of(file))
    if not files:
        raise InputError(f"{path}: no image files in this folder")
    return files


def _by_case(files: Iterable[Path], scans_beside: bool = False) -> tuple[dict[str, Path], list[Path]]:
    """Case id -> file, and the files whose case has a file with a better name already.

    ``scans_beside``: beside ``case_seg`` and similar names, ``case`` is the scan, not a better named label.
    """
    exact: dict[str, Path] = {}
    short: dict[str, Path] = {}
    for path in files:
        case = _case_of(path)
        named = exact if case == case_id(path) else short
        if case in named:
            raise InputError(f"two files for case {case}: {named[case]} and {path}", "keep one of them there")
        named[case] = path
    both = exact.keys() & short.keys()
    scans = {case for case in both if scans_beside and looks_like_label(short[case])}
    return short | {case: exact[case] for case in exact if case not in scans}, [short[case] for case in both - scans]


def _case_of(path: Path) -> str:
    return _ENDING.sub("", case_id(path))
