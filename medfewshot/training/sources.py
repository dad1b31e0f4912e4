"""The kinds of tasks that a training run may name, and the episode sources of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from medfewshot.episodes import EpisodeSampler, EpisodeSource, LabelledTask, Mixture
from medfewshot.errors import InputError
from medfewshot.synthetic import Populations
from medfewshot.training.settings import TrainSettings


def _synthetic(settings: Any, real: Sequence[LabelledTask], validation: bool) -> EpisodeSource:
    """Every episode has a new anatomy, so validation has tasks that training never sees."""
    return Populations(settings)


def _real(settings: Any, real: Sequence[LabelledTask], validation: bool) -> EpisodeSource | None:
    if validation:
        real = [replace(task, labels=task.validation_labels) for task in real if task.validation_labels]
    return EpisodeSampler(real, settings) if real or not validation else None


SOURCES: dict[str, Callable[[Any, Sequence[LabelledTask], bool], EpisodeSource | None]] = {
    "synthetic": _synthetic,
    "real": _real,
}
"""A field of ``TaskSettings`` (with its ``..._weight`` beside it) -> the builder of its source.

A builder receives the field's value, the labelled tasks of the run, and whether episodes are for validation. It returns
None if it has no structures that training never sees. To add a kind of tasks, add a field, its weight and a row here.
"""


def make_sources(
    settings: TrainSettings, real: Sequence[LabelledTask] = ()
) -> tuple[EpisodeSource, EpisodeSource, list[str]]:
    """Build the sources of a run.

    Returns:
        Training source, validation source, and warnings. Validation has tasks that training never sees, if there are
        any; otherwise other episodes of the training structures, with a warning.

    Raises:
        InputError: There is nothing to train on, or it does not fit the backbone.
    """
    tasks = settings.tasks
    warnings: list[str] = []
    if tasks.synthetic is not None:
        _check(settings, "tasks synthetic", len(tasks.synthetic.patches[0]), settings.backbone.in_channels)
    for task in real:
        image = task.examples[0].image
        _check(settings, task.name, image.ndim - 1, image.shape[0])
    weights = {name: float(getattr(tasks, f"{name}_weight")) for name in SOURCES}

    def build(validation: bool) -> dict[str, EpisodeSource]:
        chosen = {name: getattr(tasks, name) for name in SOURCES if weights[name] > 0}
        made = {n: SOURCES[n](value, real, validation) for n, value in chosen.items() if value is not None}
        return {name: source for name, source in made.items() if source is not None}

    training, held_out = build(False), build(True)
    if training and not held_out:
        held_out = training
        warnings.append(
            "no structure is held out, so validation takes other episodes of the training structures; name "
            "validation_labels to measure generalization"
        )
    return Mixture(training, weights), Mixture(held_out, weights), warnings


def _check(settings: TrainSettings, name: str, dims: int, channels: int) -> None:
    shape = settings.backbone
    if (dims, channels) != (shape.dims, shape.in_channels):
        raise InputError(
            f"{name}: is {dims}D with {channels} channel(s), but the backbone is {shape.dims}D with "
            f"{shape.in_channels}",
            "remove these tasks or change the backbone",
        )
