"""``medfewshot suggest`` and ``medfewshot export``: what to label next, and the finished labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfewshot.cli.options import Json, Quiet
from medfewshot.errors import InputError


def suggest(
    scans: Annotated[list[Path], typer.Argument(metavar="SCANS...", help="Scans, or folders of them.")],
    segmenter: Annotated[Path, typer.Option(metavar="FOLDER", help="A model that `medfewshot adapt` made.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Scans to name.")] = 5,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Name the scans to label next, least known to the model first.

    A scan comes first if its expected Dice is low and its gray values are unlike those of the labelled scans.

    Example:
        medfewshot suggest scans/ --segmenter model/
    """
    from medfewshot.bundle import load_segmenter
    from medfewshot.cli.console import Console
    from medfewshot.devices import resolve_device
    from medfewshot.workbench.choice import suggest as order
    from medfewshot.workflow import find_cases

    console = Console(quiet, json)
    ready = load_segmenter(segmenter, resolve_device("auto"))
    cases = find_cases(scans, ready.channels)
    with console.progress("Looking at scans") as progress:
        ordered, skipped = order(cases, ready, progress)
    console.warnings(skipped)
    if not ordered:
        raise InputError("no scan is left to label", "give scans that the model has not learned from")
    for number, (case, found) in enumerate(ordered[:count], start=1):
        console.say(f"{number}. {case.image_path}: expected Dice {1 - found.uncertainty:.2f}")
    rows = [{"case": case.case_id, "scan": str(case.image_path), **vars(found)} for case, found in ordered]
    console.json({"scans": rows})


def export(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="A project of the workbench.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write into.")],
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="NAMES",
            help="Formats, separated by commas: nifti, seg_nrrd, dicom_seg, rtstruct, nnunet (a data set), stl "
            "(surfaces), statistics, bundle (the model), report.",
        ),
    ] = "nifti,statistics",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write every scan of a project that is labelled or accepted.

    Example:
        medfewshot export scans_project/ -o out/
        medfewshot export scans_project/ --formats nnunet,stl -o out/
    """
    from medfewshot.cli.console import Console
    from medfewshot.workbench import Project
    from medfewshot.workbench.export import export as write
    from medfewshot.workflow import check_folder

    console = Console(quiet, json)
    check_folder(output)
    result = write(Project.open(project), [name.strip() for name in formats.split(",") if name.strip()], output)
    console.warnings(result.notes)
    console.say(f"{len(result.files)} file(s) in {output}")
    console.json({"output": str(output), "files": [str(file) for file in result.files], "notes": result.notes})
