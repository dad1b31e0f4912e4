"""What is segmented, under which name, and whether a folder can take the results."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io import case_id, find_images, stem_of
from medfewshot.types import Case

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def find_cases(inputs: Sequence[Path], channels: int = 1) -> list[Case]:
    """The volumes that files, DICOM series folders and folders of volumes stand for, each with a name of its own.

    With several channels, ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... make one case, complete or not: see
    :func:`check_channels`. Where two share a name, their folders' names go in front. Raises InputError where nothing is
    found or names stay the same.
    """
    paths = list({path.resolve(): path for given in inputs for path in find_images(given)}.values())
    if channels == 1:
        cases = [_case(case_id(path), [path]) for path in paths]
    else:
        groups: dict[tuple[Path, str], list[Path]] = {}
        for path in paths:
            groups.setdefault((path.parent, _without_channel(path)), []).append(path)
        cases = [_case(name, sorted(group)) for (_, name), group in groups.items()]
    return _named_apart(cases)


def check_channels(case: Case, channels: int) -> None:
    """Raises InputError where a case has not the files that the segmenter needs."""
    numbers = [int(match[2]) for path in case.image_paths if (match := _CHANNEL.fullmatch(stem_of(path)))]
    if channels > 1 and numbers != list(range(channels)):
        found = ", ".join(path.name for path in case.image_paths)
        wanted = ", ".join(f"{case.case_id}_{number:04d}" for number in range(channels))
        raise InputError(f"{case.image_path.parent}: has {found} where {wanted} are needed; add what is missing")


def check_folder(folder: Path) -> None:
    """Raises InputError where results cannot be written into ``folder``, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file; give a folder with -o")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{existing}: cannot be written to; give another folder with -o")


def _case(name: str, paths: Sequence[Path]) -> Case:
    return Case(name, name, None, tuple(paths))


def _without_channel(path: Path) -> str:
    match = _CHANNEL.fullmatch(stem_of(path))
    return match[1] if match else case_id(path)


def _named_apart(cases: list[Case]) -> list[Case]:
    for case in cases:
        if not case.case_id.strip():
            raise InputError(f"{case.image_path}: has no name before its suffix to give to its result; rename it")

    def count() -> Counter[str]:
        return Counter(case.case_id.casefold() for case in cases)  # as file systems that ignore case would

    counts = count()
    cases = [
        replace(case, case_id=f"{case.image_path.resolve().parent.name}_{case.case_id}")
        if counts[case.case_id.casefold()] > 1
        else case
        for case in cases
    ]
    for name, number in count().items():
        if number > 1:
            first, second = [case.image_path for case in cases if case.case_id.casefold() == name][:2]
            raise InputError(f"{first} and {second}: both would be written as {name}; rename one of them")
    return cases
