"""``medfewshot suggest`` and ``medfewshot export``: what to label next, and the finished labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medfewshot.cli.options import Json, Quiet
from medfewshot.errors import InputError

if TYPE_CHECKING:
    from medfewshot.types import Progress


def suggest(
    scans: Annotated[list[Path], typer.Argument(metavar="SCANS...", help="Scans, or folders of them.")],
    segmenter: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A model that `medfewshot adapt` made. Without one: the first scan to label."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Scans to name.")] = 5,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Name the scans to label next.

    With a model, a scan comes first if its expected Dice is low and its gray values are unlike those of the labelled
    scans. Without a model, the scan comes first that is most like all others.

    Example:
        medfewshot suggest scans/
        medfewshot suggest scans/ --segmenter model/
    """
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    with console.progress("Looking at scans") as progress:
        rows, skipped, doubts = _ordered(scans, segmenter, progress)
    console.warnings([*skipped, *doubts])
    if not rows and skipped:
        raise InputError(f"no scan could be {'read or segmented' if segmenter else 'read'}: {skipped[0]}")
    if not rows:
        raise InputError("no scan is left to label", "give scans that the model has not learned from")
    kind = "expected Dice" if segmenter else "distance to the others"
    for number, row in enumerate(rows[:count], start=1):
        value = 1 - row["uncertainty"] if segmenter else row["distance"]
        console.say(f"{number}. {row['scan']}: {kind} {value:.2f}")
    console.json({"scans": rows[:count]})
    raise typer.Exit(1 if skipped else 0)


def _ordered(
    scans: list[Path], segmenter: Path | None, progress: Progress
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Order scans by how little a model knows about them, or how alike they are; name those that cannot be read."""
    from medfewshot.bundle import load_segmenter
    from medfewshot.devices import resolve_device
    from medfewshot.workbench import choice
    from medfewshot.workflow import channels_a_scan, find_cases

    doubts: list[str] = []
    if segmenter is None:
        if (files := channels_a_scan(case.image_path for case in find_cases(scans))) > 1:
            doubts.append(f"the names say that each scan has {files} files, its channels; they count as one scan")
        typical, skipped = choice.most_typical_first(find_cases(scans, files), progress)
        found = [(case, {"distance": distance}) for case, distance in typical]
    else:
        ready = load_segmenter(segmenter, resolve_device("auto"))
        unknown, skipped = choice.suggest(find_cases(scans, ready.channels), ready, progress)
        found = [(case, vars(assessment)) for case, assessment in unknown]
    return [{"case": case.case_id, "scan": str(case.image_path), **facts} for case, facts in found], skipped, doubts


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
    """Write the complete masks of a project: accepted, or all drawn.

    Partly drawn scans are written by nnunet only, which ignores the rest of them.

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
    raise typer.Exit(1 if result.unread else 0)
