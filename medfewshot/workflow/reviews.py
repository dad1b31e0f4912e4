"""The review status of results: ``reviews.csv`` beside them, as the workbench writes it."""

from __future__ import annotations

import csv
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io import EXPORTS

REVIEWS = "reviews.csv"
_BELOW = {"nifti", "report", *EXPORTS}
"""Folders of an export, which has one file of reviews above them."""


def review_status(status: str, dice: float | None) -> str:
    """Return ``corrected`` for an accepted mask that differs from its draft, and other statuses as they are.

    Args:
        status: Of the review.
        dice: Mean Dice between the draft and the mask; None if there was only one of them.
    """
    return "corrected" if status == "accepted" and dice is not None and dice < 1 else status


def read_review_status(folder: Path) -> dict[str, str]:
    """Read the newest review status of each case, from ``reviews.csv`` in ``folder``; for an export, in the one above.

    Returns:
        Case -> status; empty without such a file.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / REVIEWS
    if not path.is_file() and folder.name in _BELOW:
        path = folder.parent / REVIEWS
    if not path.is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(row["case"], row["status"], row["dice"]) for row in csv.DictReader(file)]
        return {case: review_status(status, float(dice) if dice else None) for case, status, dice in rows if status}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})", "correct the line, or move the file away") from None
