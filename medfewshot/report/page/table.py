"""Rows of the table of all scans, as ``table.js`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medfewshot.metrics import HEADLINES
from medfewshot.report.page.content import ABSENT, Page, StructureRow

HEADINGS = {metric.name: f"{metric.title[:1].upper()}{metric.title[1:]} {metric.unit}".strip() for metric in HEADLINES}
CONFIDENCE = "Confidence"


def size_heading(page: Page) -> str:
    """Return the heading of sizes, with their unit."""
    return {"ml": "Volume", "voxels": "Size"}.get(page.unit, "Area") + f" {page.unit}"


def table_of(page: Page, links: Mapping[str, str]) -> dict[str, Any]:
    """Return the table as plain data.

    Returns:
        ``columns`` of numbers (a label, and digits; without digits: of a size); ``structures`` by label value;
        ``scans`` (name, link, failed, seconds); ``reasons``, each text once; ``rows``: positions of scan and reason,
        label value (None for a scan without structures), numbers (or a word in place of one), number of reasons.
    """
    columns: list[dict[str, Any]] = [
        *([{"label": HEADINGS[metric.name], "digits": metric.digits} for metric in HEADLINES] if page.scored else []),
        {"label": CONFIDENCE, "digits": 2},
        {"label": size_heading(page)},
        *([{"label": f"Reference {page.unit}"}] if page.scored else []),
    ]
    reasons: dict[str, int] = {"": 0}
    rows = []
    for number, case in enumerate(page.cases):
        for row in case.structures or [None]:
            why = "; ".join(row.flags) if row else ""
            rows.append(
                {
                    "scan": number,
                    "label": row.label if row else None,
                    "numbers": _numbers(row, page.scored) if row else [],
                    "reason": reasons.setdefault(why, len(reasons)),
                    "count": len(row.flags) if row else 0,
                }
            )
    return {
        "columns": columns,
        "structures": {value: {"name": name, "colour": page.colours[value]} for value, name in page.structures.items()},
        "scans": [
            {"name": case.name, "link": links[case.name], "failed": case.failed, "seconds": _short(case.seconds)}
            for case in page.cases
        ],
        "reasons": list(reasons),
        "rows": rows,
    }


def _numbers(row: StructureRow, scored: bool) -> list[float | str | None]:
    values: list[float | str | None] = [_short(row.predicted_dice), _short(row.size)]
    if not scored:
        return values
    scores: list[float | str | None] = [_short(row.scores.get(metric.name)) for metric in HEADLINES]
    if row.status == ABSENT:
        scores[0] = "absent"
    return [*scores, *values, _short(row.reference_size)]


def _short(value: float | None) -> float | None:
    """Round to six digits, which no column shows all of."""
    return None if value is None else float(f"{value:.6g}")
