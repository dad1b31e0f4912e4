"""``medfewshot train``: meta-training from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Json, Output, Quiet, with_settings
from medfewshot.settings import TrainRunSettings, TrainSchedule, load_settings


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
