"""Volumes to segment: found on disk and named; and whether a folder can take results."""

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
    """Find volumes and give each a unique name.

    With several channels, ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... make one case, complete or not: see
    :func:`check_channels`. If two volumes share a name, the names of their folders go in front.

    Args:
        inputs: Files, DICOM series folders, and folders of volumes.
        channels: Images per volume.

    Raises:
        InputError: Nothing is found, or two results would have the same name.
    """
    paths = list({path.resolve(): path for given in inputs for path in find_images(given)}.values())
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        channel = _CHANNEL.fullmatch(stem_of(path)) if channels > 1 else None
        key = (path, case_id(path)) if channels == 1 else (path.parent, channel[1] if channel else case_id(path))
        groups.setdefault(key, []).append(path)
    return _named_apart([Case(name, name, None, tuple(sorted(group))) for (_, name), group in groups.items()])


def check_channels(case: Case, channels: int) -> None:
    """Raises InputError if a case lacks files that the segmenter needs."""
    numbers = [int(match[2]) for path in case.image_paths if (match := _CHANNEL.fullmatch(stem_of(path)))]
    if channels > 1 and numbers != list(range(channels)):
        found = ", ".join(path.name for path in case.image_paths)
        wanted = ", ".join(f"{case.case_id}_{number:04d}" for number in range(channels))
        raise InputError(f"{case.image_path.parent}: has {found}, but {wanted} are needed", "add what is missing")


def check_folder(folder: Path) -> None:
    """Raises InputError if nothing can be written into ``folder``, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file", "give a folder", setting="output")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{existing}: cannot be written to", "give another folder", setting="output")


def _named_apart(cases: list[Case]) -> list[Case]:
    for case in cases:
        if not case.case_id.strip():
            raise InputError(f"{case.image_path}: has no name before its suffix", "rename it")

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
            raise InputError(f"{first} and {second}: both would be written as {name}", "rename one of them")
    return cases
