"""``image=label`` as it is typed on a command line."""

from __future__ import annotations

import re
from pathlib import Path

from medfewshot.errors import InputError

_DRIVE = re.compile(r"(?:^|[=:])[A-Za-z]$")


def parse_pair(text: str) -> tuple[Path, Path]:
    r"""Split ``image=label`` or ``image:label``; both must exist.

    Paths may contain ``=`` and ``:`` themselves (``C:\a.nii.gz:D:\b.nii.gz``): the split whose two sides exist counts.

    Raises:
        InputError: no separator, a side that does not exist (it is named), or more than one possible split.
    """
    splits = [(text[:i], text[i + 1 :], i) for i, sign in enumerate(text) if sign in "=:"]
    splits = [(left, right, i) for left, right, i in splits if left and right]
    if not splits:
        raise InputError(f"'{text}': expected image=label, for example scan.nii.gz=scan_label.nii.gz")
    existing = [split for split in splits if Path(split[0]).exists() and Path(split[1]).exists()]
    if len(existing) == 1:
        return Path(existing[0][0]), Path(existing[0][1])
    if existing:
        found = " or ".join(f"({left}, {right})" for left, right, _ in existing)
        raise InputError(f"'{text}': can be split in several ways, {found}. Rename a file, or list the pair in a CSV")
    return _explain_missing(text, splits)


def _explain_missing(text: str, splits: list[tuple[str, str, int]]) -> tuple[Path, Path]:
    """Raise for the split that was most likely meant: one side exists, no drive letter, ``=`` before ``:``."""
    ranks = [
        (Path(left).exists() + Path(right).exists(), not _is_drive(text, i), text[i] == "=")
        for left, right, i in splits
    ]
    best = [split for split, rank in zip(splits, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        raise InputError(f"'{text}': not clear where the image ends and the label begins, and no split exists on disk")
    left, right, _ = best[0]
    missing = " and ".join(
        f"{name} {side}" for name, side in (("image", left), ("label", right)) if not Path(side).exists()
    )
    raise InputError(f"'{text}': {missing} not found. Check the path; a pair is written image=label")


def _is_drive(text: str, i: int) -> bool:
    return text[i] == ":" and bool(_DRIVE.search(text[:i])) and text[i + 1 : i + 2] in ("\\", "/")
