"""The learner of a run, and the start that it is to train, from the settings.

Some options are the learner's (``learner_options``: how it adapts while it trains), some its start's
(``start_options``: what is learned), and some are both: the number of inner steps is also that of the learned rates. An
option that both have may be given in either place, and both get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from medfewshot.backbones import seeded, to_channels_last
from medfewshot.errors import InputError
from medfewshot.learners import (
    MetaLearner,
    Start,
    build_start,
    check_adaptation,
    load_start,
    trainable,
)
from medfewshot.training.settings import TrainSettings

RUNS_OWN = {"start", "device", "progress"}
"""Settings of every learner that are not options: the run gives them."""
APART = {"seed"}
"""Options that a learner and its start both have, each its own."""


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
    spec = trainable(name)
    learner: MetaLearner = spec.learner(start=start.module.to(device), device=device, **options)
    adaptation = {setting: vars(learner)[setting] for setting in spec.shared}
    check_adaptation(name, adaptation, "learner_options")
    return learner, replace(start, adaptation=adaptation)


def _share_options(settings: TrainSettings, earlier: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the learner and of its ``build_start``. ``earlier``: the learner's if the settings do not name them.

    Raises:
        InputError: One is unknown to the learner, or has two different values.
    """
    name, of_learner, of_start = settings.learner, settings.learner_options, settings.start_options
    spec = trainable(name)
    learners = set(spec.settings) - RUNS_OWN
    unknown = sorted(set(of_learner) - learners)
    if unknown:
        raise InputError(f"learner_options {', '.join(unknown)}: learner {name} has no such setting")
    for option in sorted((set(of_learner) & set(of_start)) - APART):
        if of_learner[option] != of_start[option]:
            raise InputError(
                f"start_options {option} {of_start[option]}: learner_options say {of_learner[option]}", "say it once"
            )
    from_start = {key: value for key, value in of_start.items() if key in learners - APART}
    from_learner = {key: value for key, value in of_learner.items() if key in set(spec.start_options) - APART}
    for_learner = {**earlier, **from_start, **of_learner}
    return for_learner, dict(spec.complete_start_options(for_learner, {**from_learner, **of_start}))


def _new_start(settings: TrainSettings, given: Start | None, options: dict[str, Any]) -> Start:
    """A start around the network of ``given``, or around a random one."""
    name, seed = settings.learner, settings.seed
    if given is not None:
        backbone = given.backbone
    else:
        build = partial(trainable(name).build_backbone, **settings.backbone.model_dump())
        backbone = to_channels_last(seeded(build, seed))  # type: ignore[arg-type]
    return Start(name, seeded(lambda: build_start(name, backbone, options), seed), options)


def _check_same(given: Start, wanted: Mapping[str, Any], weights: str) -> None:
    """Check that a start to continue from was built as ``wanted``.

    It may be adapted in another way than before: steps after the last learned one take its rate.

    Raises:
        InputError: It was built in another way.
    """
    spec = trainable(given.learner)
    built = {**spec.start_options, **given.options}
    for name, value in wanted.items():
        if name not in spec.shared and built.get(name) != value:
            raise InputError(
                f"weights {weights}: were made with {name} {built.get(name)}, not {value}",
                "remove that option, or train without these weights",
            )
