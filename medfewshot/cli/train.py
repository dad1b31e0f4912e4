"""``medfewshot train``: meta-training from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Device


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings; see configs/train/.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoint, logs and weights.")],
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of the file's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Most minutes of training, in place of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.")] = None,
    device: Device = "auto",
    data: Annotated[Path | None, typer.Option(help="Folder of the real data sets that the file names.")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(help="A file of their planned volumes: made where it is missing, read where it exists."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI_OR_FOLDER", help="Log to MLflow too: a tracking server, or a folder of its own."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")] = False,
) -> None:
    """Meta-train a learner; `--weights FOLDER/start` of adapt and segment takes what comes out.

    `medfewshot train configs/train/cpu.yaml -o runs/first`, and `torchrun --nproc-per-node 4 -m medfewshot train ...`
    on several processes. Cut off at any moment, the same command with --resume goes on as if nothing had happened.
    """
    from medfewshot.cli.console import Console
    from medfewshot.settings import load_settings
    from medfewshot.training import TrainSettings
    from medfewshot.training.run import START
    from medfewshot.training.run import train as run

    console = Console(quiet, json)
    settings = load_settings(TrainSettings, config, steps=steps, minutes=minutes, seed=seed)
    with console.progress("Training") as progress:
        record = run(
            settings,
            output,
            device=device,
            resume=resume,
            overwrite=overwrite,
            data=data,
            pack=pack,
            mlflow=mlflow,
            progress=progress,
        )
    told = ", ".join(f"{name} {value:.3f}" for name, value in record["validation"].items())
    console.say(f"trained: {settings.learner}, {record['steps']} steps in {record['seconds']:.0f} s; validation {told}")
    console.warnings(record["warnings"], f"in {output / START}")
    console.say(f"weights in {output / START}; logs beside them in {output}")
    console.json(record)
