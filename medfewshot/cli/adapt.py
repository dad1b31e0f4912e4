"""``medfewshot segment`` and ``medfewshot adapt``."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfewshot.cli.options import ConfigFile, Json, Output, PairOption, Quiet, SupportDir, with_settings
from medfewshot.errors import InputError, counted, some
from medfewshot.settings import AdaptSettings, SegmentSettings, WorkerSettings

if TYPE_CHECKING:
    from medfewshot.datasets import Dataset

WAYS = "--support SCAN=LABELS, --support-dir FOLDER"
"""Ways to give labelled scans."""


@with_settings()
def segment(
    *,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCANS...",
            help="Scans to segment: files (NIfTI, NRRD, MetaImage, PNG), DICOM series folders, or folders of them. In "
            "subfolders, only DICOM series count.",
        ),
    ],
    output: Output,
    support: PairOption = None,
    support_dir: SupportDir = None,
    segmenter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A model that `medfewshot adapt` made, in place of labelled scans."),
    ] = None,
    adaptation: AdaptSettings,
    config: ConfigFile = None,
    settings: SegmentSettings,
    who: WorkerSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Segment scans, with a model or from a few labelled scans.

    Each result is a label file on the grid of its scan, with the label values of your labelled scans. The output folder
    also contains report.html (open it in a browser), statistics.csv (size of every structure), previews/ (pictures),
    run.json (how it was made) and, from labelled scans, segmenter/ (the model). With --ray, the computers of a Ray
    cluster segment; all must see the folders under the same paths.

    Example:
        medfewshot segment scans/ --segmenter model/ -o out/
        medfewshot segment scans/ --support-dir annotated/ -o out/
        medfewshot segment new.nii.gz --support a.nii.gz=a_seg.nii.gz -o out/
    """
    begun = time.perf_counter()
    known = _segmenter_folder(segmenter, adaptation, others=(support, support_dir))
    source = None if known else _find(support, support_dir, f"{WAYS} or --segmenter FOLDER")
    from medfewshot import workflow
    from medfewshot.bundle import load_segmenter
    from medfewshot.cli.console import Console
    from medfewshot.devices import resolve_device
    from medfewshot.workers import make_workers

    console, workers = Console(quiet, json), make_workers(who)
    device = resolve_device("cpu" if known and who.ray else adaptation.device)  # a cluster may have what we lack
    with workers.ready():  # before adaptation costs time
        if source is None:
            assert known is not None
            ready = load_segmenter(known, device)
            batch = workflow.open_batch(inputs, output, settings, channels=ready.channels, plan=ready.plan)
        else:
            batch = workflow.open_batch(inputs, output, settings, channels=source.channels)
            scans = workflow.read_cohort(batch.cases, source.channels) if batch.query is None else [batch.query]
            with console.progress("Adapting") as progress:
                ready = workflow.adapt_to_folder(
                    source, output / "segmenter", adaptation,
                    resume=settings.resume, overwrite=settings.overwrite, query=batch.query,
                    cavities=settings.cavities, cohort=scans, progress=progress,
                )  # fmt: skip
            console.model(ready, output / "segmenter")
        with console.progress("Segmenting") as progress:
            result = workflow.segment(
                batch, ready, command=command_line(), progress=progress, workers=workers,
                saved=workflow.SavedModel(known or output / "segmenter", adaptation.device),
            )  # fmt: skip
    if settings.report:
        with console.progress("Report") as progress:
            workflow.report(output, progress=progress)
    console.results_table(result)
    console.warnings(result.notes, f"in {output / workflow.RUN_RECORD}")
    for failed in result.failed:
        console.error(f"{failed.case} failed: {failed.error}")
    done = len(result.results) - len(result.failed)
    earlier = f" ({result.resumed} in an earlier run)" if result.resumed else ""
    total = f"{done} of {counted(len(result.results), 'scan')}" if result.failed else counted(done, "scan")
    to_review = len({case for case, _ in result.review})
    review = f"{to_review} to review, " if to_review else ""
    console.say(f"{total} segmented{earlier}, {review}{time.perf_counter() - begun:.0f} s; results in {output}")
    if settings.report:
        console.say(f"open {output / workflow.REPORT} in a browser")
    console.json({"output": str(output), "resumed": result.resumed, "outputs": [asdict(r) for r in result.results]})
    raise typer.Exit(1 if result.failed else 0)


