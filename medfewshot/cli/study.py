"""``medfewshot compare``, ``curve`` and ``describe``: numbers and words for a study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfewshot.cli.options import ConfigFile, Json, Labelled, Output, Quiet, Results, with_settings
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings, CurveSettings, EvaluateSettings

if TYPE_CHECKING:
    from medfewshot.cli.console import Console
    from medfewshot.evaluation import Comparison


@with_settings("labels", "ignore")
def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Results of a run, or label maps by a reader.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="The same kind, of the same scans.")],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", "-r", metavar="FOLDER", help="Labels by an expert: which result is closer?"),
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The scans, for the pictures. Default: where the runs found them."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Write tables, plots and a page here.")
    ] = None,
    settings: EvaluateSettings,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare two runs, two readers, or a reader and a run.

    Prints paired differences by structure, second minus first, with 95 % intervals and tests, and how well the volumes
    agree.

    Example:
        medfewshot compare before/ after/ --reference labels/ -o comparison/
        medfewshot compare reader1/ reader2/ --scans scans/ -o comparison/
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console

    console = Console(quiet, json)
    with console.progress("Comparing") as progress:
        found = workflow.compare(
            first, second, settings, reference=reference, scans=scans, folder=output, progress=progress
        )
    comparison_tables(console, found)
    console.warnings(found.warnings, "in comparison.html" if output else "(-o FOLDER writes them all)")
    if output is not None:
        console.say(f"open {output / 'comparison.html'} in a browser; tables in {output}")
    console.json({"differences": [row.row() for row in found.differences], "warnings": list(found.warnings)})


@with_settings()
def curve(
    *,
    folder: Labelled,
    output: Output,
    settings: CurveSettings,
    adaptation: AdaptSettings,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure how much more labelled scans would help.

    Learns from some of the labelled scans, scores the others, and repeats this with more scans. It takes many
    adaptations: --quality draft or --steps 60 is enough to see the shape. If it is interrupted, the same command
    continues.

    Example:
        medfewshot curve annotated/ -o curve/
        medfewshot curve annotated/ --shots 1,3,5 --steps 60 -o curve/
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console, decimal, ends

    console = Console(quiet, json)
    with console.progress("Curve") as progress:
        found = workflow.learning_curve(workflow.find_supports(folder), output, adaptation, settings, progress=progress)
    rows = [
        {
            "labelled scans": str(one.shots), "tests": str(one.tests), "Dice": decimal(one.dice, 3),
            "95 % interval": ends(one.ci_low, one.ci_high, 3),
        }
        for one in found.overall
    ]  # fmt: skip
    if rows:
        console.rows("Mean Dice on labelled scans that the model has not seen", rows)
    console.say(found.sentence)
    console.say(f"plot and tables in {output}")
    console.json({"points": [point.row() for point in found.points], "sentence": found.sentence})


def describe(
    folder: Results,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the text here (Markdown).")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a methods paragraph and a reporting checklist for a paper.

    The text states versions, labelled scans, settings, weights and what they have seen, times and hardware. The
    checklist has the items of CLAIM and TRIPOD+AI that the run can answer, and names those that only you can answer.

    Example:
        medfewshot describe out/
        medfewshot describe out/ -o methods.md
    """
    from medfewshot import workflow
    from medfewshot.cli.console import Console
    from medfewshot.io import write_text

    console = Console(quiet, json)
    if output is not None and output.exists():
        raise InputError(f"{output}: exists already, perhaps with your additions", "give another file, or remove it")
    found = workflow.describe(folder)
    if output is None:
        console.say(found.text)
    else:
        write_text(output, found.text)
        console.warnings(found.warnings, f"in {output}")
        console.say(f"text in {output}")
    console.json({"paragraph": found.paragraph, "items": [asdict(item) for item in found.items]})


def comparison_tables(console: Console, found: Comparison) -> None:
    """Print paired differences, then how alike both results are."""
    from medfewshot.cli.console import decimal, ends
    from medfewshot.evaluation import measure_title, p_text

    rows = [
        {
            "structure": row.structure, "measure": measure_title(row.measure), "scans": str(row.cases),
            "first": decimal(row.first, digits), "second": decimal(row.second, digits),
            "change": decimal(row.difference, digits, "+"),
            "95 % interval": ends(row.ci_low, row.ci_high, digits, "+"), "p (Holm)": p_text(row.p_holm),
        }
        for row in found.differences
        for digits in [3 if row.measure == "dice" else 2]
    ]  # fmt: skip
    if rows:
        console.rows("Paired differences, second minus first", rows)
    alike = [
        {
            "structure": one.label_name, "Dice": decimal(one.means["dice"], 3),
            "HD95 mm": decimal(one.means["hd95_mm"], 2), "volume %": decimal(one.volumes.bias_percent, 1, "+"),
            "limits ml": ends(one.volumes.limit_low, one.volumes.limit_high, 2, "+"),
            "ICC": decimal(one.volumes.icc, 3),
        }
        for one in found.direct.summaries
    ]  # fmt: skip
    if alike:
        console.rows("How alike the two are", alike)
        console.say("p: Wilcoxon's signed-rank test with Holm's correction")
        console.say("limits: of agreement of the volumes (95 %); ICC(2,1): absolute agreement of the volumes")
