"""The state of a case, and the order of cases: what to label next comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medfewshot.workbench.choice import Assessment, in_order_of_need
from medfewshot.workbench.drafts import DraftFacts
from medfewshot.workbench.mask_store import MaskFacts
from medfewshot.workbench.reviews import Review

GROUPS = ("needs review", "draft", "unlabelled", "rejected", "example", "accepted")


@dataclass(frozen=True)
class CaseState:
    """The state of one case.

    Args:
        name: Of the case.
        scan: Path of the scan.
        status: ``unlabelled``, ``draft``, ``needs review``, ``accepted``, ``rejected`` or ``example``.
        reason: Why it needs a review; empty if it does not.
        version: Of the mask by hand; 0 if there is none.
        confidence: Expected mean Dice of the draft; None without a draft.
        note: The newest note of a reviewer.
        distance: From the scan to the nearest example, by intensities; None if unknown.
        draft: Number of the draft, counted from 1; 0 if there is none.
        frame: Number of the frame, if the scan is a frame of a film.
    """

    name: str
    scan: Path
    status: str
    reason: str = ""
    version: int = 0
    confidence: float | None = None
    note: str = ""
    distance: float | None = None
    draft: int = 0
    frame: int | None = None


def status_of(facts: MaskFacts, draft: DraftFacts, given: Review | None) -> tuple[str, str]:
    """Status and reason of a case from its mask, its draft and the review of the newer of them."""
    if given is not None:
        return given.status, given.note if given.status == "needs review" else ""
    if not facts.empty:
        return ("example", "") if facts.teaches or facts.complete else ("unlabelled", "")
    if draft.number:
        return ("needs review", draft.reason) if draft.reason else ("draft", "")
    return "unlabelled", ""


def in_order(cases: Sequence[CaseState]) -> list[CaseState]:
    """Cases that need a label first: those that are high in both ranks, by uncertainty and by distance.

    Cases without a draft follow, then those that a person has dealt with, each group by name.
    """
    assessments = {
        case.name: Assessment(1 - (case.confidence or 0.0), case.distance or 0.0)
        for case in cases
        if case.status in ("needs review", "draft") and case.draft
    }
    place = {name: number for number, name in enumerate(in_order_of_need(assessments))}
    groups = {status: max(number, 1) for number, status in enumerate(GROUPS)}  # drafts are one group, flagged or not
    return sorted(cases, key=lambda case: (groups[case.status], place.get(case.name, len(place)), case.name))
