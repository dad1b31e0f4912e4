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
from medfewshot.types import InputError

EXIT_INPUT = 2
"""Input or settings cannot be used; nothing was written. (1: some volumes of a folder failed.)"""
EXIT_INTERRUPTED = 130


class _Commands(TyperGroup):
    """Turns what ends a command early into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                if not sys.warnoptions:  # what torch, MONAI and nibabel warn developers of; -W shows it
                    warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except InputError as error:
            _fail(str(error), EXIT_INPUT)
        except KeyboardInterrupt:
            _fail("interrupted; what was finished is kept, segment --resume goes on from there", EXIT_INTERRUPTED)
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
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Few-shot segmentation of medical images: label one to ten scans, get the rest.\n\n"
        "Start with `medfewshot demo` (no data needed). With your own scans: `inspect` what you have annotated, "
        "`adapt` once, `segment` the cohort, `evaluate` where you have labels.\n\n"
        "Not a medical device: for research only."
    ),
)

Support = Annotated[
    list[str] | None,
    typer.Option("--support", metavar="IMG=LAB", help="A labelled scan (IMG:LAB works too); repeat for each."),
]
SupportDir = Annotated[
    Path | None,
    typer.Option(
        "--support-dir",
        help="A folder of labelled scans: MSD or nnU-Net dataset.json, images/ + labels/, case + case_seg; or a CSV.",
    ),
]
LearnerName = Annotated[
    str | None, typer.Option("--learner", help="finetune (default) or prototype.", rich_help_panel="Adaptation")
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Optimiser steps (default 1000 for finetune); more is better and slower.", rich_help_panel="Adaptation"
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(help="Most seconds that adaptation may take (default 240).", rich_help_panel="Adaptation"),
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result.", rich_help_panel="Adaptation")]
Labels = Annotated[
    str | None,
    typer.Option(help="Label values to learn, e.g. 1,6; the others become background.", rich_help_panel="Adaptation"),
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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Fast = Annotated[bool, typer.Option("--fast", help="A coarser grid (1.7 times), a quarter of the steps: a first look.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables; errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"medfewshot {__version__}")
        raise typer.Exit


@app.command()
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

    Labels come back on each volume's own grid, with the supports' own label values. Besides them: `run.json` (how it
    was made), `statistics.csv` (size and intensity per structure), `previews/`, and `segmenter/` for more volumes.
    """
    from medfewshot.cli import commands

    settings = commands.load_settings(
        config, device=device, fast=fast, learner=learner, steps=steps, budget_seconds=budget, seed=seed,
        labels=_label_values(labels), modality=modality, spacing_mm=spacing,
    )  # fmt: skip
    options = commands.SegmentOptions(probabilities, uncertainty, previews, keep_largest, dicom_seg, resume, overwrite)
    source = commands.SupportSource(tuple(support or ()), support_dir, segmenter)
    raise typer.Exit(commands.segment(inputs, output, source, settings, options, commands.Console(quiet, json)))


@app.command()
def adapt(
    output: Output,
    support: Support = None,
    support_dir: SupportDir = None,
    learner: LearnerName = None,
    steps: Steps = None,
    budget: Budget = None,
    seed: Seed = None,
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
        config, device=device, fast=fast, learner=learner, steps=steps, budget_seconds=budget, seed=seed,
        labels=_label_values(labels), modality=modality, spacing_mm=spacing,
    )  # fmt: skip
    source = commands.SupportSource(tuple(support or ()), support_dir, None)
    raise typer.Exit(commands.adapt(output, source, settings, overwrite, commands.Console(quiet, json)))


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of segmentations (or one file).")],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Folder of reference labels (or one file).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV, JSON and the plot.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label values to score, e.g. 1,6; default: what was learned.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Tolerance of the surface Dice in mm.")] = 2.0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score segmentations: Dice, HD95 (mm), surface distance, surface Dice, volumes; with 95 % intervals.

    Structures that were missed or invented count as Dice 0 and are counted beside every mean.
    """
    from medfewshot.cli import commands

    values = _label_values(labels)
    raise typer.Exit(
        commands.evaluate(predictions, reference, output, values, tolerance, commands.Console(quiet, json))
    )


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of labelled scans, a dataset.json or a CSV.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for CSV and JSON.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say what is in a folder of labelled scans, and what is wrong with it."""
    from medfewshot.cli import commands

    raise typer.Exit(commands.inspect(folder, output, commands.Console(quiet, json)))


@app.command()
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

    settings = commands.load_settings(None, device=device, seed=seed, steps=steps)
    raise typer.Exit(commands.demo(output, data, shots, queries, settings, commands.Console(quiet, json)))


def _label_values(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--labels {text}: give whole numbers separated by commas, e.g. --labels 1,6") from None


def main() -> None:
    """Entry point of the console script. What a terminal has no letter for is escaped: no name may end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
