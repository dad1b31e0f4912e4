"""``oracle-2d.md`` and its CSV: Dice as the literature reports it, beside what it may be compared with."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.benchmark.cells import RECORD, SCORES, CellState, read_json, state_of
from medfewshot.benchmark.oracle2d.config import OracleCell, OracleConfig
from medfewshot.benchmark.oracle2d.plot import Points, save_oracle_plot
from medfewshot.benchmark.page import write_page
from medfewshot.benchmark.results import failures
from medfewshot.benchmark.tables import NOT_RUN, Table, metrics_line, metrics_share, number, percent
from medfewshot.errors import InputError
from medfewshot.evaluation import bootstrap_interval
from medfewshot.io import write_text
from medfewshot.report import write_csv

MEAN = "mean of classes"
HEAD = """\
# Benchmark, protocol `oracle-2d`

For comparison with the figures of the few-shot literature, and with nothing else: only slices that are known to hold
the organ are segmented, and each third of the query organ's true extent is matched to a support slice. Five folds over
scans, 1-way 1-shot, three support slices, Dice pooled over the slices of a scan and averaged over scans. No learner was
trained on other scans of its dataset, which is less than either of the literature's settings allows.
"""


@dataclass(frozen=True)
class _Group:
    """All folds and seeds of one dataset and learner: the rows of those that are done."""

    cells: tuple[OracleCell, ...]
    records: tuple[Mapping[str, Any], ...]
    rows: tuple[dict[str, Any], ...]


def write_oracle_report(config: OracleConfig, cells: Sequence[OracleCell], run: Path, folder: Path) -> Path:
    """Write ``oracle-2d.md``, ``.tex``, ``.csv``, a plot and ``index.html`` into ``folder``; returns the first.

    Raises InputError where a cell's files are damaged or belong to other settings.
    """
    groups = _read_groups(cells, run)
    tables = [_score_table(groups), _cost_table(groups)]
    failed = failures(cells, run)
    costs = metrics_line(record for group in groups for record in group.records)
    head = [HEAD, *(["\n".join(costs)] if costs else []), *_weights(groups)]
    parts = [*head, *(table.markdown() for table in tables)]
    parts += ["\n".join(["## Failed cells", "", *(f"- `{k}`: {v}" for k, v in failed.items()), ""])] if failed else []
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "oracle-2d.tex", "\n".join(table.latex() for table in tables))
    write_csv(folder / "oracle-2d.csv", [_named(group, row) for group in groups for row in group.rows])
    plots = [path for path in save_oracle_plot(_points(groups), folder / "dice_vs_structure") if path.suffix == ".svg"]
    lines = "\n".join(head).splitlines()[1:]
    write_page(folder / "index.html", protocol=config.protocol, head=lines, tables=tables, plots=plots, failures=failed)
    write_text(folder / "oracle-2d.md", "\n".join(parts))
    return folder / "oracle-2d.md"


def class_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Class -> mean Dice over scans, and the mean of these over classes, as the literature's tables have them."""
    names = dict.fromkeys(str(row["label_name"]) for row in rows)
    means = {name: float(np.mean([row["dice"] for row in rows if row["label_name"] == name])) for name in names}
    return means | ({MEAN: float(np.mean(list(means.values())))} if means else {})


def _read_groups(cells: Sequence[OracleCell], run: Path) -> list[_Group]:
    by_key: dict[tuple[str, str], list[OracleCell]] = {}
    for cell in cells:
        by_key.setdefault((cell.dataset.name, cell.learner.name), []).append(cell)
    groups = []
    for key in sorted(by_key, key=lambda key: [name for name, _ in by_key].index(key[0])):
        done = [cell for cell in by_key[key] if state_of(cell, run) is CellState.DONE]
        rows = [row for cell in done for row in _read_rows(cell.folder(run) / SCORES, cell)]
        records = tuple(read_json(cell.folder(run) / RECORD) for cell in done)
        groups.append(_Group(tuple(by_key[key]), records, tuple(rows)))
    return groups


def _read_rows(path: Path, cell: OracleCell) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [
                {**row, "dice": float(row["dice"]), "fold": cell.fold, "seed": cell.seed}
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError, ValueError):
        raise InputError(f"{path}: is damaged; remove its folder, and the cell runs again") from None


def _named(group: _Group, row: Mapping[str, Any]) -> dict[str, Any]:
    cell = group.cells[0]
    return {"dataset": cell.dataset.name, "learner": cell.learner.name, **row}


def _weights(groups: Sequence[_Group]) -> list[str]:
    """What the weights that a learner begins with were trained on; the others begin at random."""
    lines: list[str] = []
    for group in groups:
        name, weights = group.cells[0].learner.name, group.cells[0].learner.weights
        seen = group.records[0].get("weights_have_seen") if group.records else None
        if weights is not None:
            met = ", ".join(
                f"{len(facts['subjects'])} subjects of {dataset}" for dataset, facts in (seen or {}).items()
            )
            lines.append(f"- {name}: {weights}, trained on {met or 'no real scan'}")
    return (
        ["\n".join(["Learners that begin with meta-trained weights:", "", *dict.fromkeys(lines), ""])] if lines else []
    )


def _points(groups: Sequence[_Group]) -> Points:
    """Dice of every scan that was done, by dataset, learner and structure."""
    points: Points = {}
    for group in groups:
        cell = group.cells[0]
        for row in group.rows:
            learners = points.setdefault(cell.dataset.name, {})
            learners.setdefault(cell.learner.name, {}).setdefault(str(row["label_name"]), []).append(row["dice"])
    return points


def _score_table(groups: Sequence[_Group]) -> Table:
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


def _cost_table(groups: Sequence[_Group]) -> Table:
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
