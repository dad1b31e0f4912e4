"""Run a meta-training: from settings to trained weights on disk."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from medfewshot import __version__
from medfewshot.devices import describe_device, resolve_device
from medfewshot.errors import InputError
from medfewshot.io import claimed
from medfewshot.learners import find_weights, read_seen, save_start
from medfewshot.learners.weights import DESCRIPTION
from medfewshot.training.checkpoint import NAME
from medfewshot.training.distributed import join_world, local_device
from medfewshot.training.learner import make_meta_learner
from medfewshot.training.logs import BOARD, MLFLOW, TRAINING, VALIDATION, check_mlflow
from medfewshot.training.loop import Trainer
from medfewshot.training.packing import read_pack, write_pack
from medfewshot.training.reading import Tasks, read_tasks
from medfewshot.training.settings import TrainSettings
from medfewshot.training.sources import make_sources
from medfewshot.types import Progress

START = "start"
"""Folder of the trained start, inside the folder of the run; adaptation takes it as ``weights``."""


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    data: Path | None = None,
    pack: Path | None = None,
    mlflow: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Meta-train and write the trained start to ``folder/start``.

    Under ``torchrun``, every process calls this with the same arguments.

    Args:
        settings: What to train, on which tasks.
        folder: Receives checkpoint, logs and start.
        device: ``auto``, ``cpu``, ``cuda`` ...
        resume: Continue from the folder's last checkpoint.
        overwrite: Replace the run in the folder.
        data: Folder of the real data sets, if the settings name none.
        pack: File of their planned volumes. It is made if it does not exist; if it does, no raw data is needed.
        mlflow: A tracking URI or a folder that receives logs and settings too.
        progress: Receives the fraction that is done.

    Returns:
        The record that is saved with the start; ``warnings`` lists what the user should know.

    Raises:
        InputError: A setting, a data set or the folder cannot be used.
    """
    if mlflow is not None:
        check_mlflow(mlflow)
    if settings.weights is not None and find_weights(settings.weights).resolve() == (folder / START).resolve():
        raise InputError(f"{folder}: contains the weights to continue from", "give another folder", setting="output")
    chosen = local_device(resolve_device(device))
    with join_world(chosen) as world, claimed(folder) if world.first else nullcontext(True) as free:
        if not free:
            raise InputError(f"{folder}: another training writes into it", "wait for it, or give another folder")
        if world.first:
            if _earlier(folder) and not (resume or overwrite):
                raise InputError(
                    f"{folder}: contains a training run", "continue or replace it", setting=("resume", "overwrite")
                )
            folder.mkdir(parents=True, exist_ok=True)
            if pack is not None and not pack.is_file():
                if not settings.tasks.from_data:
                    raise InputError("the settings name no data sets to pack", "remove it", setting="pack")
                write_pack(read_tasks(settings.tasks, data, progress=progress), pack, settings.tasks)
        world.wait()
        learner, start = make_meta_learner(settings, chosen)
        if pack is not None and pack.is_file():
            read = read_pack(pack, settings.tasks)
        else:
            read = read_tasks(settings.tasks, data, progress=progress)
        training, validation, warnings = make_sources(settings, read)
        seen = seen_data(read, read_seen(settings.weights) if settings.weights else None)
        if world.first and not resume:  # not before everything else is known to be usable
            _remove(folder)
        trainer = Trainer(
            learner, training, validation, settings, folder,
            device=chosen, world=world, progress=progress, mlflow=mlflow,
        )  # fmt: skip
        outcome = trainer.run(resume=resume)
        record = {
            **outcome,
            "medfewshot": __version__,
            "device": describe_device(chosen),
            "processes": world.size,
            "settings": settings.model_dump(mode="json"),
            "seen": seen,
            "warnings": [*warnings, *trainer.warnings],
        }
        if world.first:
            with trainer.averaged():
                save_start(replace(start, record=record), folder / START, settings.half)
        return record


def seen_data(tasks: Tasks, earlier: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return the real data that the weights are trained on, to be stated beside every result that they give.

    Args:
        tasks: The tasks of this run.
        earlier: The same of the weights that it continues from.

    Returns:
        Data set -> ``subjects``, all of them; ``labels``, value -> name, that were classes; and
        ``without_labels``, the subjects whose image alone was seen.
    """
    seen: dict[str, dict[str, Any]] = copy.deepcopy(dict(earlier or {}))
    for task in (task for kind in tasks.values() for task in kind):
        facts = seen.setdefault(task.name, {"subjects": [], "labels": {}, "without_labels": []})
        subjects = dict.fromkeys(one.subject_id for one in task.examples)
        new = [one for one in subjects if one not in facts["subjects"]]
        facts["subjects"] += new
        unlabelled = [*facts.get("without_labels", ()), *new]  # older weights have none
        facts["without_labels"] = [one for one in unlabelled if task.labels is None or one not in subjects]
        facts["labels"] |= {str(value): task.names.get(value, "") for value in task.labels or ()}
    return seen


def _earlier(folder: Path) -> list[Path]:
    """List the files of an earlier run. It is continued or replaced, never mixed with a new one."""
    files = (folder / name for name in (NAME, TRAINING, VALIDATION, MLFLOW, f"{START}/{DESCRIPTION}"))
    return [path for path in files if path.is_file()]


def _remove(folder: Path) -> None:
    """Remove an earlier run. Weights without their description are none."""
    for path in _earlier(folder):
        path.unlink()
    shutil.rmtree(folder / BOARD, ignore_errors=True)
