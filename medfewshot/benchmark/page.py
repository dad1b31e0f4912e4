"""The report as one HTML page that a person can read from top to bottom; it needs no other file and no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medfewshot.benchmark.pictures import choose
from medfewshot.benchmark.results import Group
from medfewshot.benchmark.tables import Table
from medfewshot.io import write_text

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(
    path: Path,
    *,
    protocol: str,
    head: Sequence[str],
    tables: Sequence[Table],
    plots: Sequence[Path],
    failures: Mapping[str, str],
    cases: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page; returns ``path``. ``head``: paragraphs; ``plots``: SVG files; ``cases``: see
    :func:`case_pictures`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        protocol=protocol,
        head=[part.replace("`", "").lstrip("#- ").strip() for part in head if part.strip(" #")],
        tables=[table for table in tables if table.rows],
        plots=[{"title": plot.stem.replace("_vs_", " against ").capitalize(), "data": _svg(plot)} for plot in plots],
        tasks=cases,
        failures=failures,
    )
    write_text(path, text)
    return path


def _svg(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def case_pictures(groups: Sequence[Group], run: Path) -> list[dict[str, Any]]:
    """One entry per dataset and K: the cases of its best learner that have pictures in the run directory ``run``."""
    best: dict[tuple[str, int | str], Group] = {}
    for group in groups:
        if not group.results or not math.isfinite(group.summaries[-1].dice_mean):
            continue
        task = group.key[:2]
        if task not in best or group.summaries[-1].dice_mean > best[task].summaries[-1].dice_mean:
            best[task] = group
    entries = []
    for (dataset, shots), group in best.items():
        title = f"{dataset}, K = {shots}: {group.key[2]}, Dice {group.summaries[-1].dice_mean:.3f}"
        cases = choose(group, run)
        if cases:
            entries.append({"title": title, "cases": cases})
    return entries
