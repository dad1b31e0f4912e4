"""``oracle-2d.md`` and its CSV: Dice as the literature reports it, beside what it may be compared with."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.oracle2d.config import OracleCell, OracleConfig, plan_oracle_cells
from medfewshot.benchmark.cells import RECORD, SCORES, CellState, read_json, state_of
from medfewshot.benchmark.page import write_page
from medfewshot.benchmark.plots import save_panels, style_of
from medfewshot.benchmark.report import failed_cells
from medfewshot.benchmark.results import failures
from medfewshot.benchmark.tables import NOT_RUN, Table, metrics_line, metrics_share, number, percent
from medfewshot.errors import InputError
from medfewshot.evaluation import bootstrap_interval
from medfewshot.io import write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN = "mean of classes"
Points = dict[str, dict[str, dict[str, list[float]]]]
"""Dataset -> learner -> structure -> Dice of every scan."""
ROOM = 0.7
"""Of the distance between two structures, for all learners together."""
HEAD = """\
# Benchmark, protocol `oracle-2d`

For comparison with the figures of the few-shot literature, and with nothing else: only slices that are known to hold
the organ are segmented, and each third of the query organ's true extent is matched to a support slice. Five folds over
scans, 1-way 1-shot, three support slices, Dice pooled over the slices of a scan and averaged over scans. No learner was
trained on other scans of its dataset, which is less than either of the literature's settings allows.
"""


Result = tuple[Mapping[str, Any], Sequence[dict[str, Any]]]


@dataclass(frozen=True)
class Group:
    """All folds and seeds of one dataset and learner: the rows of those that are done."""

    cells: tuple[OracleCell, ...]
    records: tuple[Mapping[str, Any], ...]
    rows: tuple[dict[str, Any], ...]


def write_oracle_report(
    config: OracleConfig, run: Path, folder: Path, cells: Sequence[OracleCell] | None = None
) -> Path:
    """Write ``oracle-2d.md``, ``.tex``, ``.csv``, a plot and ``index.html`` into ``folder``; returns the first.

    Raises InputError where a cell's files are damaged or belong to other settings.
    """
    cells = plan_oracle_cells(config) if cells is None else cells
    groups = read_groups(cells, run)
    tables = [_score_table(groups), _cost_table(groups)]
    failed = failures(cells, run)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "oracle-2d.tex", "\n".join(table.latex() for table in tables))
    write_csv(folder / "oracle-2d.csv", [_named(group, row) for group in groups for row in group.rows])
    plots = save_oracle_plot(_points(groups), folder / "dice_vs_structure")
    write_page(
        folder / "index.html", protocol=config.protocol, head=_head(groups), tables=tables, plots=plots, failures=failed
    )
    write_text(folder / "oracle-2d.md", report_text(groups, failed))
    return folder / "oracle-2d.md"


def report_text(groups: Sequence[Group], failed: Mapping[str, str]) -> str:
    """Write the report as Markdown."""
    parts = [_head(groups), *(table.markdown() for table in (_score_table(groups), _cost_table(groups)))]
    if failed:
        parts.append(failed_cells(failed) + "\n")
    return "\n".join(parts)


def _head(groups: Sequence[Group]) -> str:
    costs = metrics_line(record for group in groups for record in group.records)
    return "\n".join([HEAD, *(["\n".join(costs)] if costs else []), *_weights(groups)])


def class_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Class -> mean Dice over scans, and the mean of these over classes, as the literature's tables have them."""
    names = dict.fromkeys(str(row["label_name"]) for row in rows)
    means = {name: float(np.mean([row["dice"] for row in rows if row["label_name"] == name])) for name in names}
    return means | ({MEAN: float(np.mean(list(means.values())))} if means else {})


def read_groups(cells: Sequence[OracleCell], run: Path) -> list[Group]:
    """Read the groups of :func:`group_cells` from a run directory."""

    def find(cell: OracleCell) -> Result | None:
        if state_of(cell, run) is not CellState.DONE:
            return None
        folder = cell.folder(run)
        try:
            with (folder / SCORES).open(encoding="utf-8", newline="") as stream:
                return read_json(folder / RECORD), score_rows(csv.DictReader(stream), cell)
        except (OSError, KeyError, ValueError):
            raise InputError(f"{folder / SCORES}: is damaged", "remove its folder, and the cell runs again") from None

    return group_cells(cells, find)


def group_cells(cells: Sequence[OracleCell], find: Callable[[OracleCell], Result | None]) -> list[Group]:
    """Return a group per dataset and learner. ``find``: record and score rows of a cell, if it is done."""
    by_key: dict[tuple[str, str], list[OracleCell]] = {}
    for cell in cells:
        by_key.setdefault((cell.dataset.name, cell.learner.name), []).append(cell)
    groups = []
    for key in sorted(by_key, key=lambda key: [name for name, _ in by_key].index(key[0])):
        done = [found for found in map(find, by_key[key]) if found is not None]
        rows = tuple(row for _, some in done for row in some)
        groups.append(Group(tuple(by_key[key]), tuple(record for record, _ in done), rows))
    return groups


