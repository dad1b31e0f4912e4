"""Build the learner of a training run and its start from the settings.

Some options belong to the learner (``learner_options``: how it adapts while it trains), some to its start
(``start_options``: what is learned). Some belong to both, such as the number of inner steps, which is also the number
of learned rates. Such an option may be given in either place, and both get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from medfewshot.backbones import seeded, to_channels_last
from medfewshot.errors import InputError
from medfewshot.learners import MetaLearner, Start, build_start, check_adaptation, load_start, trainable_spec
from medfewshot.training.settings import TrainSettings

RUN_SETTINGS = {"start", "random_start", "device", "progress"}
"""Settings of every learner that are not options, because the run sets them."""
SEPARATE_OPTIONS = {"seed"}
"""Options of both the learner and its start that may differ."""


def make_meta_learner(settings: TrainSettings, device: torch.device) -> tuple[MetaLearner, Start]:
    """Build the learner with its start on ``device``, and describe the start for saving.

    Random weights follow from the seed.

    Raises:
        InputError: An option cannot be used, or the weights to continue from do not fit.
    """
    name, weights = settings.learner, settings.weights
    given = None if weights is None else load_start(weights)
    if given is not None and given.learner == name:
        options, wanted = _share_options(settings, given.adaptation)
        _check_same(given, wanted, str(weights))
        start = given
    else:
        options, wanted = _share_options(settings, {})
        start = _new_start(settings, given, wanted)
    spec = trainable_spec(name)
    learner: MetaLearner = spec.learner(start=start.module.to(device), device=device, **options)
    adaptation = {setting: vars(learner)[setting] for setting in spec.shared_settings}
    check_adaptation(name, adaptation, "learner_options")
    return learner, replace(start, adaptation=adaptation)


def _share_options(settings: TrainSettings, earlier: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Resolve the options of the learner and of its ``build_start``.

    Args:
        settings: Settings of the run.
        earlier: Options of the learner that apply if the settings do not name them.

    Raises:
        InputError: An option is unknown to the learner, or has two different values.
    """
    name, of_learner, of_start = settings.learner, settings.learner_options, settings.start_options
    spec = trainable_spec(name)
    learners = set(spec.settings) - RUN_SETTINGS
    unknown = sorted(set(of_learner) - learners)
    if unknown:
        raise InputError(f"learner_options {', '.join(unknown)}: learner {name} has no such setting")
    for option in sorted((set(of_learner) & set(of_start)) - SEPARATE_OPTIONS):
        if of_learner[option] != of_start[option]:
            raise InputError(
                f"start_options {option} {of_start[option]}: learner_options say {of_learner[option]}", "say it once"
            )
    from_start = {key: value for key, value in of_start.items() if key in learners - SEPARATE_OPTIONS}
    from_learner = {
        key: value for key, value in of_learner.items() if key in set(spec.start_options) - SEPARATE_OPTIONS
    }
    for_learner = {**earlier, **from_start, **of_learner}
    return for_learner, dict(spec.complete_start_options(for_learner, {**from_learner, **of_start}))


def _new_start(settings: TrainSettings, given: Start | None, options: dict[str, Any]) -> Start:
    """Build a start from the network of ``given``, or from a random one."""
    name, seed = settings.learner, settings.seed
    if given is not None:
        backbone = given.backbone
    else:
        build = partial(trainable_spec(name).build_backbone, **settings.backbone.model_dump())
        backbone = to_channels_last(seeded(build, seed))  # type: ignore[arg-type]
    return Start(name, seeded(lambda: build_start(name, backbone, options), seed), options)


def _check_same(given: Start, wanted: Mapping[str, Any], weights: str) -> None:
    """Check that a start to continue from was built with the options ``wanted``.

    Its adaptation may differ: steps after the last learned one use its rate.

    Raises:
        InputError: An option differs.
    """
    spec = trainable_spec(given.learner)
    built = {**spec.start_options, **given.options}
    for name, value in wanted.items():
        if name not in spec.shared_settings and built.get(name) != value:
            raise InputError(
                f"weights {weights}: were made with {name} {built.get(name)}, not {value}",
                "remove that option, or train without these weights",
            )
