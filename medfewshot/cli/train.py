"""``medfewshot train``: meta-training from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Device, Json, Quiet


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings; see configs/train/.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoint, logs and weights.")],
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of the file's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Most minutes of training, instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's.")] = None,
    device: Device = "auto",
    data: Annotated[Path | None, typer.Option(help="Folder of the real data sets that the file names.")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(help="A file of their planned volumes: made if it is missing, read if it exists."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI_OR_FOLDER", help="Log to MLflow too: a tracking server, or a folder of its own."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Meta-train a learner; give the result to adapt and segment with `--weights FOLDER/start`.

    `medfewshot train configs/train/cpu.yaml -o runs/first`, and `torchrun --nproc-per-node 4 -m medfewshot train ...`
    on several processes. After an interruption, the same command with --resume continues as if there had been none.
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
            settings, output, device=device, resume=resume, overwrite=overwrite, data=data, pack=pack, mlflow=mlflow,
            progress=progress,
        )  # fmt: skip
    scores = ", ".join(f"{name} {value:.3f}" for name, value in record["validation"].items())
    console.say(
        f"trained: {settings.learner}, {record['steps']} steps in {record['seconds']:.0f} s; validation {scores}"
    )
    console.warnings(record["warnings"], f"in {output / START}")
    console.say(f"weights in {output / START}; logs beside them in {output}")
    console.json(record)
