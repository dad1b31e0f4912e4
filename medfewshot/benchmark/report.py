"""``tables.md``, ``index.html``, ``tables.tex``, CSV files and plots of a run directory, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medfewshot.benchmark.cells import Cell, CellState, plan_cells
from medfewshot.benchmark.comparison import compare
from medfewshot.benchmark.config import BenchmarkConfig
from medfewshot.benchmark.page import case_pictures, write_page
from medfewshot.benchmark.plots import save_plots
from medfewshot.benchmark.results import Board, Group, read_board
from medfewshot.benchmark.tables import (
    Table,
    comparison_table,
    cost_table,
    metrics_line,
    score_table,
    structure_table,
    summary_rows,
)
from medfewshot.io import write_csv, write_text


def write_report(config: BenchmarkConfig, run: Path, folder: Path, cells: Sequence[Cell] | None = None) -> Path:
    """Write tables and plots of a run directory, finished or not; cells that were not run show as such.

    Args:
        config: The benchmark file.
        run: Run directory.
        folder: Where to write.
        cells: The cells to report; None for all that ``config`` plans.

    Returns:
        ``folder / "tables.md"``.

    Raises:
        InputError: Files of a cell are damaged or belong to other settings.
    """
    cells = plan_cells(config) if cells is None else cells
    board = read_board(cells, run)
    tables = report_tables(config, board.groups)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tables.md", report_text(config, board))
    write_text(folder / "tables.tex", "\n".join(table.latex() for table in tables if table.rows))
    write_csv(folder / "summary.csv", summary_rows(board.groups))
    write_csv(folder / "comparisons.csv", [asdict(comparison) for comparison in compare(board.groups)])
    plots = [path for path in save_plots(board.groups, folder) if path.suffix == ".svg"]
    write_page(
        folder / "index.html",
        protocol=config.protocol,
        head=_head(config, board).splitlines()[1:],
        tables=tables,
        plots=plots,
        failures=board.failed,
        cases=case_pictures(board.groups, run),
    )
    return folder / "tables.md"


def report_text(config: BenchmarkConfig, board: Board) -> str:
    """The report as Markdown: what was run, every table with a row, failed cells."""
    tables = report_tables(config, board.groups)
    parts = [_head(config, board), *(table.markdown() for table in tables if table.rows), failed_cells(board.failed)]
    return "\n".join(parts).rstrip() + "\n"


def report_tables(config: BenchmarkConfig, groups: Sequence[Group]) -> list[Table]:
    """Scores, comparisons, structures and costs."""
    return [
        score_table(groups, config.tolerance_mm),
        comparison_table(compare(groups)),
        structure_table(groups, config.tolerance_mm),
        cost_table(groups),
    ]


def _head(config: BenchmarkConfig, board: Board) -> str:
    groups, states = board.groups, board.states
    counts = ", ".join(f"{states[state]} {state.value}" for state in CellState if states.get(state))
    seeds = ", ".join(map(str, sorted({cell.seed for group in groups for cell in group.cells})))
    queries = f"the first {config.queries} of each query set" if config.queries else "the whole query sets"
    lines = [
        "# Benchmark",
        "",
        f"Protocol `{config.protocol}`: whole volumes on their native grid, no knowledge of where a structure lies, "
        f"subjects of support and query disjoint. Supports are drawn with the seeds "
        f"{seeds}; queries are {queries}. Cells: {counts} (of {sum(states.values())}).",
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


def failed_cells(failed: Mapping[str, str]) -> str:
    """A section of Markdown; empty if no cell failed."""
    lines = ["## Failed cells", "", *(f"- `{name}`: {message}" for name, message in failed.items())]
    return "\n".join(lines) if failed else ""
