"""What the commands print: tables and warnings for people, JSON for programs on standard output."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from medfewshot.bundle import VolumeSegmenter, strict_json
from medfewshot.evaluation import Evaluation
from medfewshot.inspection import Inspection
from medfewshot.metrics import METRICS
from medfewshot.types import Event, Progress
from medfewshot.workflow import RunResult

MOST_WARNINGS = 12


class Console:
    """Prints unless quiet; with ``json``, tables go to standard error so that standard output stays parseable."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.out, self.err = _rich(as_json, quiet), _rich(True, quiet)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar on standard error; nothing at all when quiet or not a terminal."""
        columns = (
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        disable = self.quiet or not self.err.is_terminal
        with RichProgress(*columns, console=self.err, disable=disable, transient=True) as bar:
            task = bar.add_task(title, total=None, text="")

            def report(event: Event) -> None:
                title_now = event.stage.capitalize() or title
                bar.update(task, description=title_now, completed=event.done, total=event.total, text=event.text)

            yield Progress(report)

    def say(self, text: str) -> None:
        """Print a line of the result to standard output."""
        self.out.print(text, soft_wrap=True)

    def told(self, text: str) -> None:
        """A line about work in progress, above its bar."""
        self.err.print(text, soft_wrap=True)

    def error(self, text: str) -> None:
        """Errors are printed even when quiet."""
        typer.echo(f"medfewshot: {text}", err=True)

    def warnings(self, warnings: Sequence[str], rest: str = "in the record") -> None:
        """Print each warning once; a long list is cut. ``rest``: where to find the others."""
        unique = list(dict.fromkeys(warnings))
        for warning in unique[:MOST_WARNINGS]:
            self.err.print(f"warning: {warning}", style="yellow", soft_wrap=True)
        if len(unique) > MOST_WARNINGS:
            self.err.print(f"... and {len(unique) - MOST_WARNINGS} more warnings {rest}", style="yellow")

    def json(self, content: Mapping[str, Any]) -> None:
        """Print ``content`` as JSON if ``--json`` was given."""
        if self.as_json:
            typer.echo(strict_json(content), nl=False)

    def segmenter(self, segmenter: VolumeSegmenter, folder: Path) -> None:
        """Print the plan and how adaptation went; ``folder`` is where the segmenter is."""
        plan, record = segmenter.plan, segmenter.record
        learned, settings = record["learner"], record["settings"]
        spacing, patch = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (plan.spacing_mm, plan.patch_size))
        kinds = dict.fromkeys(f"{n.kind} ({n.reason})" for n in plan.normalization)
        self.say(f"plan: {plan.spatial_dims}D at {spacing} mm, patches of {patch}, intensities by {', '.join(kinds)}")
        labels = [name if name == f"label {value}" else f"{name} ({value})" for value, name in plan.labels.items()]
        self.say(f"labels: {', '.join(labels)}")
        steps = f"{learned['steps']} steps in " if "steps" in learned else ""
        start = f" from the weights {settings['weights']}" if settings["weights"] else ""
        self.say(f"adapted: {settings['learner']}{start}, {steps}{record['seconds']['adapt']:.0f} s")
        left_out = learned.get("atlas_left_out_dice") or []
        known = [
            f"{name} {dice:.2f}" for name, dice in zip(plan.labels.values(), left_out, strict=False) if dice is not None
        ]
        if known:
            self.say(f"leave-one-out Dice of the supports (registration only; conservative): {', '.join(known)}")
        if record["keeps_supports"]:
            self.say(f"{folder} contains the support scans: share it as carefully as patient data")

    def segmentation_table(self, result: RunResult) -> None:
        """The size of every structure in every volume; long names are folded, numbers never."""
        rows = [row for r in result.results for row in r.statistics]
        names = list(dict.fromkeys(row["name"] for row in rows))
        table = _table(f"{_size_unit(rows)} (predicted Dice)", "case", *names, "seconds")
        for r in result.results:
            cells = {row["name"]: _size_cell(row) for row in r.statistics}
            total = f"{sum(r.seconds.values()):.1f}" if r.seconds else r.status
            table.add_row(r.case, *[cells.get(name, "-") for name in names], total)
        self.out.print(table)

    def score_table(self, evaluation: Evaluation) -> None:
        """Print mean scores per structure."""
        shown = [metric for metric in METRICS.values() if metric.headline and metric.name != "dice"]
        table = _table(
            f"Scores (95 % intervals; surface Dice at {evaluation.tolerance_mm:g} mm)",
            "structure", "cases", "missed", "false\nalarms", "Dice", "from - to",
            *(f"{metric.title} {metric.unit}".strip().replace(" ", "\n") for metric in shown),
        )  # fmt: skip
        left_out = 0
        for row in evaluation.summary_rows():
            left_out += row["distances_left_out"]
            table.add_row(
                str(row["label_name"]), str(row["cases"]), str(row["missed"]), str(row["false_alarms"]),
                _number(row["dice_mean"], 3), f"{_number(row['dice_ci_low'], 3)} - {_number(row['dice_ci_high'], 3)}",
                *(
                    _number(row[f"{metric.name}_mean"], metric.digits)
                    + ("*" if metric.unit == "mm" and row["distances_left_out"] else "")
                    for metric in shown
                ),
            )  # fmt: skip
        self.out.print(table)
        if left_out:
            self.say("* missed structures and false alarms have no distance: they count as Dice 0, and not in HD95")

    def rows(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        """A table of texts with the rows' keys as titles; the first column is never broken, users type it."""
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(rows[0]):
            table.add_column(name, overflow="fold", no_wrap=index == 0)
        for row in rows:
            table.add_row(*row.values())
        self.out.print(table)

    def inspection_table(self, inspection: Inspection) -> None:
        """Print one row per case of a data set, and its problems."""
        table = _table(inspection.name, "case", "grid", "spacing mm", "axes", "intensity", "labels (ml)", "usable")
        for case in inspection.cases:
            low, high = (case.intensity[1], case.intensity[3]) if case.intensity else (None, None)
            table.add_row(
                case.case_id,
                "x".join(map(str, case.shape or ())) or "-",
                " x ".join(f"{s:.3g}" for s in case.spacing_mm or ()) or "-",
                case.orientation or "-",
                f"{_number(low, 0)} to {_number(high, 0)}" if case.intensity else "-",
                "\n".join(f"{s.value}: {_number(s.ml, 1)}" if s.ml is not None else str(s.value) for s in case.labels)
                or "none",
                "yes" if case.usable else "no",
            )
        self.out.print(table)
        for problem in inspection.problems[: 3 * MOST_WARNINGS]:
            style = "red" if problem.severity == "error" else "yellow"
            self.out.print(f"{problem.severity}: {problem}", style=style, soft_wrap=True)
        if len(inspection.problems) > 3 * MOST_WARNINGS:
            self.say(f"... and {len(inspection.problems) - 3 * MOST_WARNINGS} more; -o FOLDER writes them all")
        self.say(inspection.summary_text)


def _rich(stderr: bool, quiet: bool) -> RichConsole:
    # File names may look like markup or emoji codes. If nobody watches, tables are as wide as they need.
    console = RichConsole(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200
    return console


def _table(title: str, first: str, *others: str) -> Table:
    """A table whose first column is text and whose others are numbers; narrow titles stay in one line."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=len(name) < 16)
    return table


def _size_unit(rows: Sequence[Mapping[str, Any]]) -> str:
    if any(row["volume_ml"] is not None for row in rows):
        return "Volume in ml"
    return "Area in mm²" if any(row["area_mm2"] is not None for row in rows) else "Area in pixels"


def _size_cell(row: Mapping[str, Any]) -> str:
    """Size of a structure, and behind it the predicted Dice."""
    if not row["voxels"]:
        return "not found"
    size = next((row[key] for key in ("volume_ml", "area_mm2") if row[key] is not None), None)
    text = _number(size, 1 if size >= 10 else 2) if size is not None else str(row["voxels"])
    predicted = row["predicted_dice"]
    return text + (f" ({predicted:.2f})" if predicted is not None else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
