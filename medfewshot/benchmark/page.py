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
    head: str,
    tables: Sequence[Table],
    plots: Sequence[Path],
    failures: Mapping[str, str],
    cases: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page; returns ``path``. ``head``: Markdown; ``cases``: see :func:`case_pictures`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["embedded"] = _embedded
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        protocol=protocol,
        head=[line.replace("`", "").lstrip("#- ").strip() for line in head.splitlines()[1:] if line.strip(" #")],
        tables=[table for table in tables if table.rows],
        plots={plot.stem.replace("_vs_", " against ").capitalize(): plot for plot in plots if plot.suffix == ".svg"},
        tasks=cases,
        failures=failures,
    )
    write_text(path, text)
    return path


def _embedded(path: Path) -> str:
    """A picture as a data address."""
    kind = {".svg": "svg+xml"}.get(path.suffix, path.suffix[1:])
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def case_pictures(groups: Sequence[Group], run: Path) -> list[dict[str, Any]]:
    """One entry per dataset and K: the cases of its best learner that have pictures in the run directory ``run``."""
    best: dict[Any, Group] = {}
    for group in groups:
        if group.results and math.isfinite(dice := group.summaries[-1].dice_mean):
            known = best.setdefault(group.key[:2], group)
            if dice > known.summaries[-1].dice_mean:
                best[group.key[:2]] = group
    chosen = [(group, choose(group, run)) for group in best.values()]
    return [
        {
            "title": f"{group.key[0]}, K = {group.key[1]}: {group.key[2]}, Dice {group.summaries[-1].dice_mean:.3f}",
            "cases": cases,
        }
        for group, cases in chosen
        if cases
    ]
