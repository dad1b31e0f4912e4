"""A whole training run: settings in, a start on disk out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medfewshot import __version__
from medfewshot.devices import describe_device, resolve_device
from medfewshot.errors import InputError
from medfewshot.learners import save_start
from medfewshot.synthetic.populations import Populations
from medfewshot.training.checkpoint import NAME
from medfewshot.training.learner import make_meta_learner
from medfewshot.training.logs import MLFLOW, TRAINING, VALIDATION, check_mlflow
from medfewshot.training.loop import Trainer
from medfewshot.training.packing import PackedDataset, pack_datasets, read_pack, write_pack
from medfewshot.training.real import RealTasks
from medfewshot.training.settings import TrainSettings
from medfewshot.training.sources import EpisodeSource, Mixture
from medfewshot.training.world import join_world, local_device
from medfewshot.types import Progress

START = "start"
"""The folder, in that of the run, that ``--weights`` takes."""


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
    """Meta-train and write ``folder/start``; returns what the record in it says.

    ``data``: folder of the real data sets, where the settings name none. ``pack``: a file of their planned volumes; it
    is made where it does not exist, and no raw data is needed where it does. ``mlflow``: a tracking URI or a folder
    that gets the logs and settings too. Under ``torchrun`` every process calls this alike.

    Raises InputError where a setting, a data set or the folder cannot be used.
    """
    if mlflow is not None:
        check_mlflow(mlflow)
    chosen = local_device(resolve_device(device))
    with join_world(chosen) as world:
        if world.first:
            prepare_folder(folder, resume, overwrite)
            if pack is not None and not pack.is_file():
                write_pack(_read_raw(settings, data, progress), pack)
        world.wait()
        learner, start = make_meta_learner(settings, chosen)
        datasets = _read_real(settings, data, pack, progress)
        training, validation = make_sources(settings, datasets)
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
            "settings": asdict(settings),
            "seen": seen_data(datasets),
        }
        if world.first:
            with trainer.averaged():
                save_start(replace(start, record=record), folder / START, settings.half)
        return record


def _read_raw(settings: TrainSettings, data: Path | None, progress: Progress | None) -> tuple[PackedDataset, ...]:
    real = settings.tasks.real
    if real is None:
        raise InputError("--pack: the settings name no real data sets to pack; leave it out")
    return pack_datasets(real.datasets, Path(real.root) if real.root else data, progress)


def _read_real(
    settings: TrainSettings, data: Path | None, pack: Path | None, progress: Progress | None
) -> tuple[PackedDataset, ...]:
    if settings.tasks.real is None:
        return ()
    return _read_raw(settings, data, progress) if pack is None else read_pack(pack, settings.tasks.real.datasets)


def make_sources(
    settings: TrainSettings, datasets: tuple[PackedDataset, ...] = ()
) -> tuple[EpisodeSource, EpisodeSource]:
    """Where training and validation episodes come from.

    Procedural anatomies are drawn anew for every episode, so validation holds out all of its tasks; of real data sets
    it takes the validation labels, where there are any.
    """
    tasks = settings.tasks
    sources: dict[str, EpisodeSource] = {}
    held_out: dict[str, EpisodeSource] = {}
    weights = {"synthetic": tasks.synthetic_weight, "real": tasks.real_weight}
    if tasks.synthetic is not None:
        dims = len(tasks.synthetic.patches[0])
        if dims != settings.backbone.dims:
            raise InputError(f"tasks synthetic: has {dims}D patches, but the backbone is {settings.backbone.dims}D")
        sources["synthetic"] = held_out["synthetic"] = Populations(tasks.synthetic)
    if tasks.real is not None:
        _check_real(settings, datasets)
        sources["real"] = RealTasks(datasets, tasks.real)
        if any(dataset.validation_labels for dataset in datasets):
            held_out["real"] = RealTasks(datasets, tasks.real, validation=True)
    return Mixture(sources, weights), Mixture(held_out, weights)


def _check_real(settings: TrainSettings, datasets: tuple[PackedDataset, ...]) -> None:
    shape = settings.backbone
    for dataset in datasets:
        codes = dataset.volumes[0].codes
        if (codes.ndim - 1, codes.shape[0]) != (shape.dims, shape.in_channels):
            raise InputError(
                f"{dataset.name}: is {codes.ndim - 1}D with {codes.shape[0]} channel(s), but the backbone is "
                f"{shape.dims}D with {shape.in_channels}; leave the data set out or change the backbone"
            )


def seen_data(datasets: tuple[PackedDataset, ...]) -> Mapping[str, Any]:
    """What real data the weights have seen: to be said beside every number that they give."""
    return {
        dataset.name: {
            "subjects": [volume.subject for volume in dataset.volumes],
            "labels": {str(value): dataset.names.get(value, "") for value in dataset.labels},
        }
        for dataset in datasets
    }


def prepare_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """An earlier run's folder is gone on with or replaced, never mixed. Raises InputError where that is not said."""
    earlier = [folder / name for name in (NAME, TRAINING, VALIDATION) if (folder / name).is_file()]
    if earlier and not (resume or overwrite):
        raise InputError(f"{folder}: holds a training run; go on with --resume, replace it with --overwrite")
    if overwrite and not resume:
        for path in earlier:
            path.unlink()
    if not resume:
        (folder / MLFLOW).unlink(missing_ok=True)  # a run of its own
    folder.mkdir(parents=True, exist_ok=True)
