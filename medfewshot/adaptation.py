"""Choice of the learner: what ``auto`` means, and a learner built from settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from medfewshot.backbones import UNet
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError, did_you_mean
from medfewshot.learners import LEARNERS, Learner, build_start, load_start
from medfewshot.settings import AUTO, NO_WEIGHTS, AdaptSettings
from medfewshot.types import Progress, Volume

VOLUME_LEARNER, PLANE_LEARNER = "hybrid", "finetune"
"""What ``auto`` means for 3D and for 2D images. In 2D the hybrid was not measured."""
SHIPPED_WEIGHTS = {("finetune", 3, 1): "default", ("hybrid", 3, 1): "default", ("in_context", 2, 1): "in-context-2d"}
"""Learner, dimensions and channels of its images -> the package's weights that it begins with by itself."""
STARTING_LEARNERS = ("finetune", "hybrid")
"""Learners that begin with the features of a U-Net that was trained for any learner, and train on."""
FEATURE_LEARNERS = ("prototype", "ridge")
"""Learners whose head can stand on any start's features."""
STEPS_FROM_WEIGHTS = {"finetune": 400, "hybrid": 400, "in_context": 0}
"""Steps of these learners from meta-trained weights, where nobody gives a number."""


def choose_learner(settings: AdaptSettings, spatial_dims: int) -> AdaptSettings:
    """Settings whose ``learner`` names one: what ``auto`` means for images of that many dimensions."""
    if settings.learner != AUTO:
        return settings
    return settings.replace(learner=VOLUME_LEARNER if spatial_dims == 3 else PLANE_LEARNER)


def choose(settings: AdaptSettings, images: Sequence[Volume]) -> AdaptSettings:
    """What ``auto`` means for ``images``: settings whose ``learner`` names one, and whose ``weights`` a start or None.

    The package's weights are for images of one channel, and for a backbone as wide as theirs.
    """
    settings = choose_learner(settings, max((image.spatial_dims for image in images), default=3))
    weights = None if settings.weights == NO_WEIGHTS else settings.weights
    if weights == AUTO:
        kinds = {(image.spatial_dims, image.data.shape[0]) for image in images}
        fits = settings.width is None and len(kinds) == 1
        weights = SHIPPED_WEIGHTS.get((settings.learner, *kinds.pop())) if fits else None
    return settings.replace(weights=weights)


def make_learner(
    settings: AdaptSettings,
    progress: Progress | None = None,
    learners: Mapping[str, Callable[..., Learner]] = LEARNERS,
) -> Learner:
    """The one of ``learners`` that ``settings`` names.

    Raises InputError where there is none, or it lacks a setting or device.
    """
    settings = choose_learner(settings, spatial_dims=3)
    if settings.learner not in learners:
        near = did_you_mean(settings.learner, learners)
        raise InputError(f"learner {settings.learner}: unknown{near}; choose {' or '.join(learners)}")
    build = learners[settings.learner]
    known = signature(build).parameters
    options = {
        "steps": settings.steps,
        "budget_seconds": settings.budget_seconds,
        "width": settings.width,
        "learning_rate": settings.learning_rate,
        "progress": progress,
    }
    given = {key: value for key, value in options.items() if value is not None}
    foreign = [key for key in given if key not in known and given[key] != getattr(AdaptSettings(), key, given[key])]
    if foreign:
        raise InputError(f"learner {settings.learner}: has no setting {', '.join(foreign)}; leave it out")
    given = {key: value for key, value in given.items() if key in known}
    started = settings.weights not in (None, AUTO, NO_WEIGHTS)
    if started and "start" not in known:
        load_start(str(settings.weights))  # a name that is misspelt is told first
        raise InputError(f"--weights {settings.weights}: learner {settings.learner} takes none; leave it out")
    if started and settings.width is not None:
        raise InputError(f"--weights {settings.weights}: have a width of their own; leave the width out")
    if settings.steps is None and "steps" in known:
        own = known["steps"].default
        steps = STEPS_FROM_WEIGHTS.get(settings.learner, own) if started else own
        given["steps"] = -(-steps // 4) if settings.fast else steps
    if "seed" in known:  # a learner without chance has none
        given["seed"] = settings.seed
    if started:
        given = _read_start(settings.learner, str(settings.weights)) | given
    return build(device=resolve_device(settings.device), **given)


def _read_start(learner: str, weights: str) -> dict[str, Any]:
    """``start`` for ``learner``, and the settings that it was trained with and must be adapted with.

    Fine-tuning, prototypes and ridge regression may begin with any learner's backbone.
    """
    start = load_start(weights)
    if start.learner == learner:
        return {"start": start.module, **start.adaptation}
    if learner in STARTING_LEARNERS:
        own = start.learner == "finetune"
        return {"start": start.module if own else build_start("finetune", start.backbone)}
    if learner in FEATURE_LEARNERS and isinstance(start.backbone, UNet):
        return {"start": start.backbone}
    raise InputError(
        f"--weights {weights}: were trained for learner {start.learner}, not {learner}; take --learner {start.learner}"
    )
