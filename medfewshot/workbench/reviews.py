"""``reviews.csv``: what reviewers said about masks and drafts, oldest first."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io import write_csv

STATUSES = ("accepted", "rejected", "needs review")
"""What a reviewer can say about a case."""


@dataclass(frozen=True)
class Review:
    """One row of ``reviews.csv``.

    Args:
        time: In UTC.
        case: Name of the case.
        status: One of :data:`STATUSES`; empty for a note alone.
        version: Of the mask that was reviewed; 0 if it was a draft.
        draft: Number of the draft at that time; 0 if there was none.
        dice: Mean Dice between the draft and the mask; None if there was only one of them.
        note: For people.
    """

    time: str
    case: str
    status: str
    version: int
    draft: int
    dice: float | None = None
    note: str = ""


class ReviewLog:
    """The reviews of a project. Not safe for several threads: the project has the lock.

    Args:
        path: Of the CSV file, which need not exist.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._take(_read(path))

    def _take(self, rows: list[Review]) -> None:
        self.rows, self._of_case = rows, dict[str, list[Review]]()
        for row in rows:
            self._of_case.setdefault(row.case, []).append(row)

    def add(self, review: Review) -> None:
        """Add a review to the file, which another program may have changed."""
        rows = [*_read(self.path), review]
        write_csv(self.path, [asdict(one) for one in rows])
        self._take(rows)

    def of(self, case: str) -> list[Review]:
        """Return the reviews of one case, oldest first."""
        return self._of_case.get(case, [])

    def current(self, case: str, *, version: int, draft: int | None = None) -> Review | None:
        """Return the newest status of this version of the mask, and of this draft if given; None if there is none.

        A mask or draft that changed since has to be reviewed again.
        """
        given = next((review for review in reversed(self.of(case)) if review.status), None)
        if given is None or given.version != version or draft not in (None, given.draft):
            return None
        return given

    def note(self, case: str) -> str:
        """Return the newest note about a case."""
        return next((review.note for review in reversed(self.of(case)) if review.note), "")


def _review(row: Mapping[str, str]) -> Review:
    """Return the review of a row. Raises ValueError, KeyError or TypeError if it is none."""
    dice = float(row["dice"]) if row["dice"] else None
    if row["status"] not in ("", *STATUSES) or not (dice is None or 0 <= dice <= 1):
        raise ValueError(f"status {row['status'][:60]!r}, dice {dice}")
    return Review(row["time"], row["case"], row["status"], int(row["version"]), int(row["draft"]), dice, row["note"])


def _read(path: Path) -> list[Review]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_review(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})", "correct the line, or move the file away") from None
