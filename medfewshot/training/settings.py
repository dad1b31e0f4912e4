"""How a meta-training run goes, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medfewshot.episodes import EpisodeSettings
from medfewshot.errors import InputError
from medfewshot.synthetic import PopulationSettings


@dataclass(frozen=True)
class BaseDataset:
    """A data set whose classes are declared as base."""

    labels: tuple[int, ...]
    """Label values that may become classes in training."""
    validation_labels: tuple[int, ...] = ()
    """Label values that become classes in validation only."""
    folder: str | None = None
    """Where it is, absolute or under the data root; None: a folder of its own name."""
    subjects: int | None = None
    """How many, first in file-name order; None: all of them, or the support pool of a data set with a fixed split."""
    spacing_mm: float | None = None
    """In-plane resolution; None derives it as for any support."""
    patches: tuple[tuple[int, ...], ...] | None = None
    """Patch sizes (voxels) of its episodes; None takes those of all real tasks."""
    weight: float = 1.0
    """How often it is drawn, relative to the other data sets."""

    def __post_init__(self) -> None:
        if not self.labels or min((*self.labels, *self.validation_labels)) < 1:
            raise InputError("labels: there is no base label, or one below 1", "name labels from 1 (0 is background)")
        both = sorted(set(self.labels) & set(self.validation_labels))
        if both:
            raise InputError(f"labels {both} are both base and validation labels", "put each on one side")


@dataclass(frozen=True)
class RealSettings(EpisodeSettings):
    """Episodes of real base tasks, with the variation that training wants."""

    datasets: Mapping[str, BaseDataset] = field(default_factory=dict)
    root: str | None = None
    """Folder of the data sets; None takes the ``data`` of the run, else each data set's own ``folder``."""
    patches: tuple[tuple[int, ...], ...] | None = ((64, 64, 64),)
    shots: tuple[int, int] = (1, 5)
    ways: tuple[int, int] = (1, 3)
    absent: float = 0.15
    query_shows_class: bool = False
    fewest_voxels: int = 8
    augment: bool = True
    zoom: tuple[float, float] = (0.8, 1.6)
    thick: tuple[float, float] | None = (0.65, 1.3)
    curve: float = 0.5
    large_first: float = 1.0
    small_last: float = -0.3


@dataclass(frozen=True)
class BackboneSettings:
    """An agnostic U-Net: its strides follow each episode's patch and spacing."""

    dims: int = 3
    in_channels: int = 1
    width: int = 16
    """Channels of the finest level; they double from level to level."""
    levels: int = 4


@dataclass(frozen=True)
class TaskSettings:
    """What is trained on; None leaves a kind of tasks out."""

    synthetic: PopulationSettings | None = field(default_factory=PopulationSettings)
    synthetic_weight: float = 1.0
    """How often, relative to the other kind."""
    real: RealSettings | None = None
    real_weight: float = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """A run is a function of these and of the episodes' sources; where ``minutes`` is set, of the clock too."""

    learner: str = "finetune"
    learner_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the learner while it trains, e.g. the number of inner steps."""
    start_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the learner's ``build_start``."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    tasks: TaskSettings = field(default_factory=TaskSettings)
    weights: str | None = None
    """A start to go on from, in place of a random one (a folder, or the name of shipped weights)."""
    seed: int = 0
    steps: int = 1000
    """Optimiser steps."""
    minutes: float | None = None
    """Most minutes of training: the learning rate reaches its end by then, after fewer steps where need be."""
    episodes_per_step: int = 4
    """Over all processes."""
    optimizer: str = "adamw"
    """``adamw``, or ``muon`` for kernels with AdamW for the rest."""
    learning_rate: float = 1e-3
    """Peak; reached after the warm-up, then a half cosine down to 0."""
    warm_up: float = 0.03
    """Fraction of the run."""
    weight_decay: float = 1e-2
    """On kernels; not on scales, shifts and single numbers."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and kept."""
    validate_every: int = 200
    """Steps; the last step is always validated."""
    validation_episodes: int = 16
    validate_dice: bool = False
    """Also adapt to every validation episode and score its query: the number that counts, and the time it takes."""
    checkpoint_every: int = 100
    """Steps; a run that is cut off goes on from the last checkpoint."""
    log_every: int = 10
    half: bool = False
    """Write the start as float16: half the size on disk."""

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "episodes_per_step",
            "validate_every",
            "validation_episodes",
            "checkpoint_every",
            "log_every",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: give a whole number from 1")
        if self.optimizer not in ("adamw", "muon"):
            raise InputError(f"optimizer {self.optimizer}: give adamw or muon")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: give a number above 0")
        for name in ("warm_up", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: give a number from 0 to below 1")
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"minutes {self.minutes}: give a number above 0, or null for no limit")
        if self.backbone.dims not in (2, 3):
            raise InputError(f"backbone dims {self.backbone.dims}: give 2 or 3")
