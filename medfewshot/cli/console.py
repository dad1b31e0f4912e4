"""What the commands print: tables and warnings for people, JSON for programs on standard output."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import typer
from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from medfewshot.bundle import VolumeSegmenter
from medfewshot.cli.options import option_name
from medfewshot.errors import MOST_SHOWN, counted, some
from medfewshot.evaluation import Evaluation
from medfewshot.inspection import Inspection
from medfewshot.io import strict_json
from medfewshot.metrics import HEADLINES
from medfewshot.settings import AUTO
from medfewshot.types import Event, Progress
from medfewshot.workflow import STATISTICS, CaseResult, RunResult
from medfewshot.workflow.measures import unit_of

TEXTS = ("structure", "review")
OF_QUALITY = ("spacing_mm", "steps", "budget_seconds")
"""Settings that ``quality`` decides, unless the user gives them."""


class Console:
    """Prints unless quiet; with ``json``, tables go to standard error so that standard output stays parseable."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.out, self.err = _rich(as_json, quiet), _rich(True, quiet)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show a bar on standard error; nothing if quiet or not a terminal."""
        columns = (
            TextColumn("{task.description}", style="bold", table_column=Column(no_wrap=True, min_width=20)),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:3.0f} %"),
            _TimeLeft(),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        )
        disable = self.quiet or not self.err.is_terminal
        with RichProgress(*columns, console=self.err, disable=disable, transient=True) as bar:
            task = bar.add_task(title, total=None, text="")

            def report(event: Event) -> None:
                title_now = event.stage.capitalize() or title
                text = PurePath(event.text).name
                bar.update(task, description=title_now, completed=event.done, total=event.total, text=text)

            yield Progress(report)

    def say(self, text: str) -> None:
        """Print a line of the result to standard output."""
        self.out.print(text, soft_wrap=True)

    def told(self, text: str) -> None:
        """Print a line about work in progress, above its bar."""
        self.err.print(text, soft_wrap=True)

    def error(self, text: str) -> None:
        """Errors are printed even when quiet."""
        typer.echo(f"medfewshot: {text}", err=True)

    def warnings(self, warnings: Sequence[str], rest: str = "in the record") -> None:
        """Print each warning once, at most ten. ``rest``: where to find the others."""
        unique = list(dict.fromkeys(warnings))
        for warning in unique[:MOST_SHOWN]:
            self.err.print(f"warning: {warning}", style="yellow", soft_wrap=True)
        if len(unique) > MOST_SHOWN:
            self.err.print(f"and {len(unique) - MOST_SHOWN} more warnings {rest}", style="yellow")

    def json(self, content: Mapping[str, Any]) -> None:
        """Print ``content`` as JSON if ``--json`` was given."""
        if self.as_json:
            typer.echo(strict_json(content), nl=False)

    def model(self, segmenter: VolumeSegmenter, folder: Path) -> None:
        """Print what was learned and how; ``folder`` is where the model is."""
        plan, record = segmenter.plan, segmenter.record
        learned, settings = record["learner"], record["settings"]
        names = [name if name == f"label {value}" else f"{name} ({value})" for value, name in plan.labels.items()]
        self.say(f"structures: {some(names)}; from {counted(len(record['supports']), 'labelled scan')}")
        start = f", from the weights {settings['weights']}" if settings["weights"] else ""
        steps = f", {counted(learned['steps'], 'step')}" if "steps" in learned else ""
        self.say(f"method: {settings['learner']}{start}{steps}, {record['seconds']['adapt']:.0f} s")
        own = [option_name(name) for name in OF_QUALITY if settings.get(name) not in (None, AUTO)]
        self.say(f"quality: {settings['quality']}{f', except what {some(own)} set' if own else ''}")
        spacing = " x ".join(f"{size:.3g}" for size in plan.spacing_mm)
        kinds = dict.fromkeys(f"{'CT' if n.kind == 'window' else 'not CT'} ({n.reason})" for n in plan.normalization)
        unit = "mm" if any(one["spacing_mm"] for one in record["profile"]["supports"]) else _counted(plan.spatial_dims)
        self.say(f"computed at a resolution of {spacing} {unit}; gray values: {', '.join(kinds)}")
        left_out = learned.get("atlas_left_out_dice") or []
        known = [f"{name} {d:.2f}" for name, d in zip(plan.labels.values(), left_out, strict=False) if d is not None]
        if known:
            self.say("a test on your labelled scans, each segmented from the others by registration alone:")
            self.say(f"median Dice {some(known)}")
        if record["keeps_supports"]:
            self.say(f"{folder} contains your labelled scans: share it as carefully as patient data")

    def results_table(self, result: RunResult) -> None:
        """Print size, confidence and reason to review of every structure.

        Of many structures, only those to review are shown, or the least confident one of a scan. At most ten scans are
        shown: failed ones first, then those to review.
        """
        rows = [_result_rows(one, result.review) for one in result.results]
        brief = sum(map(len, rows)) > 2 * MOST_SHOWN
        rows.sort(key=lambda own: (own[0].confidence is not None or not own[0].review, not own[0].review))
        unit = unit_of([row for one in result.results for row in one.statistics])
        table = _table("", "scan", "structure", unit, "confidence", "review", texts=TEXTS)
        for own in rows[:MOST_SHOWN]:
            shown = _one_per_reason(own) if brief else own
            for number, row in enumerate(shown):
                table.add_row(
                    "" if number else row.scan, row.structure, row.size, decimal(row.confidence, 2), row.review
                )
        self.out.print(table)
        if brief or len(rows) > MOST_SHOWN:
            self.say(f"all structures of all scans are in {result.folder / STATISTICS}")
        self.say("confidence: expected Dice, 0 to 1. It can be wrong: look at every result.")

    def score_table(self, evaluation: Evaluation) -> None:
        """Print mean scores per structure."""
        shown = HEADLINES[1:]  # Dice has an interval, and columns of its own
        table = _table(
            f"Scores (95 % intervals; surface Dice at {evaluation.tolerance_mm:g} mm)",
            "structure", "cases", "missed", "false\nalarms", "Dice", "interval",
            *(f"{metric.title} {metric.unit}".strip().replace(" ", "\n") for metric in shown),
        )  # fmt: skip
        left_out = 0
        for row in evaluation.summary_rows():
            left_out += row["distances_left_out"]
            table.add_row(
                str(row["label_name"]), str(row["cases"]), str(row["missed"]), str(row["false_alarms"]),
                decimal(row["dice_mean"], 3), ends(row["dice_ci_low"], row["dice_ci_high"], 3),
                *(
                    decimal(row[f"{metric.name}_mean"], metric.digits)
                    + ("*" if metric.unit == "mm" and row["distances_left_out"] else "")
                    for metric in shown
                ),
            )  # fmt: skip
        self.out.print(table)
        if left_out:
            self.say("* missed structures and false alarms have no distance: they count as Dice 0, and not in HD95")
        self._volume_table(evaluation)

    def _volume_table(self, evaluation: Evaluation) -> None:
        rows = [row for row in evaluation.summary_rows() if row["volume_bias_ml"] is not None]
        if not rows:
            return
        table = _table(
            "Volumes against the reference", "structure", "bias\nml", "bias\n%", "limits of\nagreement, ml", "ICC",
            "interval",
        )  # fmt: skip
        for row in rows:
            table.add_row(
                str(row["label_name"]), decimal(row["volume_bias_ml"], 2, "+"),
                decimal(row["volume_bias_percent"], 1, "+"),
                ends(row["volume_limit_low_ml"], row["volume_limit_high_ml"], 2, "+"),
                decimal(row["volume_icc"], 3), ends(row["volume_icc_low"], row["volume_icc_high"], 3),
            )  # fmt: skip
        self.out.print(table)
        self.say("bias: mean of segmentation minus reference; ICC(2,1): absolute agreement, single measurement")

    def rows(self, title: str, rows: Sequence[Mapping[str, str]], *, below: Sequence[str] = ()) -> None:
        """Print a table of texts.

        Args:
            title: Stands above the table.
            rows: Title of the column -> text. The first column is never broken: users type it.
            below: Columns that are almost the same in all rows. A line for each value is printed below.
        """
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        shown = [name for name in rows[0] if name not in below]
        for index, name in enumerate(shown):
            table.add_column(name, overflow="fold", no_wrap=index == 0)
        for row in rows:
            table.add_row(*(row[name] for name in shown))
        self.out.print(table)
        for column in below:
            owners: dict[str, list[str]] = {}
            for row in rows:
                owners.setdefault(row[column], []).append(row[shown[0]])
            for value, names in owners.items():
                self.say(f"{column} of {some(names) if len(owners) > 1 else 'all'}: {value}")

    def inspection_table(self, inspection: Inspection) -> None:
        """Print one row per case of a data set, and its problems."""
        titles = ("grid", "spacing\nmm", "axes", "gray\nvalues", "labels\n(ml)", "usable")
        table = _table(inspection.name, "scan", *titles, texts=titles[1:5:2])
        for case in inspection.cases:
            unit = _counted(len(case.shape or ()))
            low, high = (case.intensity[1], case.intensity[3]) if case.intensity else (None, None)
            table.add_row(
                case.case_id,
                "x".join(map(str, case.shape or ())) or "-",
                " x ".join(f"{s:.3g}" for s in case.spacing_mm or ()) or "-",
                case.orientation or "-",
                ends(low, high, 0) if case.intensity else "-",
                _lines([f"{s.value}: {_amount(s.ml) if s.ml else f'{s.voxels} {unit}'}" for s in case.labels]),
                "yes" if case.usable else "no",
            )
        self.out.print(table)
        for problem in inspection.problems[:MOST_SHOWN]:
            style = "red" if problem.severity == "error" else "yellow"
            self.out.print(f"{problem.severity}: {problem}", style=style, soft_wrap=True)
        if len(inspection.problems) > MOST_SHOWN:
            self.say(f"and {len(inspection.problems) - MOST_SHOWN} more; -o FOLDER writes them all")
        self.say(inspection.summary_text)


