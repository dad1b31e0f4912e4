"""The commands. Each docstring and help text is what ``--help`` shows."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from medfewshot import __version__
from medfewshot.cli.benchmark import benchmark
from medfewshot.cli.data import data
from medfewshot.cli.options import (
    Budget,
    ConfigFile,
    Device,
    Fast,
    Json,
    Labels,
    LearnerName,
    Modality,
    Output,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Spacing,
    Steps,
    Support,
    SupportDir,
    Weights,
    label_values,
    named_values,
    only_folder,
    option_name,
    structures,
)
from medfewshot.cli.train import train
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings

EXIT_INPUT = 2
"""Input or settings cannot be used; nothing was written. (1: some volumes of a folder failed.)"""
EXIT_INTERRUPTED = 130
EXIT_CODES = (
    "Exit codes: **0** all done; **1** some volumes or cases failed, the others are done; **2** input or options "
    "cannot be used, nothing was written; **130** interrupted."
)


RESUMABLE = {
    "segment": "what was finished is kept, segment --resume goes on from there",
    "train": "train --resume goes on from the last checkpoint",
}
"""What is left of a command that was interrupted."""


class _Commands(TyperGroup):
    """Turns what ends a command early into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                if not sys.warnoptions:  # what torch, MONAI and nibabel warn developers of; -W shows it
                    warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except InputError as error:
            _fail(error.render(spell=option_name, noun="option"), EXIT_INPUT)
        except KeyboardInterrupt:
            kept = RESUMABLE.get(ctx.invoked_subcommand or "", "run it again")
            _fail(f"interrupted; {kept}", EXIT_INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has seen enough
                raise
            _fail(f"{error.filename or 'output'}: {error.strerror or error}; check the disk and the path", EXIT_INPUT)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"medfewshot: {' '.join(text.split())}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    name="medfewshot",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Few-shot segmentation of medical images: label one to ten scans, get the rest.\n\n"
        "Start with `medfewshot demo` (no data needed). With your own scans: `inspect` what you have annotated, "
        "`adapt` once, `segment` the cohort, `evaluate` where you have labels.\n\n"
        "Not a medical device: for research only."
    ),
    epilog=EXIT_CODES,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"medfewshot {__version__}")
        raise typer.Exit


@app.command(epilog=EXIT_CODES)
def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="VOLUME...", help="Volumes, DICOM series folders, or folders of them (NIfTI, NRRD, MetaImage, 2D)."
        ),
    ],
    output: Output,
    support: Support = None,
    support_dir: SupportDir = None,
    segmenter: Annotated[
        Path | None, typer.Option(help="A folder that `medfewshot adapt` made, in place of a support.")
    ] = None,
    learner: LearnerName = None,
    steps: Steps = None,
    budget: Budget = None,
    seed: Seed = None,
    weights: Weights = None,
    labels: Labels = None,
    modality: Modality = None,
    spacing: Spacing = None,
    config: ConfigFile = None,
    device: Device = "auto",
    fast: Fast = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write class probabilities (float32, one volume per class).")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write an uncertainty map: 0 sure, 1 no idea.")
    ] = False,
    previews: Annotated[bool, typer.Option(help="A picture of every result.")] = True,
    report: Annotated[bool, typer.Option(help="One page about the run, with a viewer: report.html.")] = True,
    keep_largest: Annotated[
        bool, typer.Option(help="Drop stray pieces of structures that are in one piece in every support.")
    ] = True,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Also write DICOM segmentations of DICOM series (with patient names).")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Segment volumes from a handful of labelled ones.

    `medfewshot segment volume.nii.gz --support img1.nii.gz=lab1.nii.gz -o out/`

    Labels come back on each volume's own grid, with the supports' own label values. Besides them:
    `report.html` (open it in a browser), `run.json` (how it was made), `statistics.csv` (size and intensity per
    structure), `previews/`, and `segmenter/` for more volumes.
    """
    from medfewshot.cli import commands

    settings = commands.load_settings(
        AdaptSettings, config, device=device, fast=fast or None, learner=learner, steps=steps, budget_seconds=budget,
        seed=seed, weights=weights, labels=structures(labels), modality=modality, spacing_mm=spacing,
    )  # fmt: skip
    options = commands.SegmentOptions(
        probabilities, uncertainty, previews, keep_largest, dicom_seg, resume, overwrite, report
    )
    source = commands.SupportSource(tuple(support or ()), only_folder(support_dir), segmenter)
    raise typer.Exit(commands.segment(inputs, output, source, settings, options, commands.Console(quiet, json)))


@app.command(epilog=EXIT_CODES)
def adapt(
    output: Output,
    support: Support = None,
    support_dir: SupportDir = None,
    learner: LearnerName = None,
    steps: Steps = None,
    budget: Budget = None,
    seed: Seed = None,
    weights: Weights = None,
    labels: Labels = None,
    modality: Modality = None,
    spacing: Spacing = None,
    config: ConfigFile = None,
    device: Device = "auto",
    fast: Fast = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Adapt once to labelled scans and keep the segmenter.

    `medfewshot adapt --support-dir annotated/ -o kidney/`, then `medfewshot segment scans/ --segmenter kidney/ -o out/`
    """
    from medfewshot.cli import commands

    settings = commands.load_settings(
        AdaptSettings, config, device=device, fast=fast or None, learner=learner, steps=steps, budget_seconds=budget,
        seed=seed, weights=weights, labels=structures(labels), modality=modality, spacing_mm=spacing,
    )  # fmt: skip
    source = commands.SupportSource(tuple(support or ()), only_folder(support_dir), None)
    raise typer.Exit(commands.adapt(output, source, settings, overwrite, commands.Console(quiet, json)))


