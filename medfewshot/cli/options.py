"""Options that several commands share, and options made from settings models."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from medfewshot.settings import AdaptSettings, EvaluateSettings, SegmentSettings, Settings, load_settings, option_of

PairOption = Annotated[
    list[str] | None,
    typer.Option("--support", metavar="IMG=LAB", help="A labelled scan (IMG:LAB works too); repeat for each."),
]
SupportDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--support-dir",
        help="A folder of labelled scans: MSD or nnU-Net dataset.json, images/ + labels/, case + case_seg; or a CSV.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file with these settings; options given here win.", rich_help_panel="Adaptation"
    ),
]
_DEVICE = AdaptSettings.model_fields["device"]
Device = Annotated[str, typer.Option(help=_DEVICE.description, autocompletion=lambda: list(option_of(_DEVICE).words))]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables; errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")]


def option_name(setting: str) -> str:
    """How the command line writes a setting that an error names, e.g. ``--budget`` for ``budget_seconds``."""
    options = {**AdaptSettings.options(), **SegmentSettings.options(), **EvaluateSettings.options()}
    return f"--{options.get(setting, setting.replace('_', '-'))}"


def with_settings(*only: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per setting, in place of each parameter that is a settings model.

    The command then receives the model, made from the options and, for the adaptation, from the file of a ``config``
    parameter if it has one.

    Args:
        only: Names of the settings that become options; default: all.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        models = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Settings)}
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command).parameters.items():
            if name not in models:
                parameters.append(parameter.replace(annotation=hints[name]))
                continue
            fields = [field for field in models[name].model_fields if not only or field in only]
            parameters += [_option_parameter(models[name], field) for field in fields]

        @functools.wraps(command)
        def parsed(**values: Any) -> None:
            config = values.pop("config", None)
            for name, model in models.items():
                given = {field: values.pop(field, None) for field in model.model_fields}
                values[name] = load_settings(model, config if model is AdaptSettings else None, **given)
            command(**values)

        parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return parsed

    return decorate


def _option_parameter(model: type[Settings], name: str) -> inspect.Parameter:
    field = model.model_fields[name]
    option = option_of(field)
    parts: list[Any] = [option.kind, *get_args(field.annotation), field.annotation]
    kind = next(part for part in parts if part not in (None, NoneType))
    spelling = f"--{model.options()[name]}"
    if kind is bool and field.default:
        spelling += f"/--no-{spelling[2:]}"
    shown = {None: "", False: "", True: " (default: on)"}.get(field.default, f" (default: {field.default})")
    info = typer.Option(
        spelling,
        help=f"{field.description}{shown}",
        rich_help_panel="Adaptation" if issubclass(model, AdaptSettings) else None,
        autocompletion=(lambda: list(option.words)) if option.words else None,
    )
    annotation: Any = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
