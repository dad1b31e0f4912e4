"""From plain data to HTML."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medfewshot import __version__
from medfewshot.io import write_text
from medfewshot.metrics import HEADLINES
from medfewshot.report.page.content import Page, PageCase
from medfewshot.report.page.flags import look_first
from medfewshot.report.page.plots import plots_of
from medfewshot.report.page.table import HEADINGS, size_heading, table_of
from medfewshot.report.page.viewer import DisplayVolumes
from medfewshot.report.preview import card_jpeg

PREVIEW_WIDTH = 1320


@dataclass(frozen=True)
class Sheet:
    """One HTML file of a report.

    Attributes:
        cases: The scans that it shows one by one.
        links: Case -> where this file finds it; ``#...`` in the file itself.
        overview: Whether it lists all scans, with scores and plots.
        first: Number of the first of ``cases``, from 1.
        start: The file of the overview, if it is another one.
        before: The file of the scans before.
        after: The file of the scans after.
    """

    cases: Sequence[PageCase]
    links: Mapping[str, str] = field(default_factory=dict)
    overview: bool = True
    first: int = 1
    start: str = ""
    before: str | None = None
    after: str | None = None

    @property
    def anchors(self) -> dict[str, str]:
        """Case -> name of its place in this file."""
        return {case.name: self.links[case.name].lstrip("#") for case in self.cases}


def render_page(page: Page, sheet: Sheet | None = None) -> str:
    """Return a file of the report as HTML: every text is escaped, and only its own scripts may run."""
    sheet = sheet or Sheet(page.cases, anchors_of(page))
    viewing = any(case.viewer for case in sheet.cases)
    scripts = {
        **({"table_script": asset("table.js")} if sheet.overview else {}),
        **({"niivue": asset("niivue.umd.js"), "viewer": asset("viewer.js")} if viewing else {}),
    }
    return fill(
        "page.html",
        filters={"heading": lambda metric: HEADINGS[metric.name]},
        scripts=list(scripts.values()),
        page=page,
        sheet=sheet,
        links=sheet.links,
        anchors=sheet.anchors,
        metrics=HEADLINES,
        size=size_heading(page),
        colours=page.colours,
        look_first=look_first(page.cases),
        plots=plots_of(page) if sheet.overview else [],
        table=table_of(page, sheet.links) if sheet.overview else None,
        settings=_settings(page, sheet),
        **{"niivue": None, **{name: Markup(text) for name, text in scripts.items()}},
    )


def anchors_of(page: Page) -> dict[str, str]:
    """Case -> link to its place in the file that shows it."""
    return {case.name: f"#case-{number}" for number, case in enumerate(page.cases, start=1)}


def fill(template: str, *, filters: Mapping[str, Any], scripts: Sequence[str] = (), **values: Any) -> str:
    """Return a page: a template of ``assets`` in the common style. Every text is escaped; only ``scripts`` may run."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    fixed = {"style": Markup(asset("page.css")), "policy": content_policy(scripts), "version": __version__}
    return environment.from_string(asset(template)).render(**fixed, **values)


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
    maps = [labels[shown] for labels in (volumes.labels, volumes.reference) if labels is not None]
    return jpeg_uri(card_jpeg(volumes.grey[shown], [maps], volumes.grid, rank=rank, window=(0, 255)))


def jpeg_uri(data: bytes) -> str:
    """Return a JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def asset(name: str) -> str:
    """Return the text of a file in ``assets``."""
    return (files("medfewshot.report.page") / "assets" / name).read_text(encoding="utf-8")


def write_html(path: Path, text: str) -> None:
    """Write a page. Bytes in file names that are no letters become question marks, not an error after a long run."""
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))


def content_policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: no network, and no scripts except these, identified by their digests."""
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _settings(page: Page, sheet: Sheet) -> dict[str, Any]:
    """Return what the viewer's script must know; the volumes are in elements of their own."""
    anchors = sheet.anchors
    return {
        "labels": [
            {"value": value, "name": name, "colour": page.colours[value]} for value, name in page.structures.items()
        ],
        "cases": [
            {
                "id": anchors[case.name],
                "name": case.name,
                "note": case.viewer.note,
                "reference": bool(case.viewer.reference),
                "uncertainty": bool(case.viewer.uncertainty),
                "centre": case.viewer.centre_mm,
                "frames": case.viewer.frames,
                "paused": case.viewer.paused,
            }
            for case in sheet.cases
            if case.viewer
        ],
    }