def score_rows(rows: Iterable[Mapping[str, str]], cell: OracleCell) -> list[dict[str, Any]]:
    """Rows of ``scores.csv`` with numbers for the Dice, and with the cell's fold and seed."""
    return [{**row, "dice": float(row["dice"]), "fold": cell.fold, "seed": cell.seed} for row in rows]


def _named(group: Group, row: Mapping[str, Any]) -> dict[str, Any]:
    cell = group.cells[0]
    return {"dataset": cell.dataset.name, "learner": cell.learner.name, **row}


def _weights(groups: Sequence[Group]) -> list[str]:
    """Return what the weights that a learner begins with were trained on; the others begin at random."""
    lines: list[str] = []
    for group in groups:
        name, weights = group.cells[0].learner.name, group.cells[0].learner.settings.weights
        seen = group.records[0].get("weights_have_seen") if group.records else None
        if weights is not None:
            met = ", ".join(
                f"{len(facts['subjects'])} subjects of {dataset}" for dataset, facts in (seen or {}).items()
            )
            lines.append(f"- {name}: {weights}, trained on {met or 'no real scan'}")
    return (
        ["\n".join(["Learners that begin with meta-trained weights:", "", *dict.fromkeys(lines), ""])] if lines else []
    )


def _points(groups: Sequence[Group]) -> Points:
    """Dice of every scan that was done, by dataset, learner and structure."""
    points: Points = {}
    for group in groups:
        cell = group.cells[0]
        for row in group.rows:
            learners = points.setdefault(cell.dataset.name, {})
            learners.setdefault(cell.learner.name, {}).setdefault(str(row["label_name"]), []).append(row["dice"])
    return points


def _score_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        cell = group.cells[0]
        head, done = (cell.dataset.name, cell.learner.name), f"{len(group.records)} of {len(group.cells)}"
        if not group.rows:
            rows.append((*head, "", NOT_RUN, "", done))
        for name, mean in class_means(group.rows).items():
            mine = [row for row in group.rows if name in (MEAN, row["label_name"])]
            low, high = bootstrap_interval([row["dice"] for row in mine], [row["subject_id"] for row in mine])
            scans = len({row["case_id"] for row in mine})
            rows.append((*head, name, f"{mean:.3f} [{number(low, 3)}, {number(high, 3)}]", str(scans), done))
    note = "The interval is a bootstrap over scans, which the literature does not give."
    columns = ("dataset", "learner", "structure", "Dice [95 % CI]", "scans", "cells")
    return Table("Scores, oracle-2d", note, columns, tuple(rows))


def _cost_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        if group.records:
            cell = group.cells[0]
            means = [
                float(np.mean([record.get(key) or math.nan for record in group.records]))
                for key in ("seconds_per_adaptation", "seconds_per_query", "peak_gb")
            ]
            steps = [step for record in group.records for step in record["steps"] if step is not None]
            texts = (
                number(means[0], 2),
                number(means[1], 3),
                number(means[2], 2),
                percent(metrics_share(group.records)),
            )
            rows.append((cell.dataset.name, cell.learner.name, number(np.mean(steps), 0) if steps else "-", *texts))
    columns = ("dataset", "learner", "steps", "s per adaptation", "s per slice", "peak GB", "metrics % of time")
    return Table("Costs, oracle-2d", "Means over adaptations, slices and cells.", columns, tuple(rows))


def save_oracle_plot(points: Points, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``: small marks for scans, a large one for their mean; none without points."""
    learners = list(dict.fromkeys(name for of_learner in points.values() for name in of_learner))
    panels = {dataset: partial(_draw, points=found, learners=learners) for dataset, found in points.items()}
    return save_panels(panels, "structure", stem)


def _draw(axes: Axes, points: Mapping[str, Mapping[str, Sequence[float]]], learners: Sequence[str]) -> None:
    structures = list(dict.fromkeys(name for found in points.values() for name in found))
    for name, found in points.items():
        index = learners.index(name)
        style = style_of(index)
        offset = ROOM * ((index + 0.5) / len(learners) - 0.5)
        for structure, values in found.items():
            place = structures.index(structure) + offset
            axes.scatter([place] * len(values), values, s=10, color=style["color"], marker=style["marker"], alpha=0.35,
                         linewidths=0)  # fmt: skip
            axes.plot([place], [np.mean(values)], linestyle="none", markersize=7, label=name, **style)
    axes.set_xticks(range(len(structures)), structures, rotation=20, ha="right")
    axes.set_ylim(0, 1)
