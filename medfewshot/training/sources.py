"""Build the episode sources of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medfewshot.episodes import EpisodeSampler, EpisodeSource, LabelledTask, Mixture
from medfewshot.errors import InputError
from medfewshot.synthetic import Populations
from medfewshot.training.settings import TaskSettings, TrainSettings


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
    if tasks.synthetic is not None:
        _check(settings, "tasks synthetic", len(tasks.synthetic.patches[0]), settings.backbone.in_channels)
    for task in real:
        image = task.examples[0].image
        _check(settings, task.name, image.ndim - 1, image.shape[0])
    held_out = [replace(task, labels=task.validation_labels) for task in real if task.validation_labels]
    training, validation = _sources(tasks, real), _sources(tasks, held_out or None)
    warnings = []
    if training and not validation:
        validation = training
        warnings.append(
            "no structure is held out, so validation takes other episodes of the training structures; name "
            "validation_labels to measure generalization"
        )
    weights = {"synthetic": tasks.synthetic_weight, "real": tasks.real_weight}
    return Mixture(training, weights), Mixture(validation, weights), warnings


def _sources(tasks: TaskSettings, real: Sequence[LabelledTask] | None) -> dict[str, EpisodeSource]:
    """Build the source of each kind of tasks, by name.

    To add a kind, add its settings to ``TaskSettings``, and it here.

    Args:
        tasks: What is trained on.
        real: Labelled volumes; None if there are none with structures to validate on.
    """
    made: dict[str, EpisodeSource] = {}
    if tasks.synthetic is not None and tasks.synthetic_weight > 0:
        made["synthetic"] = Populations(tasks.synthetic)  # each episode has a new anatomy, so it also validates
    if tasks.real is not None and tasks.real_weight > 0 and real is not None:
        made["real"] = EpisodeSampler(real, tasks.real)
    return made


def _check(settings: TrainSettings, name: str, dims: int, channels: int) -> None:
    shape = settings.backbone
    if (dims, channels) != (shape.dims, shape.in_channels):
        raise InputError(
            f"{name}: is {dims}D with {channels} channel(s), but the backbone is {shape.dims}D with "
            f"{shape.in_channels}",
            "remove these tasks or change the backbone",
        )
