"""``medfewshot demo`` and ``medfewshot label-app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.adapt import command_line
from medfewshot.cli.options import Json, Quiet, with_settings
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings


@with_settings("steps", "seed", "device")
def demo(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="An MSD folder (imagesTr, labelsTr, dataset.json) in place of made-up scans.")
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Labelled scans to adapt to.")] = 3,
    queries: Annotated[int, typer.Option(min=1, help="Scans to segment and score.")] = 4,
    settings: AdaptSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a synthetic CT cohort, adapt, segment, score; leave pictures and tables. No data needed."""
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
    console.say(f"pictures, tables and the segmenter in {output}; open {output / REPORT} in a browser")
    console.json({"output": str(output), "summary": result.evaluation.summary_rows(), "seconds": result.seconds})


def label_app(
    folder: Annotated[Path, typer.Argument(help="A new folder for the app.")],
    segmenter: Annotated[
        Path | None, typer.Option(help="A folder that `medfewshot adapt` made, to begin with.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--labels", help="Structures to annotate, e.g. 1=liver,2=spleen.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write an app for MONAI Label: annotate a few scans in 3D Slicer or OHIF, train, have the next ones segmented."""
    from medfewshot.cli.console import Console
    from medfewshot.integrations.label_files import write_label_app

    console = Console(quiet, json)
    known = AdaptSettings(labels=names).labels if names else None
    if isinstance(known, tuple):
        raise InputError(f"labels {names}: without names", "give e.g. 1=liver,2=spleen", setting="labels")
    write_label_app(folder, known, segmenter)
    console.say(f"app in {folder}; start it with: monailabel start_server --app {folder} --studies SCANS")
    console.json({"app": str(folder)})
