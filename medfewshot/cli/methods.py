"""``medfewshot learners``, ``benchmark`` and ``train``: compare methods, and pre-train them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from medfewshot.cli.options import Json, Output, Quiet, with_settings
from medfewshot.settings import BenchmarkRunSettings, TrainRunSettings, TrainSchedule, load_settings


def learners(quiet: Quiet = False, json: Json = False) -> None:
    """List the methods (for --learner) and the settings of each.

    Example:
        medfewshot learners
    """
    from medfewshot.cli.console import Console
    from medfewshot.learners import LEARNERS
    from medfewshot.settings import AdaptSettings

    console = Console(quiet, json)
    rows = [
        {
            "learner": spec.name,
            "what it does": spec.summary,
            "auto for": ", ".join(f"{dims}D" for dims in spec.auto_dims),
            "settings": ", ".join(name for name in spec.settings if name in AdaptSettings.model_fields),
        }
        for spec in LEARNERS.values()
    ]
    console.rows("Methods, for --learner", rows, below=("settings",))
    console.json({"learners": rows})


@with_settings()
def benchmark(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file: data sets, methods, shots, seeds.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="Folder to write into. Default: runs/NAME of the CONFIG file."
        ),
    ] = None,
    list_cells: Annotated[bool, typer.Option("--list", help="Show the cells and their progress; run nothing.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write tables and plots of the finished cells here; run nothing."),
    ] = None,
    settings: BenchmarkRunSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare methods on data sets with known labels: tables and plots.

    Each cell, named dataset/learner/kSHOTS/sSEED, adapts to K labelled scans, segments every query scan and scores it.
    Stop it at any time: the same command continues, and tries cells that failed again. At the end, report/ in the
    output folder contains tables (Markdown, LaTeX, CSV) and plots, and names the cells that were not run. The variable
    OMP_NUM_THREADS sets the number of threads.

    Example:
        medfewshot benchmark configs/benchmark/small.yaml -o runs/small
        medfewshot benchmark configs/benchmark/small.yaml --list
    """
    from medfewshot.benchmark import load_benchmark, plan_cells, select_cells, write_report
    from medfewshot.cli.console import Console
    from medfewshot.workflow import check_folder

    console, run = Console(quiet, json), output or Path("runs") / config.stem
    plan = load_benchmark(config)
    cells = select_cells(plan_cells(plan), settings.only, settings.seeds, settings.shard)
    if list_cells:
        _list(cells, run, console)
        return
    if not cells:
        console.warnings(["this shard is empty: there are fewer cells than shards"])
    check_folder(report or run)
    done = _run(cells, settings.data or plan.data, run, settings, console) if report is None else {}
    tables = write_report(plan, run, report or run / "report", cells if report else None)
    if done:
        what = {"done": "done", "skipped": "done earlier", "failed": "failed", "busy": "busy elsewhere"}
        console.say("cells: " + ", ".join(f"{len(done[key])} {text}" for key, text in what.items() if done[key]))
    console.say(f"report: {tables}")
    console.json({"output": str(run), "report": str(tables), **done})
    raise typer.Exit(1 if done.get("failed") else 0)


@with_settings()
def train(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings; see configs/train/.")],
    output: Output,
    schedule: TrainSchedule,
    run: TrainRunSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Pre-train a method on many small tasks, so that it adapts faster.

    Give the result to adapt and segment with `--weights FOLDER/start`. The options --steps, --minutes and --seed win
    over the file. After an interruption, the same command with --resume continues as if there had been none. On
    several GPUs: `torchrun --nproc-per-node 4 -m medfewshot train ...`

    Example:
        medfewshot train configs/train/cpu.yaml -o runs/cpu
    """
    from medfewshot.cli.console import Console
    from medfewshot.training import TrainSettings
    from medfewshot.training.run import START
    from medfewshot.training.run import train as run_training

    console = Console(quiet, json)
    settings = load_settings(TrainSettings, config, **schedule.model_dump(exclude_unset=True))
    with console.progress("Training") as progress:
        record = run_training(settings, output, progress=progress, **dict(run))
    scores = ", ".join(f"{name} {value:.3f}" for name, value in record["validation"].items())
    console.say(
        f"trained {settings.learner}: {record['steps']} steps in {record['seconds']:.0f} s; validation: {scores}"
    )
    console.warnings(record["warnings"], f"in {output / START}")
    console.say(f"weights in {output / START}; logs beside them in {output}")
    console.json(record)


def _run(cells: Any, data: Any, run: Path, settings: BenchmarkRunSettings, console: Any) -> dict[str, Any]:
    """Run the cells, here or on a cluster; the ids of the cells by what became of them."""
    from medfewshot.benchmark import outdated, prepare_data, run_benchmark
    from medfewshot.devices import resolve_device
    from medfewshot.workers import RayCluster

    cluster = None if settings.ray is None else RayCluster(settings.ray, settings.cpus, settings.gpus)
    if cluster is None:  # a cluster's nodes may have devices that this machine lacks
        resolve_device(settings.device)
    source = prepare_data(cells, data, run)
    with console.progress("Benchmark") as progress:
        outcome = run_benchmark(cells, source, run, settings.device, progress, console.told, cluster=cluster)
    earlier = outdated([cell for cell in cells if cell.id in outcome.skipped], source, run)
    console.warnings([f"{name}: files of its data are newer; remove its folder to run it again" for name in earlier])
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
