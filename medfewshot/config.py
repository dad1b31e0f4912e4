"""Training settings from a YAML file: validated data, never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from medfewshot.errors import InputError
from medfewshot.settings import read_yaml
from medfewshot.training import TrainSettings


def load_training(path: Path, **given: Any) -> TrainSettings:
    """Training settings of a YAML file, overridden by what was ``given`` (None = not given). Raises InputError."""
    values = dict(read_yaml(path)) | {key: value for key, value in given.items() if value is not None}
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
