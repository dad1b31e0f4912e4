"""``medfewshot evaluate``, ``report`` and ``inspect``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Json, Labelled, Quiet, Results, with_settings
from medfewshot.settings import EvaluateSettings, WorkerSettings


@with_settings()
def evaluate(
    *,
    predictions: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of segmentations, or one file.")],
    reference: Annotated[
        Path, typer.Option("--reference", "-r", metavar="FOLDER", help="Labels by an expert: a folder, or one file.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Write tables (CSV, JSON) and a plot here.")
    ] = None,
    settings: EvaluateSettings,
    who: WorkerSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare segmentations with labels by an expert.

    Prints Dice, distances between the surfaces (mm), volumes, and 95 % intervals. A structure that was missed, or found
    by mistake, counts as Dice 0; the table counts both.

    Example:
        medfewshot evaluate out/ --reference labels/ -o scores/
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console
    from medfewshot.workers import make_workers

    console, workers = Console(quiet, json), make_workers(who)
    with console.progress("Scoring") as progress:
        evaluation = workflow.evaluate(
            predictions, reference, settings, folder=output, progress=progress, workers=workers
        )
    console.score_table(evaluation)
    console.warnings(evaluation.warnings, "in summary.json" if output else "(-o FOLDER writes them all)")
    if output is not None:
        console.say(f"tables and plot in {output}")
    console.json({"summary": evaluation.summary_rows(), "warnings": list(evaluation.warnings)})


def report(
    folder: Results,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", "-r", metavar="FOLDER", help="Labels by an expert: adds scores, and shows them."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write. Default: report.html in RESULTS."),
    ] = None,
    viewer: Annotated[bool, typer.Option(help="Put the scans into the page, for the viewer.")] = True,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a page to look at the results in a browser.

    The page has pictures, a table to sort and filter, plots and a viewer, and needs no network. It contains the scans,
    coarser if they are large: share it as carefully as the scans themselves.

    Example:
        medfewshot report out/
        medfewshot report out/ --reference labels/
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    with console.progress("Report") as progress:
        path = workflow.report(folder, output, reference=reference, viewer=viewer, progress=progress)
    console.say(f"open {path} in a browser ({path.stat().st_size / 1e6:.1f} MB)")
    console.json({"report": str(path)})


def inspect(
    folder: Labelled,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Write the table here (CSV, JSON).")
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Label value of voxels that are not annotated.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show what a folder of labelled scans contains, and problems.

    Do this first: it reads every scan and its labels, and names what to correct before you adapt.

    Example:
        medfewshot inspect annotated/
    """
    from medfewshot.cli.console import Console
    from medfewshot.datasets import read_dataset
    from medfewshot.inspection import inspect as inspect_dataset
    from medfewshot.workflow import check_folder

    console = Console(quiet, json)
    if output is not None:
        check_folder(output)
    with console.progress("Reading") as progress:
        dataset = read_dataset(folder)
        inspection = inspect_dataset(dataset if ignore is None else replace(dataset, ignore=ignore), progress)
    if output is not None:
        inspection.write(output)
    console.inspection_table(inspection)
    console.json({"summary": inspection.summary, "problems": [asdict(p) for p in inspection.problems]})
    raise typer.Exit(1 if inspection.errors else 0)
