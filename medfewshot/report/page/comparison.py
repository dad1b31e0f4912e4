"""The page about two segmentations of the same scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medfewshot.evaluation import Comparison, measure_title, p_text
from medfewshot.report.page.write import fill, write_html
from medfewshot.report.paint import colour_of


@dataclass(frozen=True)
class ComparisonPage:
    """What the page shows.

    Attributes:
        first: Folder of the first result.
        second: Folder of the second result.
        reference: Folder of the references; None without them.
        comparison: The numbers.
        changes: The scans that changed most, in order -> by how much: see :attr:`Comparison.changes`.
        pictures: Scan -> picture as a data URI, as far as there is one.
        volume_plot: Bland-Altman plots as a data URI; None in 2D.
    """

    first: str
    second: str
    reference: str | None
    comparison: Comparison
    changes: Mapping[str, float]
    pictures: Mapping[str, str]
    volume_plot: str | None


def write_comparison_page(path: Path, page: ComparisonPage) -> None:
    """Write the page, whole or not at all."""
    found = page.comparison
    structures = dict.fromkeys(score.label_name for score in found.direct.scores)
    text = fill(
        "comparison.html",
        filters={"measure": measure_title, "p_text": p_text},
        page=page,
        found=found,
        differences=[(row, row.row()) for row in found.differences],
        overlap=found.direct.summary_rows(),
        rows={case: [row for row in found.case_rows() if row["case"] == case] for case in page.changes},
        scans=len({score.case_id for score in found.direct.scores}),
        colours={name: colour_of(rank) for rank, name in enumerate(structures, start=1)},
    )
    write_html(path, text)
