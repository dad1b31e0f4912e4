"""Matching of predictions and references by case id; files without a counterpart are reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io import case_id, format_of, looks_like_label

# What tools append to the name of a case when they write its segmentation.
_ENDINGS = ("_segmentation", "_prediction", "_labels", "_label", "_pred", "_mask", "_seg", "_gt")
_REFERENCE_FOLDERS = ("labelsTr", "labels")
_SHOWN = 5


@dataclass(frozen=True)
class MatchedCases:
    """``pairs``: (case id, prediction, reference), sorted by case id. ``warnings``: files that have no counterpart."""

    pairs: tuple[tuple[str, Path, Path], ...]
    warnings: tuple[str, ...] = ()


def match_cases(predictions: Path, reference: Path) -> MatchedCases:
    """Pair the files of two folders by case id, or two single files, or a single file with one of a folder.

    ``case_seg.nii.gz`` and similar names count as ``case``. If ``case.nii.gz`` exists too, it is the prediction; among
    references it is the scan, and ignored.

    Args:
        predictions: Folder or file.
        reference: Folder or file; a dataset folder with ``labelsTr`` will do.

    Raises:
        InputError: A path does not exist, nothing matches, or a case has two files.
    """
    predictions, reference = Path(predictions), Path(reference)
    labels = (reference / name for name in _REFERENCE_FOLDERS)
    reference = next((folder for folder in labels if folder.is_dir()), reference)
    predicted_files, reference_files = _files(predictions), _files(reference)
    if predictions.is_file() and reference.is_file():
        return MatchedCases(((_short_id(reference), predictions, reference),))
    predicted, extra = _by_case(predicted_files)
    true, unused = _by_case(reference_files, scans_beside=reference.is_dir())
    common = sorted(predicted.keys() & true.keys())
    if not common:
        raise InputError(
            f"no prediction in {predictions} (e.g. {predicted_files[0].name}) has the case id of a reference in "
            f"{reference} (e.g. {reference_files[0].name})",
            "name both files after the case",
        )
    pairs = tuple((case, predicted[case], true[case]) for case in common)
    without_prediction = [path for case, path in true.items() if case not in predicted] + unused
    without_reference = [path for case, path in predicted.items() if case not in true] + extra
    return MatchedCases(
        pairs,
        (
            *_left_over(without_prediction, len(reference_files), f"references in {reference} have no prediction"),
            *_left_over(without_reference, len(predicted_files), f"predictions in {predictions} have no reference"),
        ),
    )


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
    passed_over = []
    for path in files:
        identifier, shortened = case_id(path), _short_id(path)
        _add(exact if identifier == shortened else short, shortened, path)
    for identifier, path in list(short.items()):
        if identifier not in exact:
            continue
        if scans_beside and looks_like_label(path):
            del exact[identifier]
        else:
            passed_over.append(path)
    return short | exact, passed_over


def _add(cases: dict[str, Path], identifier: str, path: Path) -> None:
    if identifier in cases:
        raise InputError(f"two files for case {identifier}: {cases[identifier]} and {path}", "keep one of them there")
    cases[identifier] = path


def _short_id(path: Path) -> str:
    identifier = case_id(path)
    for ending in _ENDINGS:
        if identifier.lower().endswith(ending) and len(identifier) > len(ending):
            return identifier[: -len(ending)]
    return identifier


def _left_over(paths: list[Path], total: int, what: str) -> list[str]:
    names = [path.name for path in sorted(paths)]
    return [f"{len(paths)} of {total} {what} and are not scored: {some(names)}"] if paths else []


def some(names: Sequence[str]) -> str:
    """Return the first few of many names for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
