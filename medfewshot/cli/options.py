"""Options that several commands share, and options made from settings models."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from medfewshot.settings import (
    AdaptSettings,
    BenchmarkRunSettings,
    CurveSettings,
    EvaluateSettings,
    SegmentSettings,
    Settings,
    WorkerSettings,
    load_settings,
    option_of,
)

ADAPTATION = "How to adapt"
"""Heading of the options of the adaptation."""
PairOption = Annotated[
    list[str] | None,
    typer.Option("--support", metavar="SCAN=LABELS", help="A labelled scan and its label file; repeat for each."),
]
SupportDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--support-dir",
        metavar="FOLDER",
        help="All labelled scans: a folder with images/ and labels/, with pairs such as case.nii.gz and "
        "case_seg.nii.gz, or with a dataset.json (MSD, nnU-Net); or a CSV with the columns image and label.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file with settings of this group; options on the command line replace them.",
        rich_help_panel=ADAPTATION,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder that `medfewshot segment` wrote.")]
Labelled = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A folder of labelled scans, a dataset.json or a CSV.")
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write into.")]


def option_name(setting: str) -> str:
    """Return the option of a setting that an error names, e.g. ``--budget`` for ``budget_seconds``."""
    models = (AdaptSettings, SegmentSettings, EvaluateSettings, WorkerSettings, BenchmarkRunSettings, CurveSettings)
    options = {name: option for model in models for name, option in model.options().items()}
    return f"--{options.get(setting, setting.replace('_', '-'))}"


def learner_names() -> list[str]:
    """Names of the learners, read from their files: importing them loads torch, and help should not wait for it."""
    spec = find_spec("medfewshot.learners")
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.py"))]
    return [match[1] for text in texts if (match := re.search(r'^NAME = "(\w+)"$', text, re.MULTILINE))]


def with_settings(*only: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per setting, in place of each parameter that is a settings model.

    The command then receives the model, made from the options and, for the adaptation, from the file of a ``config``
    parameter if it has one. ``model_fields_set`` has the names of the options that were given.

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
            for name, model in models.items():
                given = {field: values.pop(field, None) for field in model.model_fields}
                given = {field: value for field, value in given.items() if value != []}
                values[name] = load_settings(model, values.get("config") if model is AdaptSettings else None, **given)
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
    about, words = str(field.description), option.words
    if name == "learner":
        words = (*words, *learner_names())
        about += f" Known: {', '.join(words)}; `medfewshot learners` describes them."
    info = typer.Option(
        spelling,
        help=about,
        metavar=option.metavar or ("TEXT" if kind is str else "N"),
        show_default=_default_of(field) if option.shows_default else "",
        rich_help_panel=option.topic or (ADAPTATION if issubclass(model, AdaptSettings) else None),
        autocompletion=(lambda: list(words)) if words else None,
    )
    annotation: Any = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default_of(field: Any) -> str:
    """Return the default of a setting as the help shows it; empty if there is none."""
    default = field.default
    if default is None or default is False or default == ():
        return ""
    return "on" if default is True else f"{default:g}" if isinstance(default, float) else str(default)
