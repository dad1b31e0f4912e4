"""Tables of a benchmark as text cells, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfewshot.benchmark.comparison import Comparison
from medfewshot.benchmark.config import ALL
from medfewshot.benchmark.results import Group, by_task
from medfewshot.evaluation import LabelSummary, mean
from medfewshot.metrics import HEADLINES, METRICS

NOT_RUN = "not run"
UNDEFINED = "-"
BESIDE_DICE = HEADLINES[1:]
"""Dice has an interval, and columns of its own."""
_LATEX = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}"}


@dataclass(frozen=True)
class Table:
    """A table of text cells, for Markdown and LaTeX."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Write the table as Markdown, with its title and note."""
        lines = [f"## {self.title}", "", self.note, "", _row(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *map(_row, self.rows)]) + "\n"

    def latex(self) -> str:
        """Write a ``tabular`` with booktabs' rules; text columns are left-aligned, others right-aligned."""
        texts = {"dataset", "learner", "structure", "first", "second", "stopped by"}
        kinds = "".join("l" if column in texts else "r" for column in self.columns)
        head = [f"% {self.title}: {self.note}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _latex_row(self.columns)]
        lines = [*head, r"\midrule", *map(_latex_row, self.rows), r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines) + "\n"


def score_table(groups: Sequence[Group], tolerance_mm: float) -> Table:
    """Make a table with a row per dataset, K and learner, over all labels."""
    pools = whole_pool_dice(groups)
    rows = [(*_key(group), *_scores(group, group.whole), *_of_pool(group, pools)) for group in groups]
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
    """Dataset -> the best mean Dice of a learner on its whole support pool, if one has been run."""
    best: dict[str, float] = {}
    for group in groups:
        if group.whole_pool and group.whole and math.isfinite(group.whole.dice_mean):
            best[group.key[0]] = max(best.get(group.key[0], 0.0), group.whole.dice_mean)
    return best


def _of_pool(group: Group, pools: Mapping[str, float]) -> list[str]:
    if not pools:
        return []
    bound = pools.get(group.key[0])
    return [number(100 * group.whole.dice_mean / bound, 0) if group.whole and bound else UNDEFINED]


def structure_table(groups: Sequence[Group], tolerance_mm: float) -> Table:
    """Make a table with a row per dataset, K, structure and learner."""
    rows = []
    for same in by_task(groups):
        labels = dict.fromkeys((row.label, row.label_name) for group in same for row in group.summaries[:-1])
        for label, name in labels:
            for group in same:
                found = next((row for row in group.summaries if row.label == label), None)
                dataset, shots, learner = _key(group)
                rows.append((dataset, shots, name, learner, *_scores(group, found)))
    columns = ("dataset", "K", "structure", "learner", *_score_columns(tolerance_mm))
    note = "As above, structure by structure; tasks without results are left out."
    return Table("Structures", note, columns, tuple(rows))


def cost_table(groups: Sequence[Group]) -> Table:
    """Make a table of costs with a row per dataset, K and learner."""
    columns = {
        "adaptation s": lambda g: " ".join(number(value, 1) for value in g.values("seconds", "adapt")),
        "steps": lambda g: " ".join(UNDEFINED if value is None else str(value) for value in g.values("steps")),
        "stopped by": lambda g: ", ".join(dict.fromkeys(str(v or UNDEFINED) for v in g.values("stopped_by"))),
        "s per query": lambda g: " ".join(number(value, 2) for value in g.values("seconds_per_query")),
        "peak GB": lambda g: number(g.largest("peak_gb", "all"), 2),
        "device peak GB": lambda g: number(g.largest("peak_device_gb"), 2),
        "device": lambda g: " ".join(str(value or UNDEFINED).split()[0] for value in g.values("device")),
        "threads": lambda g: ", ".join(sorted({str(value) for value in g.values("threads")})),
        "metrics % of time": lambda g: percent(metrics_share(result.record for result in g.results)),
    }
    rows = [
        (*_key(group), *(make(group) for make in columns.values()))
        if group.results
        else (*_key(group), NOT_RUN, *[""] * (len(columns) - 1))
        for group in groups
    ]
    note = "Seconds, steps and device per seed; peak memory, of the machine and of the device, is the largest."
    return Table("Costs", note, ("dataset", "K", "learner", *columns), tuple(rows))


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Make a table with a row per pair of learners."""
    rows = [
        (
            c.dataset,
            "pool" if c.shots == ALL else str(c.shots),
            *(c.first, c.second, str(c.seeds), str(c.subjects)),
            f"{c.difference:+.3f}",
            f"{c.wins} of {c.subjects}",
            *(p_value(c.p), p_value(c.p_holm)),
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
    """Return plain numbers, one row per group and label (``all labels`` for all together), for a CSV."""
    rows = []
    for group in groups:
        dataset, shots, learner = group.key
        head: dict[str, Any] = {"dataset": dataset, "shots": shots, "learner": learner, "seeds": len(group.results)}
        if not group.results:
            rows.append({**head, "label_name": NOT_RUN})
        costs = {
            "adapt_seconds_mean": group.mean("seconds", "adapt"),
            "seconds_per_query_mean": group.mean("seconds_per_query"),
            "peak_gb_max": group.largest("peak_gb", "all"),
            "steps_mean": group.mean("steps"),
        }
        for row in group.summaries:
            values = row.row()
            if not group.cell.dataset.distances:
                values |= dict.fromkeys(f"{metric.name}_mean" for metric in METRICS.values() if metric.needs_distances)
            rows.append({**head, **values, **costs})
    return rows


def metrics_share(records: Iterable[Mapping[str, Any]]) -> float | None:
    """Share of the metrics in all the seconds that cells recorded; None if none recorded theirs."""
    metrics, total = 0.0, 0.0
    for record in records:
        seconds = {key: value for key, value in record["seconds"].items() if key != "last_process"}
        own = seconds.get("metrics_queries", seconds.get("metrics"))
        if own is not None:
            metrics, total = metrics + own, total + sum(seconds.values())
    return metrics / total if total else None


def metrics_line(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """That share as a paragraph for the head of a report."""
    share = metrics_share(records)
    return [] if share is None else [f"Metrics took {percent(share)} % of the seconds that these cells recorded.", ""]


def percent(share: float | None) -> str:
    """Format a share from 0 to 1 in per cent, with one digit."""
    return number(None if share is None else 100 * share, 1)


def number(value: float | None, digits: int) -> str:
    """Format ``value`` with so many digits; a dash for None and NaN."""
    return UNDEFINED if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """Three digits, or a power of ten below 0.001."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _score_columns(tolerance_mm: float) -> tuple[str, ...]:
    titles = [f"{m.title} {m.unit}".strip() for m in BESIDE_DICE]
    titles = [f"{title}, {tolerance_mm:g} mm" if title == "surface Dice" else title for title in titles]
    return "Dice [95 % CI]", "per seed", *titles, "missed", "false alarms", "seeds"


def _scores(group: Group, row: LabelSummary | None) -> tuple[str, ...]:
    """Return the cells of ``_score_columns`` for one label, or for all."""
    seeds = f"{len(group.results)} of {len(group.cells)}"
    if row is None:
        return NOT_RUN, "", *[""] * len(BESIDE_DICE), "", "", seeds
    per_seed = [
        result.dice if row.label is None else mean(score.dice for score in result.scores if score.label == row.label)
        for result in group.results
    ]
    return (
        f"{number(row.dice_mean, 3)} [{number(row.dice_ci_low, 3)}, {number(row.dice_ci_high, 3)}]",
        " ".join(number(value, 3) for value in per_seed),
        *(
            number(row.means[metric.name], metric.digits)
            if group.cell.dataset.distances or not metric.needs_distances
            else UNDEFINED
            for metric in BESIDE_DICE
        ),
        *(str(row.missed), str(row.false_alarms), seeds),
    )


def _key(group: Group) -> tuple[str, str, str]:
    return group.key[0], group.shots_text, group.key[2]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"
