"""What the commands print: tables and warnings for people on standard error, JSON for programs on standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress as RichProgress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from medfewshot.adaptation import Adapted
from medfewshot.cohort import CohortResult
from medfewshot.evaluation import Evaluation
from medfewshot.inspection import Inspection
from medfewshot.types import Progress

MOST_WARNINGS = 12


class Console:
    """Prints unless quiet; with ``json``, tables go to standard error so that standard output stays parseable."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.out = RichConsole(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=False)
        self.err = RichConsole(stderr=True, quiet=quiet, highlight=False)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar on standard error; nothing at all when quiet or not a terminal."""
        columns = (
            TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"),
        )  # fmt: skip
        disable = self.quiet or not self.err.is_terminal
        with RichProgress(*columns, console=self.err, disable=disable, transient=True) as bar:
            task = bar.add_task(title, total=1, text="")

            def update(done: float, total: float, text: str) -> None:
                bar.update(task, completed=done, total=total, text=text)

            yield Progress(update)

    def say(self, text: str) -> None:
        self.out.print(text, markup=False)

    def error(self, text: str) -> None:
        """Errors are printed even when quiet."""
        typer.echo(f"medfewshot: {text}", err=True)

    def warnings(self, warnings: Sequence[str]) -> None:
        """Each once; a long list is cut, and the record on disk has the rest."""
        unique = list(dict.fromkeys(warnings))
        for warning in unique[:MOST_WARNINGS]:
            self.err.print(f"warning: {warning}", markup=False, style="yellow")
        if len(unique) > MOST_WARNINGS:
            self.err.print(f"... and {len(unique) - MOST_WARNINGS} more warnings in the record", style="yellow")

    def json(self, content: Mapping[str, Any]) -> None:
        if self.as_json:
            typer.echo(json.dumps(_strict(content), indent=2))

    def plan(self, adapted: Adapted) -> None:
        plan, record = adapted.plan, adapted.record
        spacing = " x ".join(f"{s:.3g}" for s in plan.spacing_mm)
        kinds = ", ".join(f"{n.kind} ({n.reason})" for n in plan.normalization)
        self.say(f"plan: {plan.spatial_dims}D at {spacing} mm, patch {plan.patch_size}, intensities: {kinds}")
        self.say(f"labels: {', '.join(f'{value} {name}' for value, name in plan.labels.items())}")
        steps = f"{record['steps']} steps" if "steps" in record else ""
        self.say(f"adapted {adapted.settings.learner} in {adapted.seconds['adapt']:.0f} s {steps}")

    def segmentation_table(self, result: CohortResult) -> None:
        table = Table(title="Volume in ml (confidence)", title_justify="left")
        table.add_column("case")
        names = list(dict.fromkeys(row["name"] for r in result.results for row in r.statistics))
        for name in names:
            table.add_column(name, justify="right")
        table.add_column("seconds", justify="right")
        for r in result.results:
            cells = {row["name"]: _volume_cell(row, r.confidence) for row in r.statistics}
            total = f"{sum(r.seconds.values()):.1f}" if r.seconds else r.status
            table.add_row(r.case, *[cells.get(name, "-") for name in names], total)
        self.out.print(table)

    def score_table(self, evaluation: Evaluation) -> None:
        table = Table(title=f"Scores (surface Dice at {evaluation.tolerance_mm:g} mm)", title_justify="left")
        for column in ("structure", "cases", "missed", "false alarms", "Dice [95 % CI]", "HD95 mm", "surface Dice"):
            table.add_column(column, justify="left" if column == "structure" else "right")
        left_out = False
        for row in evaluation.summary_rows():
            hd95 = _number(row["hd95_mm_mean"], 1)
            if row["distances_left_out"]:
                hd95, left_out = f"{hd95} ({row['distances_left_out']} left out)", True
            interval = f" [{_number(row['dice_ci_low'], 3)}, {_number(row['dice_ci_high'], 3)}]"
            table.add_row(
                str(row["label_name"]), str(row["cases"]), str(row["missed"]), str(row["false_alarms"]),
                _number(row["dice_mean"], 3) + interval, hd95, _number(row["surface_dice_mean"], 3),
            )  # fmt: skip
        self.out.print(table)
        if left_out:
            self.say("Missed structures and false alarms count as Dice 0; they have no distance and are left out of HD95.")

    def inspection_table(self, inspection: Inspection) -> None:
        table = Table(title=inspection.name, title_justify="left")
        for column in ("case", "grid", "spacing mm", "axes", "intensity", "labels (ml)", "usable"):
            table.add_column(column)
        for case in inspection.cases:
            low, high = (case.intensity[1], case.intensity[3]) if case.intensity else (None, None)
            table.add_row(
                case.case_id,
                "x".join(map(str, case.shape or ())) or "-",
                " x ".join(f"{s:.3g}" for s in case.spacing_mm or ()) or "-",
                case.orientation or "-",
                f"{_number(low, 0)} to {_number(high, 0)}",
                ", ".join(f"{s.value}: {_number(s.ml, 1)}" for s in case.labels) or "none",
                "yes" if case.usable else "no",
            )
        self.out.print(table)
        for problem in inspection.problems[: 3 * MOST_WARNINGS]:
            style = "red" if problem.severity == "error" else "yellow"
            self.out.print(f"{problem.severity}: {problem}", markup=False, style=style)
        if len(inspection.problems) > 3 * MOST_WARNINGS:
            self.say(f"... and {len(inspection.problems) - 3 * MOST_WARNINGS} more; -o FOLDER writes them all")
        self.say(inspection.summary_text)


def _volume_cell(row: Mapping[str, Any], confidence: Mapping[str, float]) -> str:
    size = row.get("volume_ml") if row.get("volume_ml") is not None else row.get("area_mm2")
    sure = confidence.get(str(row["name"]))
    if not row.get("voxels"):
        return "not found"
    return _number(size, 1) + (f" ({sure:.2f})" if sure is not None else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _strict(value: Any) -> Any:
    """JSON has no NaN: undefined numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
