"""The quality curve: how well drafts fit what a person made of them, correction by correction."""

from __future__ import annotations

from typing import Any

from medfewshot.workbench.project import Project

RECENT = 3
"""The newest corrections that are compared with those before them."""
GAIN = 0.01
"""Rise of the mean Dice below which further labels help little."""
GOOD = 0.85


def curve(project: Project) -> list[dict[str, Any]]:
    """List the Dice between draft and reviewed mask, in the order of the reviews.

    Returns:
        ``labels`` (how many were reviewed by then), ``dice`` and ``case``. A case counts once, by its last review.
    """
    last = {review.case: review for review in project.reviews() if review.dice is not None}
    ordered = sorted(last.values(), key=lambda review: review.time)
    return [{"labels": n, "dice": review.dice, "case": review.case} for n, review in enumerate(ordered, start=1)]


def advice(project: Project) -> str:
    """Return one sentence on whether further labels help; empty while too few drafts were reviewed to tell."""
    values = [float(point["dice"]) for point in curve(project)]
    if len(values) < 2 * RECENT:
        return ""
    now, before = (sum(part) / RECENT for part in (values[-RECENT:], values[-2 * RECENT : -RECENT]))
    if now - before >= GAIN:
        return f"Labels still help: drafts reach Dice {now:.2f}, {now - before:.2f} more than before."
    if now >= GOOD:
        return f"Further labels help little: the last {RECENT} drafts reached Dice {now:.2f}. You can stop here."
    return (
        f"The last {RECENT} drafts reached Dice {now:.2f} and no longer improve: "
        "check the examples, or label scans that look different."
    )
