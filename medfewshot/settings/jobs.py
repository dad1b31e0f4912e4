"""The settings of every job: one model a job, one field a setting."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from medfewshot.settings.base import Option, Settings
from medfewshot.settings.quality_levels import QUALITY_LEVELS, Quality, QualityLevel

AUTO: Literal["auto"] = "auto"
NO_WEIGHTS = "none"


def parse_labels(labels: Any) -> Any:
    """Structures from text, a sequence or a mapping.

    Args:
        labels: ``"1,6"``, ``"liver,spleen"`` or ``"1=liver,6=spleen"``; a sequence of values and names; a mapping
            value -> name; or None.

    Returns:
        A mapping, a tuple or None.

    Raises:
        ValueError: The text is none of these.
    """
    if isinstance(labels, str) and "=" in labels:
        pairs = [part.partition("=") for part in labels.split(",") if part.strip()]
        if not all(value.strip().isdecimal() and name.strip() for value, _, name in pairs):
            raise ValueError("give values with names, e.g. 1=liver,2=spleen")
        named = {int(value): name.strip() for value, _, name in pairs}
        if len(named) < len(pairs):
            raise ValueError("name each value once")
        return named
    if isinstance(labels, str):
        parts = [part.strip() for part in labels.split(",")]
        if not all(parts) or any(part.startswith("-") for part in parts):
            raise ValueError("give values or names separated by commas, e.g. 1,6 or liver,spleen")
        return tuple(int(part) if part.isdecimal() else part for part in parts)
    if isinstance(labels, Mapping):
        return {_plain(value): name for value, name in labels.items()}
    if isinstance(labels, Integral):
        return (int(labels),)
    return labels if labels is None else tuple(_plain(value) for value in labels)


def check_labels(labels: Mapping[int, str] | tuple[int | str, ...] | None) -> Any:
    """Check that every structure is named once and none is the background.

    Raises:
        ValueError: The labels break one of these rules.
    """
    named: list[int | str] = list(labels or ())
    values = [value for value in named if isinstance(value, int)]
    if labels is not None and (not named or min(values, default=1) < 1 or len(set(named)) < len(named)):
        raise ValueError("name each value once, from 1 up (0 is background)")
    return labels


def _plain(value: Any) -> Any:
    """Return a NumPy whole number as Python's own."""
    return int(value) if isinstance(value, Integral) else value


def _ordered(value: tuple[Any, Any]) -> tuple[Any, Any]:
    if value[0] > value[1]:
        raise ValueError("give (smallest, largest)")
    return value


def numbers(pattern: str, example: str) -> BeforeValidator:
    """Whole numbers from text of a pattern."""

    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not re.fullmatch(pattern, value.replace(" ", "")):
            raise ValueError(f"cannot be read; give e.g. {example}")
        return tuple(int(number) for number in re.findall(r"\d+", value))

    return BeforeValidator(parse)


def _several(value: Any) -> Any:
    single = isinstance(value, (list, tuple)) and all(isinstance(size, int) for size in value)
    return (value,) if single and value else value


Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    BeforeValidator(lambda value: (value, value) if isinstance(value, int) else value),
    AfterValidator(_ordered),
]
"""Smallest and largest whole number, from 1; one number stands for both."""
Factors = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
"""Smallest and largest factor, above 0."""
Patches = Annotated[tuple[tuple[Annotated[int, Field(ge=1)], ...], ...], Field(min_length=1), BeforeValidator(_several)]
"""Patch sizes in voxels; one size stands for a list of one."""
Labels = Annotated[
    dict[int, str] | tuple[int | str, ...] | None,
    BeforeValidator(parse_labels), AfterValidator(check_labels), Option(kind=str, metavar="LIST"),
]  # fmt: skip
"""Structures: label value -> name, or values and names."""
Weights = Annotated[str | None, BeforeValidator(lambda weights: str(weights) if isinstance(weights, Path) else weights)]
"""A folder or the name of shipped weights."""
Count = Annotated[int, Field(ge=1)]
Written = Annotated[bool, Option(topic="What to write")]
Device = Annotated[
    str,
    Option(words=("auto", "cpu", "cuda", "gpu", "mps"), metavar="NAME"),
    Field(description="Where to compute: auto, cpu, cuda (or gpu), cuda:1 (the second GPU) or mps (Apple)."),
]


