"""Adaptation settings from a YAML file: validated data, never code. Only the command line sees this room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfewshot.adaptation import AdaptSettings
from medfewshot.planning import PlanOptions
from medfewshot.types import InputError


class AdaptConfig(BaseModel):
    """The keys of ``--config FILE``; each has the meaning of the option of the same name."""

    model_config = ConfigDict(extra="forbid")

    learner: str = "finetune"
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; null takes the learner's own."""
    budget_seconds: float | None = Field(None, gt=0)
    """Most seconds that adaptation may take."""
    seed: int = Field(0, ge=0)
    width: int | None = Field(None, ge=4, le=256)
    """Channels of the network's finest level."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate."""
    labels: dict[int, str] | list[int] | None = None
    """Label values to learn, with names or without; null takes all."""
    modality: str | None = None
    spacing_mm: float | None = Field(None, gt=0)
    """In-plane resolution in mm; null derives it from the supports."""
    patch_voxels: int | None = Field(None, ge=1024)
    """Voxels of one training patch."""


def load_settings(path: Path | None, given: Mapping[str, Any], *, device: str, fast: bool) -> AdaptSettings:
    """Settings of a YAML file, overridden by what was ``given`` (None = not given). Raises InputError."""
    values = dict(_read_yaml(path)) if path is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        config = AdaptConfig(**values)
    except (ValidationError, TypeError) as error:
        raise InputError(f"{path or 'settings'}: {_first_problem(error)}") from None
    return AdaptSettings(
        learner=config.learner,
        steps=config.steps,
        budget_seconds=config.budget_seconds,
        seed=config.seed,
        device=device,
        width=config.width,
        learning_rate=config.learning_rate,
        fast=fast,
        plan=PlanOptions(
            modality=config.modality,
            spacing_mm=config.spacing_mm,
            labels=config.labels,
            patch_voxels=config.patch_voxels,
        ),
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path}: cannot be read; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: must hold settings as 'name: value' lines")
    return content


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"
