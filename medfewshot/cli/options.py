"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings, SegmentSettings

Support = Annotated[
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
LearnerName = Annotated[
    str | None,
    typer.Option(
        "--learner",
        help="auto (default: hybrid in 3D, finetune in 2D), atlas, prototype, ridge, maml, protomaml, in_context.",
        rich_help_panel="Adaptation",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Optimiser steps (default 400, without meta-trained weights 1000; in_context: 0); more is better, slower.",
        rich_help_panel="Adaptation",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(help="Most seconds that adaptation may take (default 240).", rich_help_panel="Adaptation"),
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result.", rich_help_panel="Adaptation")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Meta-trained weights to start from: a folder that `medfewshot train` made, a name that comes with the "
        "package (default, novel, in-context-2d), or none (default: those of the package, for finetune and hybrid on "
        "3D scans, for in_context on 2D ones).",
        rich_help_panel="Adaptation",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Structures to learn, by value (1,6), name (liver,spleen), or named (1=liver,6=spleen); the others become "
        "background.",
        rich_help_panel="Adaptation",
    ),
]
Modality = Annotated[
    str | None,
    typer.Option(help="CT or MR, where header and intensities do not tell.", rich_help_panel="Adaptation"),
]
Spacing = Annotated[
    float | None,
    typer.Option(help="In-plane resolution in mm; derived by default.", rich_help_panel="Adaptation"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file with these settings; options given here win.", rich_help_panel="Adaptation"
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda (or gpu), cuda:N or mps.", autocompletion=lambda: ["auto", "cpu", "cuda", "gpu", "mps"]
    ),
]
Fast = Annotated[bool, typer.Option("--fast", help="A coarser grid (1.7 times), a quarter of the steps: a first look.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables; errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]


def option_name(setting: str) -> str:
    """How the command line writes a setting that an error names, e.g. ``--budget`` for ``budget_seconds``."""
    options = {**AdaptSettings.options(), **SegmentSettings.options()}
    return f"--{options.get(setting, setting.replace('_', '-'))}"


def only_folder(folders: list[Path] | None) -> Path | None:
    """The folder of ``--support-dir``, which typer would let the last of several be without a word."""
    if folders and len(folders) > 1:
        raise InputError("give one --support-dir; scans of several folders can be listed in a CSV (image,label)")
    return folders[0] if folders else None


def structures(text: str | None) -> list[int | str] | dict[int, str] | None:
    """``1,6``, ``liver,spleen``, or values with the names that they shall have: ``1=liver,6=spleen``."""
    return named_values(text) if text is not None and "=" in text else label_values(text)


def label_values(text: str | None) -> list[int | str] | None:
    """Values as numbers, names as text: which names there are is known only to the data."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or any(part.startswith("-") for part in parts):
        raise InputError(f"--labels {text}: give values or names separated by commas, e.g. 1,6 or liver,spleen")
    return [int(part) if part.isdecimal() else part for part in parts]


def named_values(text: str | None) -> dict[int, str]:
    """``1=liver,2=spleen`` as a mapping."""
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if not all(value.strip().isdecimal() and int(value) > 0 and name.strip() for value, _, name in pairs):
        raise InputError(f"--labels {text}: give values with names, e.g. --labels 1=liver,2=spleen")
    return {int(value): name.strip() for value, _, name in pairs}