class PlanSettings(Settings):
    """What a user may decide about the plan; None lets the labelled scans decide."""

    labels: Labels = Field(
        None,
        description="Structures to learn, by value (1,6), by name (liver,spleen) or both (1=liver,6=spleen). All "
        "others become background. Default: all.",
    )
    modality: Annotated[str | None, Option(metavar="CT|MR")] = Field(
        None, description="CT or MR. Default: from the file's header, else from its gray values."
    )
    ignore: int | None = Field(
        None, ge=1, description="Label value of voxels that are not annotated. Default: the label named ignore."
    )
    spacing_mm: Annotated[
        Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] | None,
        Option("spacing", float, metavar="MM"),
    ] = Field(None, description="In-plane resolution to work at, in mm. Default: from the labelled scans.")
    patch_voxels: int | None = Field(
        None,
        ge=1024,
        description="Voxels of one training patch. Fewer need less memory and time. Default: from the labelled scans.",
    )
    frame: int | None = Field(
        None, ge=0, description="Frame of a film that a label map of one volume belongs to, from 0."
    )
    quality: Annotated[Quality, Option(kind=str, words=tuple(QUALITY_LEVELS), metavar="LEVEL")] = Field(
        "standard",
        description="draft, standard or best. draft: coarser voxels, a quarter of the steps, no registration. best: "
        "voxels fine enough for the smallest structure, four times the steps, no time limit. Other options replace it.",
    )

    @property
    def level(self) -> QualityLevel:
        """What the chosen quality stands for."""
        return QUALITY_LEVELS[self.quality]


class AdaptSettings(PlanSettings):
    """How to adapt to labelled scans; None takes the learner's own value."""

    learner: Annotated[str, Option(metavar="NAME")] = Field(
        AUTO, description="The method. auto chooses by the dimensions of the scans."
    )
    steps: int | None = Field(
        None, ge=0, description="Training steps. More are slower and mostly better. Default: the method's own number."
    )
    budget_seconds: Annotated[
        Annotated[float, Field(gt=0)] | Literal["auto"] | None, Option("budget", float, metavar="SECONDS")
    ] = Field(
        AUTO,
        description="Most seconds that adaptation may take; inf: no limit; auto: by quality (draft 60, standard 240, "
        "best no limit). If the time runs out, results depend on the computer.",
    )
    seed: int = Field(0, ge=0, description="Start of the random numbers: same seed and computer, same result.")
    device: Device = "auto"
    width: int | None = Field(
        None, ge=4, le=256, description="Channels of the network's finest level. Default: the method's own number."
    )
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate. Default: the method's own number.")
    weights: Annotated[Weights, Option(metavar="NAME|FOLDER")] = Field(
        AUTO,
        description="Pre-trained weights to start from: auto (those of the package if they fit), none (random), a "
        "name that comes with the package, or a folder that `medfewshot train` made.",
    )

    @field_validator("budget_seconds", mode="before")
    @classmethod
    def _endless(cls, seconds: Any) -> Any:
        """Infinity is another word for no limit."""
        try:
            return None if math.isinf(float(seconds)) and float(seconds) > 0 else seconds
        except (TypeError, ValueError):
            return seconds

    @property
    def time_limit(self) -> float | None:
        """Most seconds of adaptation, with ``auto`` resolved; None for no limit."""
        return self.level.seconds if self.budget_seconds == AUTO else self.budget_seconds


class InferenceSettings(Settings):
    """How one volume is segmented."""

    overlap: Annotated[float, Option(metavar="SHARE")] = Field(
        0.5, ge=0, lt=1, description="How much neighbouring windows overlap, from 0 (fast) to below 1 (slow, smooth)."
    )
    probabilities: Written = Field(
        False, description="Also write the probability of every structure in every voxel (large files)."
    )
    uncertainty: Written = Field(False, description="Also write a map of the uncertainty, from 0 (certain) to 1.")
    keep_largest: bool = Field(
        True, description="Remove stray pieces of structures that are in one piece in every labelled scan."
    )


class SegmentSettings(InferenceSettings):
    """What is written for many volumes, and what happens to earlier results."""

    previews: Written = Field(True, description="Write a picture of every result.")
    dicom_seg: Written = Field(
        False, description="Also write DICOM segmentations of DICOM series (they contain patient names)."
    )
    rtstruct: Written = Field(
        False, description="Also write RT structure sets of DICOM series (they contain patient names)."
    )
    seg_nrrd: Written = Field(
        False, description="Also write segmentations of 3D Slicer, with names, colours and coded terms."
    )
    cavities: Annotated[tuple[str, ...], Option(kind=list[str], metavar="NAME")] = Field(
        (),
        description="Structures whose ejection fraction is measured in a film, the first one decides the frames; "
        "repeat for more. Default: the left and the right ventricle.",
    )
    report: Written = Field(True, description="Write one page about the run, with a viewer: report.html.")
    resume: bool = Field(False, description="Continue an earlier run: scans with a result are not segmented again.")
    overwrite: bool = Field(False, description="Replace the earlier results in the output folder.")

    @property
    def exports(self) -> tuple[str, ...]:
        """Names of the formats that are written besides label maps."""
        chosen = {"dicom_seg": self.dicom_seg, "rtstruct": self.rtstruct, "seg_nrrd": self.seg_nrrd}
        return tuple(name for name, is_chosen in chosen.items() if is_chosen)


