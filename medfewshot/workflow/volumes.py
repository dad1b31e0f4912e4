"""Volumes to segment: found on disk and named, or made of arrays and tensors; and folders that take results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.data_dictionary import check_dictionary
from medfewshot.errors import InputError
from medfewshot.io import case_id, channel_of, channels_in_file, find_images, first_volume
from medfewshot.types import Case, Volume


def find_cases(inputs: Sequence[Path], channels: int = 1) -> list[Case]:
    """Find volumes and give each a unique name.

    With several channels, ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... make one case, complete or not, and so do
    the four scans of a BraTS case: see :func:`check_channels`. If volumes share a name, as many folders go in front as
    tell them apart.

    Args:
        inputs: Files, DICOM series folders, and folders of volumes.
        channels: Images per volume.

    Raises:
        InputError: Nothing is found, or two results would have the same name.
    """
    files: dict[Path, Path] = {}
    for path in (path for given in inputs for path in find_images(given)):
        if path.resolve() not in files or not path.is_symlink():  # the file itself rather than a link to it
            files[path.resolve()] = path
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in files.values():
        channel = channel_of(path) if channels > 1 and channels_in_file(path) != channels else None
        key = (path, case_id(path)) if channel is None else (path.parent, channel[0])
        groups.setdefault(key, []).append(path)
    ordered = {
        key: sorted(group, key=lambda path: (channel_of(path) or ("", 0), path)) for key, group in groups.items()
    }
    return _named_apart([Case(name, name, None, tuple(group)) for (_, name), group in ordered.items()])


def read_cohort(cases: Sequence[Case], channels: int = 1, *, skipped: list[str] | None = None) -> Iterator[Volume]:
    """Read scans one at a time, in random order; unreadable ones are skipped.

    Args:
        cases: The scans.
        channels: Images per scan.
        skipped: Receives the names of unreadable ones.
    """
    order = np.random.default_rng(0).permutation(len(cases))
    for case in (cases[number] for number in order):
        try:
            volume = first_volume(case.image_paths, channels=channels)
        except (InputError, OSError):  # it fails when it is segmented
            if skipped is not None:
                skipped.append(case.case_id)
            continue
        yield volume


def channels_a_scan(paths: Iterable[Path]) -> int:
    """Return how many files each scan has: 1 unless two or more names have files of the same numbers 0000, 0001, ..."""
    numbers: dict[tuple[Path, str], list[int]] = {}
    for path, (name, number) in ((path, found) for path in paths if (found := channel_of(path))):
        numbers.setdefault((path.parent, name), []).append(number)
    channels = {tuple(sorted(found)) for found in numbers.values()}
    return len(channels.pop()) if len(numbers) > 1 and len(channels) == 1 else 1


def check_channels(case: Case, channels: int) -> None:
    """Check that a case has all files that the segmenter needs."""
    numbers = [channel[1] for path in case.image_paths if (channel := channel_of(path))]
    in_one_file = len(case.image_paths) == 1 and channels_in_file(case.image_path) == channels
    if channels > 1 and numbers != list(range(channels)) and not in_one_file:
        found = ", ".join(path.name for path in case.image_paths)
        wanted = ", ".join(f"{case.case_id}_{number:04d}" for number in range(channels))
        remedy = f"add the missing files{', or save the picture in colour' if channels == 3 else ''}"
        raise InputError(f"{case.image_path.parent}: has {found}, but {wanted} are needed", remedy)


def check_order(case: Case) -> None:
    """Check that the channels of a labelled scan come in the order in which :func:`find_cases` reads other scans."""
    numbered = [(found[1], path.name) for path in case.image_paths if (found := channel_of(path))]
    if numbered != sorted(numbered):
        given, wanted = (", ".join(name for _, name in order) for order in (numbered, sorted(numbered)))
        raise InputError(f"{given}: the channels of scans to segment are read in another order", f"list {wanted}")


def check_folder(folder: Path) -> None:
    """Check that files can be written into ``folder``, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file", "give a folder", setting="output")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{existing}: cannot be written to", "give another folder", setting="output")


def check_tables_folder(folder: Path, names: Iterable[str] = (), command: str = "") -> None:
    """Check that tables can be written into ``folder``, and that ``command`` replaces no file of these ``names``."""
    check_folder(folder)
    check_dictionary(folder)
    for name in names:
        if (folder / name).exists():
            problem = f"{folder / name}: exists already and is no result of {command}"
            raise InputError(problem, "give another folder", setting="output")


def _named_apart(cases: list[Case]) -> list[Case]:
    """Put as many folders in front of equal names as tell them apart: ``PA1_ST1_SE1`` and ``PA2_ST1_SE1``."""
    for case in cases:
        if not case.case_id.strip():
            raise InputError(f"{case.image_path}: has no name before its suffix", "rename it")

    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.case_id.casefold(), []).append(case)
    depths = {name: _depth(group) for name, group in groups.items()}
    cases = [replace(case, case_id=_name(case, depths[case.case_id.casefold()])) for case in cases]
    for name, number in Counter(case.case_id.casefold() for case in cases).items():  # as some file systems compare
        if number > 1:
            first, second = [case.image_path for case in cases if case.case_id.casefold() == name][:2]
            raise InputError(f"{first} and {second}: both would be written as {name}", "rename one of them")
    return cases


def _depth(group: list[Case]) -> int:
    """Return the fewest folders that tell cases of one name apart, as far as folders can."""
    deepest = max(len(case.image_path.resolve().parents) for case in group) - 1
    different = [len({_name(case, depth).casefold() for case in group}) for depth in range(deepest + 1)]
    return different.index(max(different))


def _name(case: Case, depth: int) -> str:
    folders = case.image_path.resolve().parent.parts[1:]
    return "_".join([*folders[max(0, len(folders) - depth) :], case.case_id])
