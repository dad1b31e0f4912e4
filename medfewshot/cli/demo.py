"""``medfewshot demo`` and ``medfewshot label-app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.adapt import command_line
from medfewshot.cli.options import Json, Quiet, with_settings
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings


@with_settings("steps", "budget_seconds", "seed", "device")
def demo(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write into.")] = Path(
        "demo"
    ),
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A data set with labels, instead of synthetic scans."),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, metavar="N", help="Labelled scans to adapt to.")] = 3,
    queries: Annotated[int, typer.Option(min=1, metavar="N", help="Scans to segment and score.")] = 4,
    settings: AdaptSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Try the whole job on synthetic CT scans; no data needed.

    Makes scans, adapts to three, segments four more, compares them with the truth and writes a report.

    Example:
        medfewshot demo -o demo/
    """
    from medfewshot.cli.console import Console
    from medfewshot.demo import run_demo
    from medfewshot.workflow import REPORT

    console = Console(quiet, json)
    with console.progress("Demo") as progress:
        result = run_demo(
            output, data=data, shots=shots, queries=queries, settings=settings, command=command_line(),
            progress=progress,
        )  # fmt: skip
    console.score_table(result.evaluation)
    console.warnings([*result.warnings, *result.evaluation.warnings])
    console.say(f"pictures, tables and the model in {output}; open {output / REPORT} in a browser")
    console.json({"output": str(output), "summary": result.evaluation.summary_rows(), "seconds": result.seconds})


def label_app(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the app.")],
    segmenter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A model that `medfewshot adapt` made, to begin with.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--labels", metavar="LIST", help="Structures to label, e.g. 1=liver,2=spleen.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a MONAI Label app, to label scans in 3D Slicer or OHIF.

    Label a scan and submit it: the app learns from it, and segments the next ones for you to correct.

    Example:
        medfewshot label-app app/ --labels 1=liver,2=spleen
    """
    from medfewshot.cli.console import Console
    from medfewshot.integrations.label_files import write_label_app

    console = Console(quiet, json)
    known = AdaptSettings(labels=names).labels if names else None
    if isinstance(known, tuple):
        raise InputError(f"labels {names}: has no values with names", "give e.g. 1=liver,2=spleen", setting="labels")
    write_label_app(folder, known, segmenter)
    console.say(f"app in {folder}; start it with: monailabel start_server --app {folder} --studies SCANS")
    console.json({"app": str(folder)})