app.command("train", epilog=EXIT_CODES)(train)


@app.command(epilog=EXIT_CODES)
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of segmentations (or one file).")],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Folder of reference labels (or one file).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV, JSON and the plot.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Structures to score, by value or name; default: what was learned.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Tolerance of the surface Dice in mm.")] = 2.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score segmentations: Dice, HD95 (mm), surface distance, surface Dice, volumes; with 95 % intervals.

    Structures that were missed or invented count as Dice 0 and are counted beside every mean.
    """
    from medfewshot.cli import commands

    values = label_values(labels)
    raise typer.Exit(
        commands.evaluate(predictions, reference, output, values, tolerance, commands.Console(quiet, json))
    )


@app.command(epilog=EXIT_CODES)
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

    The scans are in the page, coarser where they are large: pass it on as carefully as the scans themselves.
    """
    from medfewshot.cli import commands

    raise typer.Exit(commands.report(folder, reference, output, viewer, commands.Console(quiet, json)))


@app.command(epilog=EXIT_CODES)
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of labelled scans, a dataset.json or a CSV.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV and JSON.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say what is in a folder of labelled scans, and what is wrong with it."""
    from medfewshot.cli import commands

    raise typer.Exit(commands.inspect(folder, output, commands.Console(quiet, json)))


@app.command("label-app", epilog=EXIT_CODES)
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
    from medfewshot.cli import commands

    raise typer.Exit(commands.label_app(folder, segmenter, named_values(names), commands.Console(quiet, json)))


@app.command(epilog=EXIT_CODES)
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="An MSD folder (imagesTr, labelsTr, dataset.json) in place of made-up scans.")
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Labelled scans to adapt to.")] = 3,
    queries: Annotated[int, typer.Option(min=1, help="Scans to segment and score.")] = 4,
    steps: Steps = None,
    seed: Seed = None,
    device: Device = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a synthetic CT cohort, adapt, segment, score; leave pictures and tables. No data needed."""
    from medfewshot.cli import commands

    settings = commands.load_settings(AdaptSettings, device=device, seed=seed, steps=steps)
    raise typer.Exit(commands.demo(output, data, shots, queries, settings, commands.Console(quiet, json)))


app.command("benchmark", epilog=EXIT_CODES)(benchmark)
app.add_typer(data, name="data", epilog=EXIT_CODES)


def main() -> None:
    """Entry point of the console script. What a terminal has no letter for is escaped: no name may end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
