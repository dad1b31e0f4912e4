"""Build a learner from settings, and resolve ``auto`` for given images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from medfewshot.backbones import UNet
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError, did_you_mean
from medfewshot.learners.base import LEARNERS, Learner, LearnerSpec, Segmenter
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.learners.weights import load_start
from medfewshot.settings import AUTO, NO_WEIGHTS, AdaptSettings, QualityLevel
from medfewshot.types import Progress, Volume

OPTIONAL = ("steps", "budget_seconds", "width", "learning_rate")
"""Settings that some learners do not have."""
SEVERAL_SUPPORTS = 1.5
"""Factor of the steps from weights with more than one support: with one, longer training harms other scans."""
TRACKED_FRAMES = 0.25
"""Factor of the steps from weights with tracked frames of films; ``lab/notes/films.md``."""


def resolve_auto(
    settings: AdaptSettings, images: Sequence[Volume], learners: Mapping[str, LearnerSpec] = LEARNERS
) -> AdaptSettings:
    """Replace ``auto`` in the settings by the learner and weights for ``images``.

    The package's weights are used only if they fit: all images have the same dimensions and channels, and the user set
    no ``width``. Weights of a 3D U-Net for one channel fit 2D images and several channels.

    Returns:
        Settings whose ``learner`` is a name and whose ``weights`` are a name, a folder or None.
    """
    dims = max((image.spatial_dims for image in images), default=3)
    settings = settings.replace(learner=learner_for(settings.learner, dims, learners, level=settings.level))
    weights = None if settings.weights == NO_WEIGHTS else settings.weights
    if weights == AUTO:
        kinds = {(image.spatial_dims, image.data.shape[0]) for image in images}
        fits = settings.width is None and len(kinds) == 1 and settings.learner in learners
        weights = _package_weights(learners[settings.learner], *kinds.pop()) if fits else None
    return settings.replace(weights=weights)


def _package_weights(spec: LearnerSpec, dims: int, channels: int) -> str | None:
    fits = [(dims, channels), *([(dims, 1), (3, 1)] if spec.network is UNet else [])]
    return next((spec.weights[kind] for kind in fits if kind in spec.weights), None)


def learner_for(
    name: str, dims: int, learners: Mapping[str, LearnerSpec] = LEARNERS, *, level: QualityLevel | None = None
) -> str:
    """Return ``name``; for ``auto``, the name of the learner for images with ``dims`` axes at a level of quality."""
    if name != AUTO:
        return name
    instant = level is not None and level.instant
    fits = [spec.name for spec in learners.values() if (spec.instant_steps if instant else dims in spec.auto_dims)]
    return fits[0] if fits else name


def make_learner(
    settings: AdaptSettings,
    progress: Progress | None = None,
    learners: Mapping[str, LearnerSpec] = LEARNERS,
    *,
    shots: int = 1,
    tracked: bool = False,
    network: nn.Module | None = None,
    steps_done: int | None = None,
) -> Learner:
    """Build the learner that ``settings`` name.

    Args:
        settings: Settings of the adaptation. Call :func:`resolve_auto` first; otherwise ``auto`` means the learner
            for 3D images without weights.
        progress: Receives the learner's events.
        learners: Learners that ``settings`` may name.
        shots: Number of supports, on which the default number of steps depends.
        tracked: Whether it learns from tracked frames of a film too, which also changes that number.
        network: What :func:`start_of` made of an earlier segmenter that began with the weights of the settings.
        steps_done: Steps of that segmenter, if its quality was lower; the missing ones follow.

    Returns:
        The learner.

    Raises:
        InputError: The learner or the device is unknown, or the learner lacks a setting.
    """
    name = learner_for(settings.learner, 3, learners, level=settings.level)
    if name not in learners:
        near = did_you_mean(name, learners)
        raise InputError(f"learner {name}: unknown{near}", f"choose {' or '.join(learners)}", setting="learner")
    spec = learners[name]
    given = _given(spec, settings)
    start: dict[str, Any] = {}
    if network is not None:
        start = {"start": network}
        if "random_start" in spec.settings:
            start["random_start"] = settings.weights is None
    elif settings.weights not in (None, AUTO, NO_WEIGHTS):
        start = _start(spec, settings)
    if settings.steps is None and network is not None:
        given["steps"] = continued = spec.steps_continued or 0
        if steps_done is not None:
            from_weights = settings.weights is not None
            given["steps"] = max(continued, _default_steps(spec, settings, shots, started=from_weights) - steps_done)
    elif settings.steps is None and "steps" in spec.settings:
        given["steps"] = _default_steps(spec, settings, shots, started=bool(start), tracked=tracked)
    if "seed" in spec.settings:
        given["seed"] = settings.seed
    if progress is not None and "progress" in spec.settings:
        given["progress"] = progress
    learner: Learner = spec.learner(device=resolve_device(settings.device), **start | given)
    return learner


def start_of(segmenter: Segmenter, learner: str, *, same_classes: bool) -> nn.Module:
    """Make a start for ``learner`` from an earlier segmenter, to continue its training.

    Args:
        segmenter: The earlier segmenter.
        learner: Name of the learner.
        same_classes: Whether it knows exactly the structures to learn. If not, its head is solved again.

    Raises:
        InputError: This kind of segmenter, or this learner, cannot continue.
    """
    network = segmenter.trained_network
    spec = LEARNERS.get(learner)
    if network is None or spec is None or spec.steps_continued is None:
        able = [name for name, one in LEARNERS.items() if one.steps_continued is not None]
        raise InputError(
            f"learner {learner}: cannot continue from this segmenter",
            f"start a new adaptation, or use {' or '.join(able)}",
            setting="learner",
        )  # fmt: skip
    return network if same_classes else LinearHeadStart(network)


def _given(spec: LearnerSpec, settings: AdaptSettings) -> dict[str, Any]:
    """Return the optional settings that have a value; refuse one that this learner lacks."""
    values = settings.model_dump(include=set(OPTIONAL))
    given = {name: values[name] for name in OPTIONAL if values[name] is not None}
    lacking = [
        name
        for name, value in given.items()
        if name not in spec.settings and value != AdaptSettings.model_fields[name].default
    ]
    if lacking:
        problem = f"learner {spec.name}: has no setting {', '.join(lacking)}"
        raise InputError(problem, "remove it", setting=tuple(lacking))
    given |= {"budget_seconds": settings.time_limit}
    return {name: value for name, value in given.items() if name in spec.settings}


def _default_steps(
    spec: LearnerSpec, settings: AdaptSettings, shots: int, *, started: bool, tracked: bool = False
) -> int:
    """Return the number of steps if the user gave none: the method's own, times the factor of the quality.

    More steps would learn the errors in the labels of tracked frames, at any quality.
    """
    steps: float = spec.settings["steps"]
    if started and spec.steps_from_weights is not None:
        steps = spec.steps_from_weights * (1 if shots == 1 else SEVERAL_SUPPORTS)
        if tracked:
            return math.ceil(steps * TRACKED_FRAMES)
    return math.ceil(steps * settings.level.steps)


def _start(spec: LearnerSpec, settings: AdaptSettings) -> dict[str, Any]:
    """Load ``start`` for the learner, and the settings that it shares with meta-training."""
    start = load_start(str(settings.weights))
    if "start" not in spec.settings:
        raise InputError(f"learner {spec.name}: takes no weights", "remove them", setting="weights")
    if settings.width is not None:
        raise InputError(f"weights {settings.weights}: have a width of their own", "remove the width", setting="width")
    if start.learner == spec.name:
        return {"start": start.module, **start.adaptation}
    module = spec.convert_start(start.module)
    if module is None:
        raise InputError(
            f"weights {settings.weights}: were trained for learner {start.learner}, not {spec.name}",
            f"choose learner {start.learner} or other weights",
            setting=("learner", "weights"),
        )
    return {"start": module}
