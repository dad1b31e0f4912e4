"""``image=label`` as it is typed on a command line."""

from __future__ import annotations

import re
from pathlib import Path

from medfewshot.errors import InputError

_DRIVE = re.compile(r"(?:^|[=:])[A-Za-z]$")


def parse_pair(text: str) -> tuple[Path, Path]:
    r"""Split ``image=label`` or ``image:label``. Both must exist.

    Paths may contain ``=`` and ``:`` themselves (``C:\a.nii.gz:D:\b.nii.gz``): the split whose two sides exist counts.

    Raises:
        InputError: No separator, a side that does not exist, or more than one possible split.
    """
    splits = [(text[:i], text[i + 1 :], i) for i, sign in enumerate(text) if sign in "=:"]
    splits = [(left, right, i) for left, right, i in splits if left and right]
    if not splits:
        raise InputError(f"'{text}': is no pair", "write image=label, for example scan.nii.gz=scan_label.nii.gz")
    existing = [(Path(left), Path(right)) for left, right, _ in splits if Path(left).exists() and Path(right).exists()]
    if len(existing) == 1:
        return existing[0]
    if existing:
        found = " or ".join(f"({left}, {right})" for left, right in existing)
        raise InputError(f"'{text}': can be split in several ways, {found}", "rename a file, or list the pair in a CSV")
    raise _missing(text, splits)


def _missing(text: str, splits: list[tuple[str, str, int]]) -> InputError:
    """The error for the split that was most likely meant: one side exists, no drive letter, ``=`` before ``:``."""
    ranks = [
        (Path(left).exists() + Path(right).exists(), not _is_drive(text, i), text[i] == "=")
        for left, right, i in splits
    ]
    best = [split for split, rank in zip(splits, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        return InputError(
            f"'{text}': no split into image and label exists on disk, and it is not clear which one is meant",
            "check the paths",
        )
    sides = {"image": best[0][0], "label": best[0][1]}
    missing = " and ".join(f"{name} {side}" for name, side in sides.items() if not Path(side).exists())
    return InputError(f"'{text}': {missing} not found", "check the path, a pair is written image=label")


def _is_drive(text: str, i: int) -> bool:
    return text[i] == ":" and bool(_DRIVE.search(text[:i])) and text[i + 1 : i + 2] in ("\\", "/")
