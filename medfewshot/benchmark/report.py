"""``tables.md``, ``index.html``, ``tables.tex``, CSV files and plots of a run directory, finished or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from medfewshot.benchmark.cells import Cell, CellState, state_of
from medfewshot.benchmark.comparison import compare
from medfewshot.benchmark.config import BenchmarkConfig
from medfewshot.benchmark.page import case_pictures, write_page
from medfewshot.benchmark.plots import save_plots
from medfewshot.benchmark.results import Group, failures, read_groups
from medfewshot.benchmark.tables import (
    comparison_table,
    cost_table,
    metrics_line,
    score_table,
    structure_table,
    summary_rows,
)
from medfewshot.io import write_text
from medfewshot.report import write_csv


def write_volume_report(config: BenchmarkConfig, cells: Sequence[Cell], run: Path, folder: Path) -> Path:
    """Write the report of ``cells`` into ``folder``; cells that were not run show as such. Returns ``tables.md``.

    Raises InputError where a cell's files are damaged or belong to other settings.
    """
    groups = read_groups(cells, run)
    comparisons = compare(groups)
    tables = [
        score_table(groups, config.tolerance_mm),
        comparison_table(comparisons),
        structure_table(groups, config.tolerance_mm),
        cost_table(groups),
    ]
    parts = [_head(config, cells, groups, run), *(table.markdown() for table in tables if table.rows)]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tables.md", "\n".join([*parts, _failures(cells, run)]).rstrip() + "\n")
    write_text(folder / "tables.tex", "\n".join(table.latex() for table in tables if table.rows))
    write_csv(folder / "summary.csv", summary_rows(groups))
    write_csv(folder / "comparisons.csv", [asdict(comparison) for comparison in comparisons])
    plots = [path for path in save_plots(groups, folder) if path.suffix == ".svg"]
    write_page(
        folder / "index.html",
        protocol=config.protocol,
        head=_head(config, cells, groups, run).splitlines()[1:],
        tables=tables,
        plots=plots,
        failures=failures(cells, run),
        cases=case_pictures(groups, run),
    )
    return folder / "tables.md"


def _head(config: BenchmarkConfig, cells: Sequence[Cell], groups: Sequence[Group], run: Path) -> str:
    states = Counter(state_of(cell, run) for cell in cells)
    counts = ", ".join(f"{states[state]} {state.value}" for state in CellState if states[state])
    seeds = ", ".join(map(str, sorted({cell.seed for cell in cells})))
    queries = f"the first {config.queries} of each query set" if config.queries else "the whole query sets"
    lines = [
        "# Benchmark",
        "",
        f"Protocol `{config.protocol}`: whole volumes on their native grid, no knowledge of where a structure lies, "
        f"subjects of support and query disjoint. Supports are drawn with the seeds "
        f"{seeds}; queries are {queries}. Cells: {counts} (of {len(cells)}).",
        "",
        *_whole_pool(groups),
        *metrics_line(result.record for group in groups for result in group.results),
        *_machines(groups),
        *_unmarked(groups),
        *_seen(groups),
    ]
    return "\n".join(lines)


def _whole_pool(groups: Sequence[Group]) -> list[str]:
    if not any(group.whole_pool for group in groups):
        return []
    return [
        "K = pool (n): all n scans of the support pool, an upper bound and no few-shot result. No draw is left there: "
        "seeds are the learner's alone.",
        "",
    ]


def _machines(groups: Sequence[Group]) -> list[str]:
    """What the numbers were made with; more than one line says that they are not of one kind."""
    found = dict.fromkeys(
        f"{record['device']}, {record['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        for group in groups
        for record in (result.record for result in group.results)
    )
    return [*(f"Made with: {text}." for text in found), ""] if found else []


def _unmarked(groups: Sequence[Group]) -> list[str]:
    """Structures that a draw's supports do not hold: no learner can know them, and no score counts them."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for result in group.results:
            for name in result.record.get("unmarked", ()):
                task = f"{result.cell.dataset.name}, K = {group.shots_text}, seed {result.cell.seed}"
                found.setdefault(task, []).append(str(name))
    lines = [f"- {task}: {', '.join(dict.fromkeys(names))}" for task, names in found.items()]
    return ["Structures that no support of a draw marks; they are left out there:", "", *lines, ""] if lines else []


def _seen(groups: Sequence[Group]) -> list[str]:
    """What weights were trained on: a number on a dataset that a model has seen says so."""
    found: dict[str, None] = {}
    for group in groups:
        for result in group.results:
            for dataset, facts in (result.record.get("weights_have_seen") or {}).items():
                labels = ", ".join(str(name or value) for value, name in facts.get("labels", {}).items())
                text = f"{len(facts.get('subjects', ()))} subjects of {dataset} ({labels})"
                found[f"- {group.key[2]}: {text}"] = None
    return ["Weights have seen, none of it queries:", "", *found, ""] if found else []


def _failures(cells: Sequence[Cell], run: Path) -> str:
    failed = failures(cells, run)
    lines = ["## Failed cells", "", *(f"- `{name}`: {message}" for name, message in failed.items())]
    return "\n".join(lines) if failed else ""
