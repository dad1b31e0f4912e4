"""A whole training run: settings in, a start on disk out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medfewshot import __version__
from medfewshot.backbones import build_backbone
from medfewshot.devices import describe_device, resolve_device
from medfewshot.learners import LEARNERS, Start, build_start, load_start, save_start
from medfewshot.learners.segmenters import seeded, to_channels_last
from medfewshot.synthetic.populations import Populations
from medfewshot.training.checkpoint import NAME
from medfewshot.training.logs import TRAINING, VALIDATION
from medfewshot.training.loop import Trainer
from medfewshot.training.settings import TrainSettings
from medfewshot.training.sources import EpisodeSource, Mixture
from medfewshot.training.world import join_world, local_device
from medfewshot.types import InputError, MetaLearner, Progress

START = "start"
"""The folder, in that of the run, that ``--weights`` takes."""


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Meta-train and write ``folder/start``; returns what the record in it says.

    Under ``torchrun`` every process calls this alike. Raises InputError where a setting or the folder cannot be used.
    """
    chosen = local_device(resolve_device(device))
    with join_world(chosen) as world:
        if world.first:
            prepare_folder(folder, resume, overwrite)
        world.wait()
        learner = make_meta_learner(settings, chosen)
        training, validation = make_sources(settings)
        trainer = Trainer(
            learner, training, validation, settings, folder, device=chosen, world=world, progress=progress
        )  # fmt: skip
        outcome = trainer.run(resume=resume)
        record = {
            **outcome,
            "medfewshot": __version__,
            "device": describe_device(chosen),
            "processes": world.size,
            "settings": asdict(settings),
            "seen": seen_data(settings),
        }
        if world.first:
            with trainer.averaged():
                save_start(Start(settings.learner, trainer.start, settings.start_options, record), folder / START)
        return record


def make_meta_learner(settings: TrainSettings, device: torch.device) -> MetaLearner:
    """The learner with its start on ``device``; random weights follow from the seed. Raises InputError."""
    options = dict(settings.learner_options)
    start = _make_start(settings).to(device)
    build: Any = LEARNERS[settings.learner]
    unknown = sorted(set(options) - set(signature(build).parameters))
    if unknown:
        raise InputError(f"learner_options {', '.join(unknown)}: learner {settings.learner} has no such setting")
    learner = build(start=start, device=device, **options)
    if not hasattr(learner, "meta_loss"):
        raise InputError(f"learner {settings.learner}: cannot be meta-trained; choose another")
    return learner


def _make_start(settings: TrainSettings) -> nn.Module:
    if settings.learner not in LEARNERS:
        raise InputError(f"learner {settings.learner}: unknown; choose {' or '.join(LEARNERS)}")
    if settings.weights is not None:
        given = load_start(settings.weights)
        if given.learner == settings.learner:
            return given.module
        backbone = given.backbone
    else:
        shape = settings.backbone

        def build() -> nn.Module:
            return build_backbone(
                dims=shape.dims, in_channels=shape.in_channels, width=shape.width, levels=shape.levels
            )  # fmt: skip

        backbone = to_channels_last(seeded(build, settings.seed))  # type: ignore[arg-type]
    return seeded(lambda: build_start(settings.learner, backbone, settings.start_options), settings.seed)


def make_sources(settings: TrainSettings) -> tuple[EpisodeSource, EpisodeSource]:
    """Where training and validation episodes come from.

    Procedural anatomies are drawn anew for every episode, so validation holds out all of its tasks.
    """
    tasks = settings.tasks
    sources: dict[str, EpisodeSource] = {}
    if tasks.synthetic is not None:
        dims = len(tasks.synthetic.patches[0])
        if dims != settings.backbone.dims:
            raise InputError(f"tasks synthetic: has {dims}D patches, but the backbone is {settings.backbone.dims}D")
        sources["synthetic"] = Populations(tasks.synthetic)
    mixture = Mixture(sources, {"synthetic": tasks.synthetic_weight})
    return mixture, mixture


def seen_data(settings: TrainSettings) -> Mapping[str, Any]:
    """What real data the weights have seen: to be said beside every number that they give."""
    return {}


def prepare_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """An earlier run's folder is gone on with or replaced, never mixed. Raises InputError where that is not said."""
    earlier = [folder / name for name in (NAME, TRAINING, VALIDATION) if (folder / name).is_file()]
    if earlier and not (resume or overwrite):
        raise InputError(f"{folder}: holds a training run; go on with --resume, replace it with --overwrite")
    if overwrite and not resume:
        for path in earlier:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
