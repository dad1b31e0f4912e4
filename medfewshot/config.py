"""Adaptation settings from a YAML file: validated data, never code. Only the command line sees this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from medfewshot.adaptation import AUTO, DEFAULT_BUDGET_SECONDS, AdaptSettings
from medfewshot.errors import InputError, did_you_mean
from medfewshot.planning import PlanOptions
from medfewshot.training import TrainSettings

_OPTIONS = {"budget_seconds": "budget", "spacing_mm": "spacing"}
"""Settings whose command line option has a shorter name."""


class AdaptConfig(BaseModel):
    """The keys of ``--config FILE``; each has the meaning of the option of the same name."""

    model_config = ConfigDict(extra="forbid")

    learner: str = AUTO
    steps: int | None = Field(None, ge=0)
    """Optimiser steps; null takes the learner's own; 0 needs meta-trained weights."""
    budget_seconds: float | None = Field(DEFAULT_BUDGET_SECONDS, gt=0)
    """Most seconds that adaptation may take."""
    seed: int = Field(0, ge=0)
    width: int | None = Field(None, ge=4, le=256)
    """Channels of the network's finest level."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate."""
    weights: str | None = AUTO
    """A folder that ``medfewshot train`` made, or the name of shipped weights; null or none begins at random."""
    labels: dict[int, str] | list[int | str] | None = None
    """Structures to learn, by value (with a name or without) or by the name that the dataset gives; null takes all."""
    modality: str | None = None
    spacing_mm: float | None = Field(None, gt=0)
    """In-plane resolution in mm; null derives it from the supports."""
    patch_voxels: int | None = Field(None, ge=1024)
    """Voxels of one training patch."""

    @field_validator("labels", mode="before")
    @classmethod
    def _list_of_labels(cls, labels: Any) -> Any:
        if isinstance(labels, (int, str)):
            raise ValueError("give a list, e.g. [1, 6], or names, e.g. {1: liver, 6: spleen}")
        return labels

    @field_validator("labels")
    @classmethod
    def _no_background(cls, labels: dict[int, str] | list[int | str] | None) -> dict[int, str] | list[int | str] | None:
        named: list[int | str] = list(labels or ())
        values = [value for value in named if isinstance(value, int)]
        if labels is not None and (not named or min(values, default=1) < 1 or len(set(named)) < len(named)):
            raise ValueError("name each value once, from 1 up (0 is background)")
        return labels


def load_settings(path: Path | None, *, device: str = "auto", fast: bool = False, **given: Any) -> AdaptSettings:
    """Settings of a YAML file, overridden by what was ``given`` (None = not given). Raises InputError."""
    values = dict(_read_yaml(path)) if path is not None else {}
    for name, option in _OPTIONS.items():  # a file may call them as the command line does
        if option in values and name not in values:
            values[name] = values.pop(option)
    given = {key: value for key, value in given.items() if value is not None}
    try:
        config = AdaptConfig.model_validate(values | given)
    except ValidationError as error:
        raise InputError(_first_problem(error, path, given)) from None
    return AdaptSettings(
        learner=config.learner,
        steps=config.steps,
        budget_seconds=config.budget_seconds,
        seed=config.seed,
        device=device,
        width=config.width,
        learning_rate=config.learning_rate,
        weights=config.weights,
        fast=fast,
        plan=PlanOptions(
            modality=config.modality,
            spacing_mm=config.spacing_mm,
            labels=config.labels,
            patch_voxels=config.patch_voxels,
        ),
    )


def load_training(path: Path, **given: Any) -> TrainSettings:
    """Training settings of a YAML file, overridden by what was ``given`` (None = not given). Raises InputError."""
    values = dict(_read_yaml(path)) | {key: value for key, value in given.items() if value is not None}
    try:
        _check_keys(TrainSettings, values, "")
        return TypeAdapter(TrainSettings).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = " ".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise InputError(f"{path}: {name}: {said}" if name else f"{path}: {said}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_keys(kind: Any, value: Any, where: str) -> None:
    """Raise InputError for a key that no field of the dataclass ``kind``, or of those inside it, has."""
    if not isinstance(value, Mapping):
        return
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        for key, inner in value.items():
            if key not in hints:
                raise InputError(f"{where}{key}: is unknown; known are {', '.join(hints)}")
            _check_keys(hints[key], inner, f"{where}{key} ")
    elif get_origin(kind) is Mapping:
        for key, inner in value.items():
            _check_keys(get_args(kind)[1], inner, f"{where}{key} ")
    else:
        for choice in get_args(kind):
            _check_keys(choice, value, where)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path}: cannot be read; check the path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid YAML ({_reason(error)}); correct it there") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: must hold settings as 'name: value' lines")
    return content


def _first_problem(error: ValidationError, path: Path | None, given: Mapping[str, Any]) -> str:
    """Names the option where the value came from there, else the file."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "extra_forbidden":
        known = AdaptConfig.model_fields
        said = f"is unknown{did_you_mean(name, known)}; known are {', '.join(known)}"
    where = f"--{_OPTIONS.get(name, name)} {given[name]}" if name in given else f"{path}: {name}"
    return f"{where}: {said}"


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or error}{where}"
