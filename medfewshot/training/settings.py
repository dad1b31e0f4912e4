"""Settings of a meta-training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medfewshot.episodes import EpisodeSettings
from medfewshot.learners.factory import learner_for
from medfewshot.settings import AUTO, Count, Factors, Patches, Range, Settings, Share, TrainSchedule, Weights
from medfewshot.synthetic import PopulationSettings


class BaseDataset(Settings):
    """A data set whose classes are declared as base."""

    labels: tuple[int, ...] = Field(description="Label values that may become classes in training.")
    validation_labels: tuple[int, ...] = Field((), description="Label values that become classes in validation only.")
    folder: str | None = Field(
        None, description="Where it is, absolute or under the data root. Default: a folder of its own name."
    )
    subjects: int | None = Field(
        None,
        ge=2,
        description="How many, first in file-name order. Default: all of them; of a data set with a fixed split, its "
        "support pool.",
    )
    spacing_mm: float | None = Field(None, gt=0, description="In-plane resolution. Default: derived from the scans.")
    patches: Patches | None = Field(
        None, description="Patch sizes of its episodes, in voxels. Default: those of all real tasks."
    )
    weight: float = Field(1.0, ge=0, description="How often it is drawn, relative to the other data sets.")

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if not self.labels or min((*self.labels, *self.validation_labels)) < 1:
            raise ValueError("labels: name at least one, all of them from 1 (0 is background)")
        both = sorted(set(self.labels) & set(self.validation_labels))
        if both:
            raise ValueError(f"labels {both} are both base and validation labels; put each on one side")
        return self


class RealSettings(EpisodeSettings):
    """Episodes of real base tasks, with the variation that training wants."""

    datasets: dict[str, BaseDataset] = Field(default_factory=dict, description="Name -> what is used of it.")
    root: str | None = Field(
        None, description="Folder of the data sets. Default: the run's data folder, else their own folders."
    )
    patches: Patches | None = ((64, 64, 64),)
    shots: Range = (1, 5)
    ways: Range = (1, 3)
    absent: Share = 0.15
    query_shows_class: bool = False
    fewest_voxels: int = Field(8, ge=1)
    augment: bool = True
    zoom: Factors = (0.8, 1.6)
    thick: Factors | None = (0.65, 1.3)
    curve: Share = 0.5
    large_first: float = 1.0
    small_last: float = -0.3


class BackboneSettings(Settings):
    """An agnostic U-Net: its strides follow each episode's patch and spacing."""

    dims: Literal[2, 3] = Field(3, description="Spatial axes.")
    in_channels: int = Field(1, ge=1, description="Channels of an image.")
    width: int = Field(16, ge=1, description="Channels of the finest level; they double from level to level.")
    levels: int = Field(4, ge=1, description="Levels of the U-Net.")


class TaskSettings(Settings):
    """Tasks of the training; None disables a kind of tasks."""

    synthetic: PopulationSettings | None = Field(default_factory=PopulationSettings, description="Procedural tasks.")
    synthetic_weight: float = Field(1.0, ge=0, description="How often, relative to the other kinds.")
    real: RealSettings | None = Field(None, description="Tasks from labelled data sets.")
    real_weight: float = Field(1.0, ge=0, description="How often, relative to the other kinds.")


Below1 = Annotated[float, Field(ge=0, lt=1)]


class TrainSettings(TrainSchedule):
    """Settings of a run. They and the data determine the result; if ``minutes`` is set, the clock does too."""

    learner: str = Field(
        default_factory=lambda: learner_for(AUTO, 2),
        description="The learner whose start is trained. Default: the one that auto chooses for 2D images.",
    )
    learner_options: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the learner while it trains, e.g. the number of inner steps."
    )
    start_options: dict[str, Any] = Field(default_factory=dict, description="Settings of the learner's start.")
    backbone: BackboneSettings = Field(default_factory=BackboneSettings, description="The network.")
    tasks: TaskSettings = Field(default_factory=TaskSettings, description="What is trained on.")
    weights: Weights = Field(
        None, description="Weights to continue from: a folder or the name of shipped weights. Default: random ones."
    )
    episodes_per_step: Count = Field(4, description="Episodes of a step, over all processes.")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="adamw, or muon (kernels only; AdamW for the rest)."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak; after the warm-up, a half cosine down to 0.")
    warm_up: Below1 = Field(0.03, description="Fraction of the run.")
    weight_decay: float = Field(1e-2, ge=0, description="Of kernels; scales, shifts and single numbers have none.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: Below1 = Field(0.999, description="Decay of the weights' moving average, which is validated and saved.")
    validate_every: Count = Field(200, description="Steps; the last step is always validated.")
    validation_episodes: Count = Field(16, description="Episodes of a validation.")
    validate_dice: bool = Field(
        False, description="Also adapt to every validation episode and score its query: the number that counts; slower."
    )
    checkpoint_every: Count = Field(100, description="Steps; an interrupted run continues from the last checkpoint.")
    log_every: Count = Field(10, description="Steps between rows of the training log.")
    half: bool = Field(False, description="Write the start as float16: half the size on disk.")
