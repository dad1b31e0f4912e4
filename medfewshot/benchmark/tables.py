"""The tables of a benchmark, as text cells, and as Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfewshot.benchmark.comparison import Comparison
from medfewshot.benchmark.config import ALL, Shots
from medfewshot.benchmark.results import Group
from medfewshot.evaluation import LabelSummary
from medfewshot.metrics import METRICS, Metric

NOT_RUN = "not run"
UNDEFINED = "-"
_LATEX = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}"}


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.note, "", _row(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *map(_row, self.rows)]) + "\n"

    def latex(self) -> str:
        """A ``tabular`` with booktabs' rules; text columns to the left, the others to the right."""
        texts = {"dataset", "learner", "structure", "first", "second", "stopped by"}
        kinds = "".join("l" if column in texts else "r" for column in self.columns)
        lines = [
            f"% {self.title}: {self.note}",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            _latex_row(self.columns),
            r"\midrule",
            *map(_latex_row, self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def score_table(groups: Sequence[Group], tolerance_mm: float) -> Table:
    """A row per dataset, K and learner: all labels together."""
    pools = whole_pool_dice(groups)
    rows = [
        (*_key(group), *_scores(group, _all_labels(group)), *([_of_pool(group, pools)] if pools else []))
        for group in groups
    ]
    note = (
        "Dice is the mean over query subjects and seeds of the mean over structures; missed structures and false "
        "alarms count as 0 and are counted. The interval is a bootstrap over subjects. HD95 runs over found structures "
        "only."
    )
    if pools:
        note += " The last column is the share of the best Dice that a learner reached with the whole support pool."
    columns = ("dataset", "K", "learner", *_score_columns(tolerance_mm), *(["% of pool's Dice"] if pools else []))
    return Table("Scores", note, columns, tuple(rows))


def whole_pool_dice(groups: Iterable[Group]) -> dict[str, float]:
    """Dataset -> the best mean Dice of a learner on its whole support pool; only where one has been run."""
    best: dict[str, float] = {}
    for group in groups:
        if group.whole_pool and group.summaries and math.isfinite(group.summaries[-1].dice_mean):
            best[group.key[0]] = max(best.get(group.key[0], 0.0), group.summaries[-1].dice_mean)
    return best


def _of_pool(group: Group, pools: Mapping[str, float]) -> str:
    row, bound = _all_labels(group), pools.get(group.key[0])
    return UNDEFINED if row is None or not bound else number(100 * row.dice_mean / bound, 0)


def structure_table(groups: Sequence[Group], tolerance_mm: float) -> Table:
    """A row per dataset, K, structure and learner."""
    rows = []
    for same in _by_task(groups):
        labels = dict.fromkeys((row.label, row.label_name) for group in same for row in group.summaries[:-1])
        for label, name in labels:
            for group in same:
                found = next((row for row in group.summaries if row.label == label), None)
                dataset, shots, learner = _key(group)
                rows.append((dataset, shots, name, learner, *_scores(group, found, per_seed=label)))
    columns = ("dataset", "K", "structure", "learner", *_score_columns(tolerance_mm))
    note = "As above, structure by structure; tasks without results are left out."
    return Table("Structures", note, columns, tuple(rows))


def cost_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        if not group.results:
            rows.append((*_key(group), NOT_RUN, *[""] * 8))
            continue
        rows.append(
            (
                *_key(group),
                " ".join(number(value, 1) for value in group.values("seconds", "adapt")),
                " ".join(UNDEFINED if value is None else str(value) for value in group.values("steps")),
                ", ".join(dict.fromkeys(str(value or UNDEFINED) for value in group.values("stopped_by"))),
                " ".join(number(value, 2) for value in group.values("seconds_per_query")),
                _largest(group, "peak_gb", "all"),
                _largest(group, "peak_device_gb"),
                " ".join(str(value or UNDEFINED).split()[0] for value in group.values("device")),
                ", ".join(sorted({str(value) for value in group.values("threads")})),
                percent(metrics_share(result.record for result in group.results)),
            )
        )
    columns = (
        "dataset", "K", "learner", "adaptation s", "steps", "stopped by", "s per query", "peak GB", "device peak GB",
        "device", "threads", "metrics % of time",
    )  # fmt: skip
    note = "Seconds, steps and device per seed; peak memory, of the machine and of the device, is the largest."
    return Table("Costs", note, columns, tuple(rows))


def _largest(group: Group, *keys: str) -> str:
    known = [value for value in group.values(*keys) if value is not None]
    return number(max(known), 2) if known else UNDEFINED


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    rows = [
        (
            c.dataset,
            "pool" if c.shots == ALL else str(c.shots),
            c.first,
            c.second,
            str(c.seeds),
            str(c.subjects),
            f"{c.difference:+.3f}",
            f"{c.wins} of {c.subjects}",
            p_value(c.p),
            p_value(c.p_holm),
        )
        for c in comparisons
    ]
    columns = (
        "dataset", "K", "first", "second", "seeds", "subjects", "Dice difference", "first better", "p", "p (Holm)",
    )  # fmt: skip
    note = (
        "First minus second, paired over subjects (mean over structures and the seeds that both have); two-sided "
        "Wilcoxon signed-rank test, Holm-corrected over the pairs of one dataset and K."
    )
    return Table("Comparisons", note, columns, tuple(rows))


def summary_rows(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """One row of plain numbers per group and label (that of all labels: ``all labels``), for a CSV."""
    rows = []
    for group in groups:
        dataset, shots, learner = group.key
        head = {"dataset": dataset, "shots": shots, "learner": learner, "seeds": len(group.results)}
        if not group.results:
            rows.append({**head, "label_name": NOT_RUN})
        for row in group.summaries:
            values = row.row()
            if not group.cell.dataset.distances:
                values |= dict.fromkeys(f"{metric.name}_mean" for metric in METRICS.values() if metric.needs_distances)
            rows.append({**head, **values, **_costs(group)})
    return rows


def metrics_share(records: Iterable[Mapping[str, Any]]) -> float | None:
    """Share of the metrics in all the seconds that cells recorded; None where none recorded theirs."""
    metrics, total = 0.0, 0.0
    for record in records:
        seconds = {key: value for key, value in record["seconds"].items() if key != "last_process"}
        own = seconds.get("metrics_queries", seconds.get("metrics"))  # oracle-2d has no other metrics
        if own is not None:
            metrics, total = metrics + own, total + sum(seconds.values())
    return metrics / total if total else None


def metrics_line(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """That share as a paragraph for the head of a report."""
    share = metrics_share(records)
    return [] if share is None else [f"Metrics took {percent(share)} % of the seconds that these cells recorded.", ""]


def percent(share: float | None) -> str:
    return UNDEFINED if share is None else f"{100 * share:.1f}"


def number(value: float | None, digits: int) -> str:
    return UNDEFINED if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _score_columns(tolerance_mm: float) -> tuple[str, ...]:
    titles = [f"{m.title} {m.unit}".strip() for m in _headlines()]
    titles = [f"{title}, {tolerance_mm:g} mm" if title == "surface Dice" else title for title in titles]
    return "Dice [95 % CI]", "per seed", *titles, "missed", "false alarms", "seeds"


def _headlines() -> list[Metric]:
    """The metrics that these tables show beside Dice, which has an interval."""
    return [metric for metric in METRICS.values() if metric.headline and metric.name != "dice"]


def _scores(group: Group, row: LabelSummary | None, per_seed: int | None = None) -> tuple[str, ...]:
    seeds = f"{len(group.results)} of {len(group.cells)}"
    if row is None:
        return NOT_RUN, "", *[""] * len(_headlines()), "", "", seeds
    distances = group.cell.dataset.distances
    return (
        f"{number(row.dice_mean, 3)} [{number(row.dice_ci_low, 3)}, {number(row.dice_ci_high, 3)}]",
        " ".join(number(value, 3) for value in _per_seed(group, per_seed)),
        *(
            number(row.means[metric.name], metric.digits) if distances or not metric.needs_distances else UNDEFINED
            for metric in _headlines()
        ),
        str(row.missed),
        str(row.false_alarms),
        seeds,
    )


def _per_seed(group: Group, label: int | None) -> list[float]:
    if label is None:
        return [result.dice for result in group.results]
    values = []
    for result in group.results:
        mine = [s.dice for s in result.scores if s.label == label and not math.isnan(s.dice)]
        values.append(sum(mine) / len(mine) if mine else math.nan)
    return values


def _all_labels(group: Group) -> LabelSummary | None:
    return group.summaries[-1] if group.summaries else None


def _by_task(groups: Sequence[Group]) -> list[list[Group]]:
    tasks: dict[tuple[str, Shots], list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.key[:2], []).append(group)
    return list(tasks.values())


def _key(group: Group) -> tuple[str, str, str]:
    return group.key[0], group.shots_text, group.key[2]


def _costs(group: Group) -> dict[str, Any]:
    peaks = [value for value in group.values("peak_gb", "all") if value is not None]
    return {
        "adapt_seconds_mean": group.mean("seconds", "adapt"),
        "seconds_per_query_mean": group.mean("seconds_per_query"),
        "peak_gb_max": max(peaks) if peaks else None,
        "steps_mean": group.mean("steps"),
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"
