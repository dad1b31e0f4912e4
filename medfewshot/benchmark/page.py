"""Write the benchmark report as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medfewshot.benchmark.cells import picture_of
from medfewshot.benchmark.results import Group, by_task
from medfewshot.benchmark.tables import Table
from medfewshot.io import write_text

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(
    path: Path, *, protocol: str, head: str, tables: Sequence[Table], plots: Sequence[Path],
    failures: Mapping[str, str], cases: Sequence[Mapping[str, Any]] = (),
) -> Path:  # fmt: skip
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
    """Return a picture as a data URI."""
    kind = {".svg": "svg+xml"}.get(path.suffix, path.suffix[1:])
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def case_pictures(groups: Sequence[Group], run: Path) -> list[dict[str, Any]]:
    """Return the cases of the best learner of each dataset and K that have pictures in the run directory ``run``."""
    entries = []
    for same in by_task(groups):
        done = [group for group in same if group.whole and math.isfinite(group.whole.dice_mean)]
        if done:
            dice, group = max(((group.summaries[-1].dice_mean, group) for group in done), key=lambda pair: pair[0])
            dataset, shots, learner = group.key
            cases = choose_cases(group, run)
            if cases:
                title = f"{dataset}, K = {shots}: {learner}, Dice {dice:.3f}"
                entries.append({"title": title, "cases": cases})
    return entries


class ShownCase(NamedTuple):
    """One case of one result, its picture, and why it is shown: ``("liver: worst, Dice 0.31", ...)``."""

    case: str
    seed: int
    reasons: tuple[str, ...]
    path: Path


def choose_cases(group: Group, run: Path) -> list[ShownCase]:
    """Best, median and worst case of each structure of the group's first seed, worst first; each case once."""
    if not group.results:
        return []
    result = group.results[0]
    folder = result.cell.folder(run)
    reasons: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for label in dict.fromkeys(score.label for score in result.scores):
        ranked = [score for score in result.scores if score.label == label and not math.isnan(score.dice)]
        ranked.sort(key=lambda score: (score.dice, score.case_id))
        places = {len(ranked) - 1: "best", len(ranked) // 2: "median", 0: "worst"} if ranked else {}
        for index, place in places.items():
            score = ranked[index]
            if picture_of(folder, score.case_id).is_file():
                text = f"{score.label_name}: {place}, Dice {score.dice:.2f}"
                reasons[score.case_id].append((score.dice, text))
    return [
        ShownCase(case, result.cell.seed, tuple(text for _, text in sorted(reasons[case])), picture_of(folder, case))
        for case in sorted(reasons, key=lambda case: min(reasons[case])[0])
    ]
