"""The learner of a run, and the start that it is to train, from the settings.

Some options are the learner's (``learner_options``: how it adapts while it trains), some its start's
(``start_options``: what is learned), and some are both: the number of inner steps is also that of the learned rates. An
option that both have may be given in either place, and both get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from medfewshot.backbones import seeded, to_channels_last
from medfewshot.errors import InputError
from medfewshot.learners import (
    MetaLearner,
    Start,
    adaptation_of,
    build_start,
    build_start_backbone,
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
    """The learner with its start on ``device``, and that start as it is to be saved, with how it is to be adapted.

    Random weights follow from the seed. Raises InputError.
    """
    name = settings.learner
    spec = trainable(name)
    given = None if settings.weights is None else load_start(settings.weights)
    if given is not None and given.learner == name:
        options, wanted = share_options(settings, given.adaptation)
        _check_same(given, wanted, str(settings.weights))
        start = given
    else:
        options, wanted = share_options(settings)
        start = _new_start(settings, None if given is None else given.backbone, wanted)
    learner: MetaLearner = spec.learner(start=start.module.to(device), device=device, **options)
    adaptation = adaptation_of(name, learner)
    check_adaptation(name, adaptation, "learner_options")
    return learner, replace(start, adaptation=adaptation)


def share_options(
    settings: TrainSettings, earlier: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the learner and of its ``build_start``. ``earlier``: the learner's where the settings say nothing.

    Raises InputError where one is unknown to the learner, or is given twice and differently.
    """
    name, of_learner, of_start = settings.learner, settings.learner_options, settings.start_options
    spec = trainable(name)
    learners = set(spec.settings) - RUNS_OWN
    starts = set(spec.start_options) - APART
    unknown = sorted(set(of_learner) - learners)
    if unknown:
        raise InputError(f"learner_options {', '.join(unknown)}: learner {name} has no such setting")
    for option in sorted((set(of_learner) & set(of_start)) - APART):
        if of_learner[option] != of_start[option]:
            raise InputError(
                f"start_options {option} {of_start[option]}: learner_options say {of_learner[option]}; say it once"
            )
    from_start = {key: value for key, value in of_start.items() if key in learners - APART}
    for_learner = {**(earlier or {}), **from_start, **of_learner}
    for_start = {**{key: value for key, value in of_learner.items() if key in starts}, **of_start}
    return for_learner, dict(spec.complete_start_options(for_learner, for_start))


def _new_start(settings: TrainSettings, backbone: nn.Module | None, options: dict[str, Any]) -> Start:
    """A start around ``backbone``, or around random weights."""
    name, shape = settings.learner, settings.backbone

    def build() -> nn.Module:
        return build_start_backbone(
            name, dims=shape.dims, in_channels=shape.in_channels, width=shape.width, levels=shape.levels
        )

    if backbone is None:
        backbone = to_channels_last(seeded(build, settings.seed))  # type: ignore[arg-type]
    module = seeded(lambda: build_start(name, backbone, options), settings.seed)
    return Start(name, module, options)


def _check_same(given: Start, wanted: Mapping[str, Any], weights: str) -> None:
    """Raise InputError where a start to go on with was built in another way than is ``wanted``.

    It may be adapted in another way than before: steps after the last learned one take its rate.
    """
    spec = trainable(given.learner)
    built = {**spec.start_options, **given.options}
    for name, value in wanted.items():
        if name not in spec.shared and built.get(name) != value:
            raise InputError(
                f"weights {weights}: were made with {name} {built.get(name)}, not {value}; leave that out, or begin "
                "without these weights"
            )
