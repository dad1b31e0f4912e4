"""From plain data to one HTML file."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from medfewshot import __version__
from medfewshot.io import write_text
from medfewshot.metrics import METRICS, Metric
from medfewshot.report.page.content import Page, StructureRow
from medfewshot.report.page.flags import look_first
from medfewshot.report.page.viewer import DisplayVolumes
from medfewshot.report.paint import colour_of
from medfewshot.report.preview import card_jpeg

if TYPE_CHECKING:
    from jinja2 import Environment

HEADLINE = [metric for metric in METRICS.values() if metric.headline]
"""The metrics that have a column and a plot."""
PREVIEW_WIDTH = 1320


def write_page(path: Path, page: Page) -> Path:
    """Write the page, whole or not at all. Returns ``path``."""
    # A file name may contain bytes that are no letters: they become question marks, not an error at the end of a run.
    write_text(path, render_page(page).encode("utf-8", "replace").decode("utf-8"))
    return path


def render_page(page: Page) -> str:
    """Return the page as HTML: every text is escaped, and only the page's own scripts may run."""
    environment = page_environment()
    environment.filters |= {"heading": _heading, "median": median}
    viewing = any(case.viewer for case in page.cases)
    scripts = [asset("page.js"), *([asset("niivue.umd.js")] if viewing else [])]
    anchors = {case.name: f"case-{number}" for number, case in enumerate(page.cases, start=1)}
    colours = {value: colour_of(rank) for rank, value in enumerate(page.structures, start=1)}
    return environment.from_string(asset("page.html")).render(
        page=page,
        metrics=HEADLINE,
        size=_size_heading(page),
        style=Markup(asset("page.css")),
        script=Markup(scripts[0]),
        niivue=Markup(scripts[1]) if viewing else None,
        policy=content_policy(scripts),
        anchors=anchors,
        colours=colours,
        look_first=look_first(page.cases),
        plots=_plots(page),
        settings=_settings(page, anchors, colours),
        version=__version__,
    )


def page_environment() -> Environment:
    """Return how the templates of pages are read: every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def preview_uri(path: Path) -> str:
    """Return a picture as a data URI: JPEG, at most ``PREVIEW_WIDTH`` pixels wide."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PREVIEW_WIDTH, 10 * PREVIEW_WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return jpeg_uri(buffer.getvalue())


def card_uri(volumes: DisplayVolumes, rank: int | None) -> str:
    """Paint one slice of a case as a data URI; structure ``rank`` decides which slice."""
    shown = (...,) if len(volumes.shape) == 3 else (..., 0)
    reference = None if volumes.reference is None else volumes.reference[shown]
    return jpeg_uri(
        card_jpeg(
            volumes.grey[shown], volumes.labels[shown], volumes.grid, rank=rank, reference=reference, window=(0, 255)
        )
    )


def jpeg_uri(data: bytes) -> str:
    """Return a JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def asset(name: str) -> str:
    """Return the text of a file in ``assets``."""
    return (files("medfewshot.report.page") / "assets" / name).read_text(encoding="utf-8")


def content_policy(scripts: list[str]) -> str:
    """Return a content security policy: no network, and no scripts except these, identified by their digests."""
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _settings(page: Page, anchors: dict[str, str], colours: dict[int, str]) -> dict[str, Any]:
    """Return what the viewer's script must know; the volumes are in elements of their own."""
    return {
        "labels": [{"value": v, "name": name, "colour": colours[v]} for v, name in page.structures.items()],
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


def _heading(metric: Metric) -> str:
    return f"{metric.title[:1].upper()}{metric.title[1:]} {metric.unit}".strip()


def _size_heading(page: Page) -> str:
    return f"{'Volume' if page.unit == 'ml' else 'Area'} {page.unit}"


class StripPlot(NamedTuple):
    """One measurement of every case, which ``page.html`` draws as dots.

    Attributes:
        title: name of the measurement, with its unit.
        ticks: round numbers from at most the smallest to at least the largest value.
        rows: (label value, its dots as (case, value)).
    """

    title: str
    ticks: list[float]
    rows: list[tuple[int, list[tuple[str, float]]]]


def _plots(page: Page) -> list[StripPlot]:
    """Return a plot of each measurement that any case has."""

    def score(metric: str) -> Callable[[StructureRow], float | None]:
        return lambda row: row.scores.get(metric)

    plots = []
    for metric in HEADLINE:
        low = None if metric.better == "zero" else 0.0
        high = 1.0 if metric.better == "higher" else None
        plots.append(_plot(page, _heading(metric), score(metric.name), low=low, high=high))
    plots.append(_plot(page, _size_heading(page), lambda row: row.size or None, low=0.0))
    plots.append(_plot(page, "Confidence", lambda row: row.predicted_dice, low=0.0, high=1.0))
    return [plot for plot in plots if plot is not None]


def _plot(
    page: Page, title: str, value_of: Callable[[StructureRow], float | None], *,
    low: float | None, high: float | None = None,
) -> StripPlot | None:  # fmt: skip
    """Collect the finite values; the axis runs from ``low`` to ``high``, by default the smallest and largest value."""
    from matplotlib.ticker import MaxNLocator

    measured = [
        (row.label, case.name, value)
        for case in page.cases
        for row in case.structures
        if (value := value_of(row)) is not None and math.isfinite(value)
    ]
    if not measured:
        return None
    values = [value for _, _, value in measured]
    low = min(values) if low is None else low
    high = max(values) if high is None else high
    ticks = MaxNLocator(5, steps=(1, 2, 5, 10)).tick_values(low, high if high > low else low + 1)
    rows = [(label, [(case, value) for v, case, value in measured if v == label]) for label in page.structures]
    return StripPlot(title, list(ticks), rows)
