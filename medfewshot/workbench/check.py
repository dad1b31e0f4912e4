"""The check of the examples: each mask against those of the others, as the last learning found it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medfewshot.io import write_text
from medfewshot.workbench.project import Project

CHECKS = "checks.json"


def write_checks(project: Project, cases: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
    """Store what :func:`medfewshot.quality.check_supports` says about each case, in the same order."""
    rows = []
    for case, row in zip(cases, found, strict=True):
        message = row["message"].replace(f"check {row['support']}:", f"check {case}:")
        rows.append({"case": case, "dice": row["dice"], "message": message})
    write_text(project.folder / CHECKS, json.dumps(rows, indent=1) + "\n")


def checks(project: Project) -> list[dict[str, Any]]:
    """Read the last check: ``case``, ``dice`` (None if there was nothing to compare with) and ``message``.

    The message is empty unless the mask fits none of the others. Cases that are no examples any more are dropped.
    """
    try:
        rows = json.loads((project.folder / CHECKS).read_text(encoding="utf-8"))
        known = {case.case_id for case in project.examples()}
        return [dict(row) for row in rows if row["case"] in known]
    except (OSError, ValueError, TypeError, KeyError):
        return []
