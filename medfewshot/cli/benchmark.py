"""``medfewshot benchmark``: its words, and what it prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from medfewshot.types import InputError


def benchmark(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file: datasets, learners, shots, seeds.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run directory (default: runs/NAME of the CONFIG file).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the datasets (default: MEDFEWSHOT_DATA).")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Cells whose name has this in it, or matches it as a pattern, as `'abd-*/k1/*'` does; repeatable."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Of the file's seeds only these, e.g. 0,1.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th cell, beginning with the I-th: one per machine.")
    ] = None,
    list_cells: Annotated[
        bool, typer.Option("--list", help="Show the cells and how far they are; run nothing.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write tables and plots of what is done into this folder; run nothing.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables; errors only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Measure learners: datasets x learners x shots x seeds, with tables, intervals and plots.

    `medfewshot benchmark configs/benchmark/small.yaml` runs in a minute and needs no data.

    Each cell, named dataset/learner/kSHOTS/sSEED, adapts to K scans of a support pool, segments every query volume and
    scores it. Stop it at any time: the same command goes on where it was, and cells that failed are tried again. At
    the end, `report/` in the run directory holds tables (Markdown, LaTeX, CSV) and plots; cells that were not run show
    as such. Threads: as OMP_NUM_THREADS says.
    """
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    run = output or Path("runs") / config.stem
    raise typer.Exit(_benchmark(config, run, data, only or [], seeds, shard, list_cells, report, device, console))


def _benchmark(
    path: Path,
    run: Path,
    data: Path | None,
    only: list[str],
    seeds: str | None,
    shard: str | None,
    list_cells: bool,
    report: Path | None,
    device: str,
    console: Any,
) -> int:
    from medfewshot.benchmark import load_benchmark, plan_cells, prepare_data, run_benchmark, select_cells, write_report
    from medfewshot.cohort import check_folder
    from medfewshot.devices import resolve_device

    config = load_benchmark(path)
    cells = select_cells(plan_cells(config), only, _seeds(seeds), _shard(shard))
    if list_cells:
        return _list(cells, run, console)
    if report is not None:
        check_folder(report)
        console.say(f"report: {write_report(config, run, report)}")
        return 0
    resolve_device(device)
    check_folder(run)
    source = prepare_data(cells, data or config.data, run)
    try:
        with console.progress("Benchmark") as progress:
            outcome = run_benchmark(cells, source, run, device, progress, console.told)
    except KeyboardInterrupt:
        console.error("interrupted; what was finished is kept, and the same command goes on from there")
        return 130
    for name, message in outcome.failed.items():
        console.error(f"{name} failed: {message}; run the same command to try again")
    tables = write_report(config, run, run / "report")
    console.say(_counts(outcome))
    console.say(f"report: {tables}")
    console.json({"output": str(run), "report": str(tables), **vars(outcome)})
    return 1 if outcome.failed else 0


def _list(cells: Any, run: Path, console: Any) -> int:
    from medfewshot.benchmark import state_of

    states = {cell.id: state_of(cell, run).value for cell in cells}
    for name, state in states.items():
        console.say(f"{state:8} {name}")
    console.say(", ".join(f"{count} {state}" for state, count in Counter(states.values()).items()))
    console.json({"cells": states})
    return 0


def _counts(outcome: Any) -> str:
    parts = {
        "done": outcome.done,
        "done earlier": outcome.skipped,
        "failed": outcome.failed,
        "busy elsewhere": outcome.busy,
    }
    return "cells: " + ", ".join(f"{len(found)} {what}" for what, found in parts.items() if found)


def _seeds(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        raise InputError(f"--seeds {text}: give whole numbers separated by commas, e.g. --seeds 0,1") from None


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"--shard {text}: give it as I/N, e.g. --shard 1/4") from None
    return index, count
