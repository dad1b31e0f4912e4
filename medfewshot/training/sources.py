"""Build the episode sources of a training run."""

from __future__ import annotations

from dataclasses import replace

from medfewshot.episodes import EpisodeSampler, EpisodeSource, Mixture, region_tasks
from medfewshot.errors import InputError
from medfewshot.synthetic import Populations
from medfewshot.training.reading import Tasks
from medfewshot.training.settings import RegionSettings, TaskSettings, TrainSettings


def make_sources(settings: TrainSettings, read: Tasks) -> tuple[EpisodeSource, EpisodeSource, list[str]]:
    """Build the sources of a run.

    Args:
        settings: What is trained on.
        read: The tasks that were read from data, by kind.

    Returns:
        Training source, validation source, and warnings. Validation has tasks that training never sees, if there are
        any; otherwise other episodes of the training structures, with a warning.

    Raises:
        InputError: There is nothing to train on, or it does not fit the backbone.
    """
    tasks = settings.tasks
    if tasks.synthetic is not None:
        _check(settings, "tasks synthetic", len(tasks.synthetic.patches[0]), settings.backbone.in_channels)
    for task in (task for kind in read.values() for task in kind):
        image = task.examples[0].image
        _check(settings, task.name, image.ndim - 1, image.shape[0])
    held_out = [replace(t, labels=t.validation_labels) for t in read.get("real", ()) if t.validation_labels]
    training, validation = _sources(tasks, read), _sources(tasks, {"real": tuple(held_out)})
    warnings = []
    if training and not validation:
        validation = training
        warnings.append(
            "no structure is held out, so validation takes other episodes of the training structures; name "
            "validation_labels to measure generalization"
        )
    return Mixture(training, tasks.weights), Mixture(validation, tasks.weights), warnings


def _sources(tasks: TaskSettings, read: Tasks) -> dict[str, EpisodeSource]:
    """Build the source of each kind of tasks, by name.

    To add a kind, add its settings to ``TaskSettings``, and it here.
    """
    made: dict[str, EpisodeSource] = {}
    if tasks.synthetic is not None:
        made["synthetic"] = Populations(tasks.synthetic)  # each episode has a new anatomy, so it also validates
    for kind, wanted in tasks.from_data.items():
        found = list(read.get(kind, ()))
        if isinstance(wanted, RegionSettings):
            views, chosen = wanted.shots[1] + wanted.queries, wanted.datasets
            found = [one for task in found for one in region_tasks(task, views, chosen[task.name].neighbours)]
        if found and tasks.weights[kind] > 0:
            made[kind] = EpisodeSampler(found, wanted)
    return {kind: source for kind, source in made.items() if tasks.weights[kind] > 0}


def _check(settings: TrainSettings, name: str, dims: int, channels: int) -> None:
    shape = settings.backbone
    if (dims, channels) != (shape.dims, shape.in_channels):
        raise InputError(
            f"{name}: is {dims}D with {channels} channel(s), but the backbone is {shape.dims}D with "
            f"{shape.in_channels}",
            "remove these tasks or change the backbone",
        )
