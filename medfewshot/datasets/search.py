"""Search of folders for scans whose names follow the rule of a public data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from medfewshot.datasets.dataset import skipped
from medfewshot.errors import InputError
from medfewshot.io import FORMATS, looks_like_label, stem_of

_SUFFIXES = tuple(suffix for one in FORMATS if not one.folders and not one.only_2d for suffix in one.suffixes)
"""Of files that contain a whole volume."""


def scans_below(folder: Path, *, depth: int) -> list[Path]:
    """Return the 3D volume files in a folder and in the folders below it, sorted. Hidden ones are ignored.

    Args:
        folder: Where to search; a file has none.
        depth: How many folders deep to look; 0 looks into ``folder`` alone.
    """
    return [Path(path) for path in sorted(_scans(os.fspath(folder), depth))] if folder.is_dir() else []


def by_key(paths: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Return the files whose names without suffix match a pattern, by its first group.

    Raises:
        InputError: Two files have the same key.
    """
    rule, found = re.compile(pattern, re.IGNORECASE), dict[str, Path]()
    for path in paths:
        # The first match is quick, and few of many files pass it.
        match = rule.fullmatch(stem_of(path)) if rule.match(path.name) else None
        if match is None:
            continue
        if found.setdefault(match[1], path) != path:
            raise InputError(f"{found[match[1]]} and {path}: both belong to case '{match[1]}'", "keep one of them")
    return found


def images_and_labels(
    paths: Sequence[Path], image: str, label: str
) -> tuple[dict[str, Path], dict[str, Path], tuple[str, ...]]:
    """Return images and labels by key, and notes about other labels; nothing if no file has the name of a label."""
    labels = by_key(paths, label)
    images = by_key(paths, image) if labels else {}
    others = [path for path in paths if labels and looks_like_label(path) and path not in labels.values()]
    return images, labels, (*orphans(labels, images), *skipped(others, "it is not named like the other labels"))


def orphans(labels: Mapping[str, Path], images: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a note about the labels without an image."""
    return skipped([path for key, path in labels.items() if key not in images], "no scan has its number")


def folders_below(folder: Path, pattern: str, *, depth: int) -> list[Path]:
    """Return the folders whose names match, at most ``depth`` folders below ``folder``, which may match itself."""
    rule = re.compile(pattern, re.IGNORECASE)
    if not folder.is_dir():
        return []
    if rule.fullmatch(folder.resolve().name):
        return [folder]
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in children if rule.fullmatch(path.name)]
    for child in children if depth else ():
        found += [] if child in found else folders_below(child, pattern, depth=depth - 1)
    return found


def _scans(folder: str, depth: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(_SUFFIXES) and entry.is_file():
                yield entry.path
            elif depth and entry.is_dir():
                yield from _scans(entry.path, depth - 1)
