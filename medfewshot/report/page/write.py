"""From plain data to one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medfewshot import __version__
from medfewshot.io import write_text
from medfewshot.metrics import METRICS, Metric
from medfewshot.report.page.content import Page, PageCase, StructureRow
from medfewshot.report.page.plots import WIDTH, Dot, StripPlot, strip_plot
from medfewshot.report.paint import COLOURS

HEADLINE = [metric for metric in METRICS.values() if metric.headline]
"""The metrics that have a column and a plot."""


def write_page(path: Path, page: Page) -> Path:
    """Write the page, whole or not at all. Returns ``path``."""
    # A file name may hold bytes that are no letters: they become question marks, not an error at the end of a run.
    write_text(path, render_page(page).encode("utf-8", "replace").decode("utf-8"))
    return path


def render_page(page: Page) -> str:
    """The page as HTML: every text is escaped, and only the page's own scripts may run."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    environment.filters["cell"] = _cell
    environment.filters["heading"] = _heading
    viewing = any(case.viewer for case in page.cases)
    scripts = [_asset("page.js"), *([_asset("niivue.umd.js")] if viewing else [])]
    anchors = {case.name: f"case-{number}" for number, case in enumerate(page.cases, start=1)}
    return environment.from_string(_asset("page.html")).render(
        page=page,
        metrics=HEADLINE,
        style=Markup(_asset("page.css")),
        script=Markup(scripts[0]),
        niivue=Markup(scripts[1]) if viewing else None,
        policy=_policy(scripts),
        anchors=anchors,
        colours={value: COLOURS[i % len(COLOURS)] for i, value in enumerate(page.structures)},
        plots=_plots(page, anchors),
        plot_width=WIDTH,
        settings=Markup(_json_for_html(_settings(page, anchors))),
        flagged=sum(bool(case.flags) and case.status != "failed" for case in page.cases),
        failed=sum(case.status == "failed" for case in page.cases),
        version=__version__,
        row_of=_row_of,
    )


def _asset(name: str) -> str:
    return (files("medfewshot.report.page") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """No network, and no script but these, told by their digests."""
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _settings(page: Page, anchors: dict[str, str]) -> dict[str, Any]:
    """What the viewer's script has to know; the volumes themselves lie in elements of their own."""
    return {
        "labels": [
            {"value": value, "name": name, "colour": COLOURS[i % len(COLOURS)]}
            for i, (value, name) in enumerate(page.structures.items())
        ],
        "cases": [
            {
                "id": anchors[case.name],
                "name": case.name,
                "note": case.viewer.note,
                "reference": bool(case.viewer.reference),
                "uncertainty": bool(case.viewer.uncertainty),
                "centre": case.viewer.centre_mm,
            }
            for case in page.cases
            if case.viewer
        ],
    }


def _json_for_html(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plots(page: Page, anchors: dict[str, str]) -> list[tuple[str, StripPlot]]:
    def rows(value_of: Callable[[StructureRow], float | None]) -> list[tuple[str, list[Dot]]]:
        found = []
        for value, name in page.structures.items():
            dots = [(case.name, value_of(row)) for case in page.cases for row in case.structures if row.label == value]
            found.append((name, [Dot(v, case, anchors[case]) for case, v in dots if v is not None]))
        return found

    def scores(name: str) -> list[tuple[str, list[Dot]]]:
        return rows(lambda row: row.score.values.get(name) if row.score else None)

    wanted = []
    for metric in HEADLINE:
        low = None if metric.better == "zero" else 0.0
        high = 1.0 if metric.better == "higher" else None
        wanted.append((metric.title, strip_plot(scores(metric.name), _heading(metric), low=low, high=high)))
    wanted.append(("Size", strip_plot(rows(lambda row: row.size or None), f"Size in {page.unit}", low=0.0)))
    predicted = rows(lambda row: row.predicted_dice)
    wanted.append(("Predicted Dice", strip_plot(predicted, "Predicted Dice", low=0.0, high=1.0)))
    return [(name, plot) for name, plot in wanted if plot is not None]


def _heading(metric: Metric) -> str:
    return f"{metric.title[:1].upper()}{metric.title[1:]} {metric.unit}".strip()


def _row_of(case: PageCase, value: int) -> StructureRow | None:
    return next((row for row in case.structures if row.label == value), None)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _cell(value: float | None) -> str:
    """A value to sort by: what is undefined sorts last."""
    return "" if value is None else f"{value:.6g}"
