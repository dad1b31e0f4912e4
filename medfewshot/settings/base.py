"""What every settings model can do: names of options, YAML files, errors that name the setting, a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from medfewshot.errors import InputError, did_you_mean, some


@dataclass(frozen=True)
class Option:
    """How the command line writes a setting, if not under its own name and type.

    Args:
        name: The option without dashes in front, e.g. ``"budget"``; files may use this name too.
        kind: A simpler type for one word of the command line.
        words: What the shell completes.
        metavar: What stands for the value in the help, e.g. ``"SECONDS"``; default: by its type.
        topic: Heading that the option stands under in the help.
        shows_default: Whether the help shows the default; not if a file of the command decides.
    """

    name: str = ""
    kind: Any = None
    words: tuple[str, ...] = ()
    metavar: str = ""
    topic: str = ""
    shows_default: bool = True


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
        """Return the same settings with some changed; the changes are validated."""
        return type(self)(**{**dict(self), **changes})


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
    given = {name: value for name, value in given.items() if value is not None}
    if path is None:
        return model(**given)
    values = read_yaml(path)
    try:
        settings = model(**values)
    except InputError as error:
        raise InputError(f"{path}: {error.problem}", error.remedy) from None
    return settings.replace(**given) if given else settings


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the ``name: value`` lines of a YAML file: plain data, never code.

    Raises:
        InputError: The file cannot be read or is no such YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            names = [key.value for key in keys]
            if twice := next((key for n, key in enumerate(keys) if key.value in names[:n]), None):
                raise yaml.MarkedYAMLError(problem=f"{twice.value} comes twice", problem_mark=twice.start_mark)
            return super().construct_mapping(node, deep)

    try:
        content = Loader(path.read_text(encoding="utf-8")).get_single_data()
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
    """Return a Markdown table of settings: Python and file name, command line option, default, meaning."""
    rows = ["| setting | option | default | meaning |", "|---|---|---|---|"]
    for model in models:
        options = model.options()
        for name, field in model.model_fields.items():
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            text = "" if default is None or isinstance(default, (Settings, dict)) else str(default)
            rows.append(f"| `{name}` | `--{options[name]}` | {text} | {field.description} |")
    return "\n".join(rows)


def option_of(field: Any) -> Option:
    """Return how the command line writes a field of a model."""
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
        return InputError(f"{name}: is unknown{did_you_mean(name, known)}", f"known are {some(known)}")
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = values.get(name, values.get(model.options().get(name, ""), ""))
    return InputError(f"{name} {value}: {said}", setting=name)
