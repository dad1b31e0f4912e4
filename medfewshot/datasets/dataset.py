"""What every layout becomes: a ``Dataset`` of ``Case``s, paths only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfewshot.errors import InputError, some
from medfewshot.io import case_id
from medfewshot.types import Case

_MR_WORDS = re.compile(r"(?:^|[^A-Z])(MRI?|T1\w*|T2\w*|FLAIR|ADC|DWI|BSSFP|SPIR)(?:$|[^A-Z])")


@dataclass(frozen=True)
class Dataset:
    """Cases found on disk, sorted by file name.

    Attributes:
        labels: Label value in the files -> name, without background. Empty if the layout names none.
        notes: What was found and ignored, one line each.
        ignore: Label value of voxels that are not annotated; None if the layout names none.
    """

    name: str
    modality: str | None
    labels: Mapping[int, str]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    ignore: int | None = None

    @property
    def channels(self) -> int:
        """Number of channels of an image, as far as the files tell; 1 without cases."""
        return max(
            (*(len(case.image_paths) for case in self.cases), *(case.channels for case in self.cases)), default=1
        )

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that have a label file."""
        return tuple(case for case in self.cases if case.label_path is not None)


Layout = Callable[[Path], Dataset | None]
"""Reads an existing file or folder; None if the layout does not fit. Raises InputError if it fits but is broken."""


def path_id(path: Path) -> str:
    """Case id of a file or of a DICOM folder."""
    return path.name if path.is_dir() else case_id(path)


def checked(cases: Iterable[Case], where: Path) -> tuple[Case, ...]:
    """Sort the cases by file name, whatever the layout, because splits into support and query refer to this order.

    Raises:
        InputError: Their numbers of channel files differ.
    """
    ordered = tuple(sorted(cases, key=lambda case: (case.image_path.name, str(case.image_path))))
    example = {len(case.image_paths): case.case_id for case in reversed(ordered)}
    if len(example) > 1:
        found = some([f"{name} has {count}" for count, name in sorted(example.items())])
        raise InputError(f"{where}: cases differ in their number of channel files ({found})", "add the missing files")
    return ordered


def dataset_of(
    folder: Path,
    cases: Iterable[Case],
    notes: Iterable[str] = (),
    *,
    modality: str | None = None,
    labels: Mapping[int, str] | None = None,
) -> Dataset | None:
    """Return the data set of these cases, named after ``folder``; None if no case has a label.

    Raises:
        InputError: The cases differ in their number of channel files.
    """
    cases = tuple(cases)
    if not any(case.label_path for case in cases):
        return None
    return Dataset(folder.resolve().name, modality, labels or {}, checked(cases, folder), tuple(notes))


def skipped(paths: Sequence[Path], reason: str) -> tuple[str, ...]:
    """Return one line about files that a layout ignores, for ``Dataset.notes``; none without files."""
    if not paths:
        return ()
    many = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (f"{paths[0]}{many}: skipped, because {reason}",)


def modality_of(channel_names: Sequence[str]) -> str | None:
    """Return the name of a single channel. For several: "CT" or "MR" if all of them are that, else None."""
    if len(channel_names) == 1:
        return channel_names[0]
    kinds = {_kind(name) for name in channel_names}
    return kinds.pop() if len(kinds) == 1 else None


def _kind(name: str) -> str | None:
    upper = name.upper()
    if upper.startswith("CT"):
        return "CT"
    return "MR" if _MR_WORDS.search(upper) else None
