"""``medfewshot benchmark``."""

from __future__ import annotations

import re
from collections import Counter
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
    from medfewshot.benchmark import load_benchmark, plan_cells, select_cells, write_report
    from medfewshot.cli.console import Console
    from medfewshot.workflow import check_folder

    console, run = Console(quiet, json), output or Path("runs") / config.stem
    plan, share = load_benchmark(config), _numbers(shard, r"\d+/\d+", "shard", "1/4")
    wanted = _numbers(seeds, r"\d+(,\d+)*", "seeds", "0,1")
    cells = select_cells(plan_cells(plan), only or (), wanted, (share[0], share[1]) if share else None)
    if list_cells:
        _list(cells, run, console)
        return
    check_folder(report or run)
    done: dict[str, Any] = {}
    if report is None:
        nodes = {"address": ray, "cpus": cpus, "gpus": gpus} if ray is not None else {}
        done = _run(cells, data or plan.data, run, device, nodes, console)
    tables = write_report(plan, run, report or run / "report", cells if report else None)
    if done:
        what = {"done": "done", "skipped": "done earlier", "failed": "failed", "busy": "busy elsewhere"}
        console.say("cells: " + ", ".join(f"{len(done[key])} {text}" for key, text in what.items() if done[key]))
    console.say(f"report: {tables}")
    console.json({"output": str(run), "report": str(tables), **done})
    raise typer.Exit(1 if done.get("failed") else 0)


def _run(cells: Any, data: Any, run: Path, device: str, nodes: dict[str, Any], console: Any) -> dict[str, Any]:
    """Run the cells, on a cluster if ``nodes`` say which one; the ids of the cells by what became of them."""
    from medfewshot.benchmark import prepare_data, run_benchmark
    from medfewshot.benchmark.on_ray import run_on_ray
    from medfewshot.devices import resolve_device

    if not nodes:  # a cluster's nodes may have devices that this machine lacks
        resolve_device(device)
    source, run_all = prepare_data(cells, data, run), run_on_ray if nodes else run_benchmark
    with console.progress("Benchmark") as progress:
        outcome = run_all(cells, source, run, device, progress, console.told, **nodes)
    for name, message in outcome.failed.items():
        console.error(f"{name} failed: {message}; run the same command to try again")
    return vars(outcome)


def _list(cells: Any, run: Path, console: Any) -> None:
    from medfewshot.benchmark import state_of

    states = {cell.id: state_of(cell, run).value for cell in cells}
    for name, state in states.items():
        console.say(f"{state:8} {name}")
    console.say(", ".join(f"{count} {state}" for state, count in Counter(states.values()).items()))
    console.json({"cells": states})


def _numbers(text: str | None, pattern: str, setting: str, example: str) -> list[int]:
    """The whole numbers in the text of an option; none if it is not given."""
    if text is not None and not re.fullmatch(pattern, text.replace(" ", "")):
        raise InputError(f"{text}: cannot be read", f"give e.g. {example}", setting=setting)
    return [int(number) for number in re.findall(r"\d+", text or "")]
