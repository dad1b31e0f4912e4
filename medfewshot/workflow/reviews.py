"""The review status of results: ``reviews.csv`` beside them, as the workbench writes it."""

from __future__ import annotations

import csv
from pathlib import Path

from medfewshot.errors import InputError

REVIEWS = "reviews.csv"


def review_status(status: str, dice: float | None) -> str:
    """Return ``corrected`` for an accepted mask that differs from its draft, and other statuses as they are.

    Args:
        status: Of the review.
        dice: Mean Dice between the draft and the mask; None if there was only one of them.
    """
    return "corrected" if status == "accepted" and dice is not None and dice < 1 else status


def read_review_status(folder: Path) -> dict[str, str]:
    """Read the newest review status of each case, from ``reviews.csv`` in ``folder`` or the folder above.

    Returns:
        Case -> status; empty without such a file.

    Raises:
        InputError: The file is damaged.
    """
    path = next((one for one in (folder / REVIEWS, folder.parent / REVIEWS) if one.is_file()), None)
    if path is None:
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(row["case"], row["status"], row["dice"]) for row in csv.DictReader(file)]
        return {case: review_status(status, float(dice) if dice else None) for case, status, dice in rows if status}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "correct the line, or move the file away") from None
