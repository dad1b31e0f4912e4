"""Settings of every job. Each setting is declared once, with its description, type and bounds.

Command line options, YAML files, benchmark files, Python keyword arguments and the documentation's table of settings
derive from these models. To add a setting, add one field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from medfewshot.errors import InputError, did_you_mean

AUTO, NO_WEIGHTS = "auto", "none"


@dataclass(frozen=True)
class Option:
    """How the command line writes a setting, if not under its own name and type.

    Args:
        name: The option without dashes in front, e.g. ``"budget"``; files may use this name too.
        kind: A simpler type for one word of the command line.
        words: What the shell completes.
    """

    name: str = ""
    kind: type | None = None
    words: tuple[str, ...] = ()


class Settings(BaseModel):
    """Base of the models: frozen, plain data, refuses unknown names.

    Raises:
        InputError: A value is out of bounds or a name is unknown; the error names the setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _first_problem(error, values, type(self)) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Keep the description of a field that a subclass gives another default."""
        for name, field in cls.model_fields.items():
            for base in cls.__bases__:
                if issubclass(base, Settings) and name in base.model_fields:
                    field.description = field.description or base.model_fields[name].description

    @model_validator(mode="before")
    @classmethod
    def _option_names(cls, values: Any) -> Any:
        """Accept a setting under the name of its command line option."""
        if not isinstance(values, Mapping):
            return values
        names = {option: name for name, option in cls.options().items() if name not in values}
        return {names.get(key, key): value for key, value in values.items()}

    @classmethod
    def options(cls) -> dict[str, str]:
        """Setting -> name of its command line option, without dashes in front."""
        return {name: option_of(field).name or name.replace("_", "-") for name, field in cls.model_fields.items()}

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changed; the changes are validated."""
        return type(self)(**{**dict(self), **changes})


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


Model = TypeVar("Model", bound=Settings)


def load_settings(model: type[Model], path: Path | None = None, **given: Any) -> Model:
    """Settings of a YAML file, overridden by what is ``given``.

    Args:
        model: The settings to read.
        path: YAML file with ``name: value`` lines, or None.
        given: Values that win over the file; None means "not given".

    Raises:
        InputError: The file cannot be read or a value is out of bounds; names the file or the setting.
    """
    values = read_yaml(path) if path is not None else {}
    try:
        settings = model(**values)
    except InputError as error:
        raise InputError(f"{path}: {error.problem}", error.remedy) from None
    given = {name: value for name, value in given.items() if value is not None}
    return settings.replace(**given) if given else settings


def read_yaml(path: Path) -> dict[str, Any]:
    """The ``name: value`` lines of a YAML file: plain data, never code.

    Raises:
        InputError: The file cannot be read or is no such YAML.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path}: cannot be read", "check the path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" in line {mark.line + 1}" if mark is not None else ""
        said = error.problem if isinstance(error, yaml.MarkedYAMLError) and error.problem else str(error)
        raise InputError(f"{path}: is not valid YAML ({said}{where})", "correct it there") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: must contain settings as 'name: value' lines")
    return content


def settings_table(*models: type[Settings]) -> str:
    """A Markdown table of settings: Python and file name, command line option, default, meaning."""
    rows = ["| setting | option | default | meaning |", "|---|---|---|---|"]
    for model in models:
        options = model.options()
        for name, field in model.model_fields.items():
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            text = "" if default is None or isinstance(default, (Settings, dict)) else str(default)
            rows.append(f"| `{name}` | `--{options[name]}` | {text} | {field.description} |")
    return "\n".join(rows)


def option_of(field: Any) -> Option:
    """How the command line writes a field of a model."""
    return next((entry for entry in field.metadata if isinstance(entry, Option)), Option())


def _first_problem(error: ValidationError, values: Mapping[str, Any], model: type[Settings]) -> InputError:
    # Of the alternatives of a union, the one that goes deepest is the one that was meant.
    first = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
    name = str(first["loc"][0]) if first["loc"] else "settings"
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):  # of a model inside this one
        where = " ".join(str(part) for part in first["loc"])
        return InputError(f"{where} {inner.problem}", inner.remedy)
    if first["type"] == "extra_forbidden":
        known = model.model_fields
        return InputError(f"{name}: is unknown{did_you_mean(name, known)}", f"known are {', '.join(known)}")
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = values.get(name, values.get(model.options().get(name, ""), ""))
    return InputError(f"{name} {value}: {said}", setting=name)
