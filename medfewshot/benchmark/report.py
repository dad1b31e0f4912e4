"""Write ``tables.md``, ``index.html``, ``tables.tex``, CSV files and plots of a run directory, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medfewshot.benchmark import tables
from medfewshot.benchmark.cells import Cell, CellState, plan_cells
from medfewshot.benchmark.comparison import compare
from medfewshot.benchmark.config import BenchmarkConfig
from medfewshot.benchmark.page import case_pictures, write_page
from medfewshot.benchmark.plots import save_plots
from medfewshot.benchmark.results import BenchmarkResults, Group, read_benchmark
from medfewshot.data_dictionary import write_table
from medfewshot.io import write_text

WHOLE_POOL = (
    "K = pool (n): all n scans of the support pool, an upper bound and no few-shot result. No draw is left there: "
    "seeds are the learner's alone."
)


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
    board = read_benchmark(cells, run)
    shown = report_tables(config, board.groups)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tables.md", report_text(config, board))
    write_text(folder / "tables.tex", "\n".join(table.latex() for table in shown if table.rows))
    write_table(folder / "summary.csv", tables.summary_rows(board.groups))
    write_table(folder / "comparisons.csv", [asdict(comparison) for comparison in compare(board.groups)])
    write_page(
        folder / "index.html",
        protocol=config.protocol,
        head=_head(config, board),
        tables=shown,
        plots=save_plots(board.groups, folder),
        failures=board.failed,
        cases=case_pictures(board.groups, run),
    )
    return folder / "tables.md"


def report_text(config: BenchmarkConfig, board: BenchmarkResults) -> str:
    """Write the report as Markdown: what was run, every table with a row, failed cells."""
    shown = report_tables(config, board.groups)
    parts = [_head(config, board), *(table.markdown() for table in shown if table.rows), failed_cells(board.failed)]
    return "\n".join(parts).rstrip() + "\n"


def report_tables(config: BenchmarkConfig, groups: Sequence[Group]) -> list[tables.Table]:
    """Scores, comparisons, structures and costs."""
    return [
        tables.score_table(groups, config.tolerance_mm),
        tables.comparison_table(compare(groups)),
        tables.structure_table(groups, config.tolerance_mm),
        tables.cost_table(groups),
    ]


def _head(config: BenchmarkConfig, board: BenchmarkResults) -> str:
    groups, states = board.groups, board.states
    counts = ", ".join(f"{states[state]} {state.value}" for state in CellState if states.get(state))
    seeds = ", ".join(map(str, sorted({cell.seed for group in groups for cell in group.cells})))
    queries = f"the first {config.queries} of each query set" if config.queries else "the whole query sets"
    lines = [
        "# Benchmark",
        "",
        f"Protocol `{config.protocol}`: whole volumes on their original grid, no knowledge of where a structure lies, "
        f"subjects of support and query disjoint. Supports are drawn with the seeds "
        f"{seeds}; queries are {queries}. Cells: {counts} (of {sum(states.values())}).",
        "",
        *([WHOLE_POOL, ""] if any(group.whole_pool for group in groups) else []),
        *tables.metrics_line(result.record for group in groups for result in group.results),
        *_facts(groups),
    ]
    return "\n".join(lines)


def _facts(groups: Sequence[Group]) -> list[str]:
    """Return what a reader must know about the numbers, as paragraphs: machines, missing labels, data of weights."""
    made: dict[str, None] = {}
    unmarked: dict[str, dict[str, None]] = {}
    seen: dict[str, None] = {}
    for group in groups:
        for result in group.results:
            record = result.record
            versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
            made[f"Made with: {record['device']}, {record['machine']}; {versions}."] = None
            task = f"{result.cell.dataset.name}, K = {group.shots_text}, seed {result.cell.seed}"
            for name in record.get("unmarked", ()):
                unmarked.setdefault(task, {})[str(name)] = None
            for dataset, facts in (record.get("weights_have_seen") or {}).items():
                labels = ", ".join(str(name or value) for value, name in facts.get("labels", {}).items())
                subjects, without = len(facts.get("subjects", ())), len(facts.get("without_labels", ()))
                images = f"{without} as images without labels" if without else ""
                shown = "; ".join(part for part in (labels, images) if part)
                seen[f"- {group.key[2]}: {subjects} subjects of {dataset} ({shown})"] = None
    missing = [f"- {task}: {', '.join(names)}" for task, names in unmarked.items()]
    lines = [*made, ""] if made else []
    if missing:
        lines += ["Structures that no support of a draw marks; they are left out there:", "", *missing, ""]
    if seen:
        lines += ["Weights have seen, none of it queries:", "", *seen, ""]
    return lines


def failed_cells(failed: Mapping[str, str]) -> str:
    """Return a Markdown section about failed cells; empty if none failed."""
    lines = ["## Failed cells", "", *(f"- `{name}`: {message}" for name, message in failed.items())]
    return "\n".join(lines) if failed else ""
