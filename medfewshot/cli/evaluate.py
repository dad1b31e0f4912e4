"""``medfewshot evaluate``, ``report`` and ``inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Json, Quiet, with_settings
from medfewshot.settings import EvaluateSettings


@with_settings()
def evaluate(
    *,
    predictions: Annotated[Path, typer.Argument(help="Folder of segmentations (or one file).")],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Folder of reference labels (or one file).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV, JSON and the plot.")] = None,
    settings: EvaluateSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score segmentations: Dice, HD95 (mm), surface distance, surface Dice, volumes; with 95 % intervals.

    Structures that were missed or invented count as Dice 0 and are counted beside every mean.
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    with console.progress("Scoring") as progress:
        evaluation = workflow.evaluate(predictions, reference, settings, folder=output, progress=progress)
    console.score_table(evaluation)
    console.warnings(evaluation.warnings, "in summary.json" if output else "(-o FOLDER writes them all)")
    if output is not None:
        console.say(f"tables and plot in {output}")
    console.json({"summary": evaluation.summary_rows(), "warnings": list(evaluation.warnings)})


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `medfewshot segment` wrote.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="Folder of reference labels: adds scores, and shows them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; default: report.html in the folder.")
    ] = None,
    viewer: Annotated[bool, typer.Option(help="Put the volumes into the page, for the viewer.")] = True,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write one page about a run: a table to sort and filter, plots, pictures and a viewer. Opens without a network.

    The scans are in the page, coarser if they are large: share it as carefully as the scans themselves.
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    with console.progress("Report") as progress:
        path = workflow.report(folder, output, reference=reference, viewer=viewer, progress=progress)
    console.say(f"open {path} in a browser ({path.stat().st_size / 1e6:.1f} MB)")
    console.json({"report": str(path)})


def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of labelled scans, a dataset.json or a CSV.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV and JSON.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say what is in a folder of labelled scans, and what is wrong with it."""
    from medfewshot.cli.console import Console
    from medfewshot.datasets import read_dataset
    from medfewshot.inspection import inspect as inspect_dataset
    from medfewshot.workflow import check_folder

    console = Console(quiet, json)
    if output is not None:
        check_folder(output)
    with console.progress("Reading") as progress:
        inspection = inspect_dataset(read_dataset(folder), progress)
    if output is not None:
        inspection.write(output)
    console.inspection_table(inspection)
    console.json({"summary": inspection.summary, "problems": [asdict(p) for p in inspection.problems]})
    raise typer.Exit(1 if inspection.errors else 0)
