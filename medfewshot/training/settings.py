"""Settings of a meta-training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medfewshot.episodes import EpisodeSettings
from medfewshot.learners.factory import learner_for
from medfewshot.settings import AUTO, Count, Factors, Patches, Range, Settings, Share, TrainSchedule, Weights
from medfewshot.synthetic import PopulationSettings


class ChosenDataset(Settings):
    """What training uses of a data set."""

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
        None, description="Patch sizes of its episodes, in voxels. Default: those of all tasks of this kind."
    )
    weight: float = Field(1.0, ge=0, description="How often it is drawn, relative to the other data sets.")


class BaseDataset(ChosenDataset):
    """A data set whose classes are declared as base."""

    labels: tuple[int, ...] = Field(description="Label values that may become classes in training.")
    validation_labels: tuple[int, ...] = Field((), description="Label values that become classes in validation only.")

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if not self.labels or min((*self.labels, *self.validation_labels)) < 1:
            raise ValueError("labels: name at least one, all of them from 1 (0 is background)")
        both = sorted(set(self.labels) & set(self.validation_labels))
        if both:
            raise ValueError(f"labels {both} are both base and validation labels; put each on one side")
        return self


class RegionDataset(ChosenDataset):
    """A data set whose scans are used without their labels."""

    volumes_ml: Factors = Field((0.5, 500.0), description="Smallest and largest volume of a region that is a class.")
    neighbours: int = Field(0, ge=0, description="Similar scans to which registration carries the regions of a scan.")


class LabelMapDataset(ChosenDataset):
    """A folder of label maps, whose images are computer-generated."""

    never: tuple[int, ...] = Field((), description="Label values that are painted but never become classes.")
    same_brightness: tuple[tuple[int, ...], ...] = Field(
        (), description="Groups of label values that look alike, such as left and right."
    )
    recombined: int = Field(0, ge=0, description="Additional maps, with structures taken from several maps.")


class VariedSettings(EpisodeSettings):
    """Episodes from volumes on disk, with the variation that training wants."""

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


class RealSettings(VariedSettings):
    """Episodes of real base tasks."""

    datasets: dict[str, BaseDataset] = Field(default_factory=dict, description="Name -> what is used of it.")


class RegionSettings(VariedSettings):
    """Episodes of regions of scans without labels; support and query are views of one scan."""

    datasets: dict[str, RegionDataset] = Field(default_factory=dict, description="Name -> what is used of it.")
    near_mm: float | None = Field(60.0, gt=0)
    large_first: float = 0.5
    small_last: float = 0.0


class LabelMapSettings(VariedSettings):
    """Episodes of label maps with computer-generated images."""

    datasets: dict[str, LabelMapDataset] = Field(default_factory=dict, description="Name -> what is used of it.")
    near_mm: float | None = Field(60.0, gt=0)
    curve: Share = 0.0


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
    regions: RegionSettings | None = Field(None, description="Tasks from regions of scans without labels.")
    regions_weight: float = Field(1.0, ge=0, description="How often, relative to the other kinds.")
    label_maps: LabelMapSettings | None = Field(None, description="Tasks from label maps without scans.")
    label_maps_weight: float = Field(1.0, ge=0, description="How often, relative to the other kinds.")

    @property
    def from_data(self) -> dict[str, RealSettings | RegionSettings | LabelMapSettings]:
        """The kinds of tasks that read volumes, by name."""
        kinds = {"real": self.real, "regions": self.regions, "label_maps": self.label_maps}
        return {name: settings for name, settings in kinds.items() if settings is not None}

    @property
    def weights(self) -> dict[str, float]:
        """How often each kind is drawn, relative to the others."""
        return {
            "synthetic": self.synthetic_weight,
            "real": self.real_weight,
            "regions": self.regions_weight,
            "label_maps": self.label_maps_weight,
        }


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