@with_settings()
def adapt(
    *,
    output: Output,
    support: PairOption = None,
    support_dir: SupportDir = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Continue from this model: a few steps are enough.")
    ] = None,
    cohort: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="SCANS",
            help="Scans to segment later, or their folder: training imitates their contrast if it differs.",
        ),
    ] = None,
    settings: AdaptSettings,
    config: ConfigFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the output folder.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Learn from your labelled scans once and keep the model.

    One to ten labelled scans are enough. Then segment as many scans as you like with the model:
    `medfewshot segment scans/ --segmenter model/ -o out/`

    Example:
        medfewshot adapt --support-dir annotated/ -o model/
        medfewshot adapt --support-dir annotated/ --labels 1=liver,6=spleen -o model/
        medfewshot adapt --support-dir annotated/ --cohort scans/ -o model/
        medfewshot adapt --from model/ --support-dir annotated/ -o better/
    """
    source = _find(support, support_dir, WAYS.replace(", ", " or "))
    from medfewshot import workflow
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    skipped: list[str] = []
    cases = workflow.find_cases(cohort or [], source.channels)
    scans = workflow.read_cohort(cases, source.channels, skipped=skipped)
    with console.progress("Adapting") as progress:
        segmenter = workflow.adapt_to_folder(
            source, output, settings, cohort=scans, overwrite=overwrite, start=start, progress=progress
        )
    console.model(segmenter, output)
    console.warnings(segmenter.record["warnings"])
    if skipped:
        console.warnings([f"{some(skipped)}: cannot be read, so --cohort leaves it out"])
    if cohort and not segmenter.record["learner"].get("scans_compared"):
        console.warnings(["--cohort changed nothing: it needs 3D scans like the labelled ones, and training"])
    console.say(f"model in {output}; use it with: medfewshot segment SCANS --segmenter {output} -o OUT")
    console.json({"output": str(output), "record": segmenter.record})


def command_line() -> list[str]:
    """Return the command as the user typed it, for the record."""
    return ["medfewshot", *sys.argv[1:]]


def _segmenter_folder(folder: Path | None, adaptation: AdaptSettings, *, others: tuple[object, ...]) -> Path | None:
    """Return the saved segmenter, if one is given; refuse options that it would ignore."""
    if folder is None:
        return None
    if any(others):
        raise InputError("labelled scans and a model are given", f"give only one of {WAYS} or --segmenter FOLDER")
    default = AdaptSettings(device=adaptation.device)
    changed = tuple(name for name, value in adaptation if value != getattr(default, name))
    if changed:
        raise InputError(
            f"--segmenter {folder}: this model has been adapted, so these options would change nothing",
            "remove them, or give labelled scans instead of the model",
            setting=changed,
        )
    return folder


def _find(pairs: list[str] | None, folders: list[Path] | None, choices: str) -> Dataset:
    """Find the labelled scans, which must be given in exactly one way."""
    from medfewshot.datasets import parse_pair
    from medfewshot.workflow import find_supports

    if len(folders or ()) > 1:
        raise InputError("give one --support-dir", "list scans of several folders in a CSV file (columns image, label)")
    if bool(pairs) == bool(folders):
        problem = "labelled scans are given in two ways" if pairs else "no labelled scans are given"
        raise InputError(problem, f"give {'only one of ' if pairs else ''}{choices}")
    return find_supports(folders[0] if folders else None, [parse_pair(text) for text in pairs or ()])
