"""``medfewshot benchmark``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from medfewshot.cli.options import Device, Json, Quiet
from medfewshot.errors import InputError


def benchmark(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file: datasets, learners, shots, seeds.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run directory (default: runs/NAME of the CONFIG file).")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the datasets (default: MEDFEWSHOT_DATA).")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Cells whose name contains this or matches it as a pattern, e.g. `'abd-*/k1/*'`; repeatable."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Only these of the file's seeds, e.g. 0,1.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th cell from the I-th on: one shard per machine.")
    ] = None,
    list_cells: Annotated[
        bool, typer.Option("--list", help="Show the cells and how far they are; run nothing.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Write tables and plots of the cells that are done into this folder; run nothing."),
    ] = None,
    device: Device = "auto",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run cells on a Ray cluster whose nodes share the folders: `local` (only this), `auto` or HOST:PORT.",
            rich_help_panel="Ray",
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="Cores of a cell.", rich_help_panel="Ray")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a cell.", rich_help_panel="Ray")] = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure learners: datasets x learners x shots x seeds, with tables, intervals and plots.

    `medfewshot benchmark configs/benchmark/small.yaml` runs in a minute and needs no data.

    Each cell, named dataset/learner/kSHOTS/sSEED, adapts to K scans of a support pool, segments every query volume and
    scores it. Stop it at any time: the same command continues, and tries cells that failed again. At the end, `report/`
    in the run directory contains tables (Markdown, LaTeX, CSV) and plots, and names the cells that were not run.
    OMP_NUM_THREADS sets the number of threads.
    """
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    run = output or Path("runs") / config.stem
    from medfewshot.benchmark import load_benchmark, plan_cells, select_cells

    plan = load_benchmark(config)
    cells = select_cells(plan_cells(plan), only or [], _seeds(seeds), _shard(shard))
    if list_cells:
        raise typer.Exit(_list(cells, run, console))
    if report is not None:
        raise typer.Exit(_report(plan, cells, run, report, console))
    where = _Where(data, device, ray, cpus, gpus)
    raise typer.Exit(_run(plan, cells, run, where, console))


@dataclass(frozen=True)
class _Where:
    """Where the scans are and where cells run."""

    data: Path | None
    device: str
    ray: str | None
    cpus: float
    gpus: float


def _run(plan: Any, cells: Any, run: Path, where: _Where, console: Any) -> int:
    from medfewshot.benchmark import prepare_data, run_benchmark, write_report
    from medfewshot.benchmark.on_ray import run_on_ray
    from medfewshot.devices import resolve_device
    from medfewshot.workflow import check_folder

    if where.ray is None:  # a cluster's nodes may have devices that this machine lacks
        resolve_device(where.device)
    check_folder(run)
    source = prepare_data(cells, where.data or plan.data, run)
    try:
        with console.progress("Benchmark") as progress:
            if where.ray is None:
                outcome = run_benchmark(cells, source, run, where.device, progress, console.told)
            else:
                nodes: dict[str, Any] = {"address": where.ray, "cpus": where.cpus, "gpus": where.gpus}
                outcome = run_on_ray(cells, source, run, where.device, progress, console.told, **nodes)
    except KeyboardInterrupt:
        console.error("interrupted; what was finished is kept, and the same command continues from there")
        return 130
    for name, message in outcome.failed.items():
        console.error(f"{name} failed: {message}; run the same command to try again")
    tables = write_report(plan, run, run / "report")
    console.say(_counts(outcome))
    console.say(f"report: {tables}")
    console.json({"output": str(run), "report": str(tables), **vars(outcome)})
    return 1 if outcome.failed else 0


def _report(plan: Any, cells: Any, run: Path, folder: Path, console: Any) -> int:
    from medfewshot.benchmark import write_report
    from medfewshot.workflow import check_folder

    check_folder(folder)
    tables = write_report(plan, run, folder, cells)
    console.say(f"report: {tables}")
    console.json({"output": str(run), "report": str(tables)})
    return 0


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
        raise InputError(f"--seeds {text}: is no list of seeds", "give whole numbers, e.g. --seeds 0,1") from None


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"--shard {text}: is no share", "give I/N, e.g. --shard 1/4") from None
    return index, count