def _lines(values: Sequence[str]) -> str:
    """Write one value a line; after ten, the number of the others."""
    more = [f"and {len(values) - MOST_SHOWN} more"] if len(values) > MOST_SHOWN else []
    return "\n".join([*values[:MOST_SHOWN], *more]) or "none"


def _rich(stderr: bool, quiet: bool) -> RichConsole:
    # File names may look like markup or emoji codes. If nobody watches, tables are as wide as they need.
    console = RichConsole(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200
    return console


def _table(title: str, first: str, *others: str, texts: Sequence[str] = ()) -> Table:
    """Make a table whose first column is text and whose others are numbers, unless ``texts`` has their titles."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        if name in texts:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=len(name) < 16)
    return table


class _TimeLeft(TimeRemainingColumn):
    """Time left, if it is known."""

    def render(self, task: Any) -> Text:
        text = super().render(task).plain
        return Text("" if "-" in text or not text else f"{text} left")


@dataclass(frozen=True)
class _ResultRow:
    scan: str
    structure: str
    size: str
    confidence: float | None
    review: str


def _result_rows(result: CaseResult, review: Mapping[tuple[str, int], str]) -> list[_ResultRow]:
    """Rows of one scan: structures to review first, then by confidence."""
    if not result.statistics:
        return [_ResultRow(result.case, "-", "-", None, "failed" if result.status == "failed" else "")]
    rows = [
        _ResultRow(
            result.case, row["name"], _size(row), row["predicted_dice"], review.get((result.case, row["label"]), "")
        )
        for row in result.statistics
    ]
    return sorted(rows, key=lambda row: (not row.review, row.confidence or 0))


def _one_per_reason(rows: Sequence[_ResultRow]) -> list[_ResultRow]:
    """Return the first structure of each reason to review; the first one if none has a reason."""
    by_reason = {row.review: row for row in reversed(rows) if row.review}
    return [row for row in rows if by_reason.get(row.review) is row] or list(rows[:1])


def _size(row: Mapping[str, Any]) -> str:
    size = next((row[key] for key in ("volume_ml", "area_mm2") if row[key] is not None), None)
    return str(row["voxels"]) if size is None else _amount(size)


def _amount(size: float) -> str:
    return f"{size:.2g}" if 0 < size < 0.1 else decimal(size, 1 if size >= 10 or size == 0 else 2)


def _counted(dims: int) -> str:
    return "pixels" if dims == 2 else "voxels"


def decimal(value: float | None, digits: int, sign: str = "") -> str:
    """Write a number with so many decimals; a dash if there is none. ``sign``: ``+`` to write it always."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{sign}z.{digits}f}"


def ends(low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """Write both ends of an interval; a dash if there is none."""
    known = low is not None and math.isfinite(low)
    return f"{decimal(low, digits, sign)} to {decimal(high, digits, sign)}" if known else "-"