class EvaluateSettings(Settings):
    """How segmentations are scored."""

    labels: Labels = Field(None, description="Structures to score, by value or name. Default: what was learned.")
    ignore: int | None = Field(
        None, ge=1, description="Label value in the references that is not scored. Default: the label named ignore."
    )
    tolerance_mm: Annotated[float, Option("tolerance", float, metavar="MM")] = Field(
        2.0, ge=0, description="Surfaces this close, in mm, count as equal in the surface Dice."
    )


class CurveSettings(Settings):
    """Which leave-out tests a learning curve consists of."""

    shots: Annotated[tuple[Count, ...], Option(kind=str, metavar="1,2,..."), numbers(r"\d+(,\d+)*", "1,2,5")] = Field(
        (), description="Numbers of labelled scans to learn from. Default: 1, 2, 3, 5, 8, ... and all but one."
    )
    draws: Count = Field(3, description="Choices of labelled scans for each number; each is a model of its own.")
    tests: Annotated[Count | None, Option(kind=int)] = Field(
        None, description="Most scans that each model segments. Default: all that it has not seen."
    )
    overwrite: bool = Field(False, description="Start again in a folder with a curve of other scans or settings.")


_FILE_DECIDES = Option(topic="In place of the file's", shows_default=False)


class TrainSchedule(Settings):
    """The settings of a training that the command line may change; the base of ``training.TrainSettings``."""

    steps: Annotated[Count, _FILE_DECIDES] = Field(1000, description="Optimizer steps.")
    minutes: Annotated[float | None, _FILE_DECIDES] = Field(
        None, gt=0, description="Most minutes of training; the learning rate ends with them. None: no limit."
    )
    seed: Annotated[int, _FILE_DECIDES] = Field(
        0, ge=0, description="Start of the random numbers: same seed and computer, same result."
    )


class TrainRunSettings(Settings):
    """Where a training runs, and what happens to an earlier run in its folder."""

    device: Device = "auto"
    data: Annotated[Path | None, Option(metavar="FOLDER")] = Field(
        None, description="Folder of the data sets that the file names."
    )
    pack: Annotated[Path | None, Option(metavar="FILE")] = Field(
        None, description="Their prepared scans in one file: written if it is missing, read if it exists."
    )
    mlflow: Annotated[str | None, Option(metavar="URI|FOLDER")] = Field(
        None, description="Log to MLflow too: a tracking server, or a folder."
    )
    resume: bool = Field(False, description="Continue from the folder's last checkpoint.")
    overwrite: bool = Field(False, description="Replace the run in the folder.")


class ClusterSettings(Settings):
    """The Ray cluster that does the work, if any."""

    ray: Annotated[str | None, Option(metavar="ADDRESS", topic="Ray cluster")] = Field(
        None,
        description="Work on a Ray cluster whose computers share the folders: local (only this one), auto or "
        "HOST:PORT.",
    )
    cpus: Annotated[float, Option(topic="Ray cluster")] = Field(1, ge=0, description="Cores of one scan or cell.")
    gpus: Annotated[float, Option(topic="Ray cluster")] = Field(0, ge=0, description="GPUs of one scan or cell.")


class WorkerSettings(ClusterSettings):
    """Who works on many scans."""

    jobs: Count = Field(1, description="Scans at a time on this computer. More need more memory.")


class BenchmarkRunSettings(ClusterSettings):
    """Which cells of a benchmark run, and where."""

    data: Annotated[Path | None, Option(metavar="FOLDER")] = Field(
        None, description="Folder of the data sets. Default: the variable MEDFEWSHOT_DATA."
    )
    only: Annotated[tuple[str, ...], Option(kind=list[str], metavar="PATTERN")] = Field(
        (), description="Cells whose name contains this or matches it, e.g. 'abd-*/k1/*'; repeat for more."
    )
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Option(kind=str, metavar="0,1,..."), numbers(r"\d+(,\d+)*", "0,1")
    ] = Field((), description="Only these seeds of the file, e.g. 0,1.")
    shard: Annotated[tuple[int, int] | None, Option(kind=str, metavar="I/N"), numbers(r"\d+/\d+", "1/4")] = Field(
        None, description="Only every N-th cell, from the I-th on: one shard for each computer."
    )
    device: Device = "auto"
