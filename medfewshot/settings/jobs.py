"""The settings of every job: one model a job, one field a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from medfewshot.settings.base import Option, Settings

AUTO, NO_WEIGHTS = "auto", "none"


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
        return {int(value): name.strip() for value, _, name in pairs}
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
    """Raises ValueError unless every structure is named once and none is the background."""
    named: list[int | str] = list(labels or ())
    values = [value for value in named if isinstance(value, int)]
    if labels is not None and (not named or min(values, default=1) < 1 or len(set(named)) < len(named)):
        raise ValueError("name each value once, from 1 up (0 is background)")
    return labels


def _plain(value: Any) -> Any:
    """A NumPy whole number as Python's own."""
    return int(value) if isinstance(value, Integral) else value


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _ordered(value: tuple[Any, Any]) -> tuple[Any, Any]:
    if value[0] > value[1]:
        raise ValueError("give (smallest, largest)")
    return value


def _several(value: Any) -> Any:
    single = isinstance(value, (list, tuple)) and all(isinstance(size, int) for size in value)
    return (value,) if single and value else value


Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_pair), AfterValidator(_ordered)
]
"""Smallest and largest whole number, from 1; one number stands for both."""
Factors = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
"""Smallest and largest factor, above 0."""
Patches = Annotated[tuple[tuple[Annotated[int, Field(ge=1)], ...], ...], Field(min_length=1), BeforeValidator(_several)]
"""Patch sizes in voxels; one size stands for a list of one."""
Labels = Annotated[
    dict[int, str] | tuple[int | str, ...] | None,
    BeforeValidator(parse_labels), AfterValidator(check_labels), Option(kind=str),
]  # fmt: skip
"""Structures: label value -> name, or values and names."""
Weights = Annotated[str | None, BeforeValidator(lambda weights: str(weights) if isinstance(weights, Path) else weights)]
"""A folder or the name of shipped weights."""


class PlanSettings(Settings):
    """What a user may decide about the plan; None lets the supports decide."""

    labels: Labels = Field(
        None,
        description="Structures to learn, by value (1,6), name (liver,spleen), or named (1=liver,6=spleen). The others "
        "become background. Default: all.",
    )
    modality: str | None = Field(None, description="CT or MR, if header and intensities do not tell.")
    spacing_mm: Annotated[
        Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] | None, Option("spacing", float)
    ] = Field(None, description="In-plane resolution in mm. Default: derived from the supports.")
    patch_voxels: int | None = Field(
        None, ge=1024, description="Voxels of one training patch: bounds memory and time. Default: derived."
    )
    fast: bool = Field(False, description="A first look: a grid 1.7 times as coarse and a quarter of the steps.")


class AdaptSettings(PlanSettings):
    """How to adapt to labelled scans; None takes the learner's own value."""

    learner: str = Field(
        AUTO,
        description="The algorithm: a name that `medfewshot learners` lists, or auto (by dimensions).",
    )
    steps: int | None = Field(
        None, ge=0, description="Optimiser steps; more is better and slower. Default: the learner's own."
    )
    budget_seconds: Annotated[float | None, Option("budget", float)] = Field(
        240.0, gt=0, description="Most seconds that adaptation may take. If they end it, results depend on the machine."
    )
    seed: int = Field(0, ge=0, description="Same seed and machine, same result.")
    device: Annotated[str, Option(words=("auto", "cpu", "cuda", "gpu", "mps"))] = Field(
        "auto", description="auto, cpu, cuda (or gpu), cuda:N or mps."
    )
    width: int | None = Field(None, ge=4, le=256, description="Channels of the network's finest level.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate.")
    weights: Weights = Field(
        AUTO,
        description="Meta-trained weights to start from: a folder that `medfewshot train` made, a name that comes with "
        "the package, auto (the package's own if they fit) or none (random).",
    )

    @field_validator("budget_seconds", mode="before")
    @classmethod
    def _endless(cls, seconds: Any) -> Any:
        """Infinity is another word for no limit."""
        try:
            return None if math.isinf(float(seconds)) and float(seconds) > 0 else seconds
        except (TypeError, ValueError):
            return seconds


class InferenceSettings(Settings):
    """How one volume is segmented."""

    overlap: float = Field(0.5, ge=0, lt=1, description="Share of a sliding window that the next window covers again.")
    probabilities: bool = Field(False, description="Also write class probabilities (float32, one volume per class).")
    uncertainty: bool = Field(False, description="Also write an uncertainty map, from 0 (certain) to 1.")
    keep_largest: bool = Field(
        True, description="Remove stray pieces of structures that are in one piece in every support."
    )


class SegmentSettings(InferenceSettings):
    """What is written for many volumes, and what happens to earlier results."""

    previews: bool = Field(True, description="A picture of every result.")
    dicom_seg: bool = Field(
        False, description="Also write DICOM segmentations of DICOM series (they contain patient names)."
    )
    report: bool = Field(True, description="One page about the run, with a viewer: report.html.")
    resume: bool = Field(False, description="Continue where an earlier run stopped.")
    overwrite: bool = Field(False, description="Replace what the output folder contains.")


class EvaluateSettings(Settings):
    """How segmentations are scored."""

    labels: Labels = Field(None, description="Structures to score, by value or name. Default: what was learned.")
    tolerance_mm: Annotated[float, Option("tolerance", float)] = Field(
        2.0, ge=0, description="Tolerance of the surface Dice in mm."
    )
