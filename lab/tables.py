"""Put the published tables into README.md, docs/results.md and lab/notes, from the records in ``lab/records``.

    python -m lab.tables            # rewrites the tables
    python -m lab.tables --check    # changes nothing; exit code 1 if a page differs from the records

A table stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``. Learners in one row are compared over the
support draws (seeds) that all of them have; a cell that was not run is empty.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lab.oracle2d import OracleCell, plan_oracle_cells
from lab.oracle2d import report as oracle_report
from lab.protocols import load_oracle, load_volume
from lab.records import RECORDS, Record, read_records
from medfewshot.benchmark import load_benchmark, plan_cells
from medfewshot.benchmark.cells import Cell, CellState
from medfewshot.benchmark.config import Shots
from medfewshot.benchmark.report import report_text
from medfewshot.benchmark.results import BenchmarkResults, CellResult, Group, group_cells
from medfewshot.evaluation import CaseScore

ROOT = Path(__file__).resolve().parents[1]
CONFIGS, LAB_CONFIGS = ROOT / "configs/benchmark", ROOT / "lab/configs"
UNSEEN = ("abd-mr-chaos", "card-mr-mscmr", "Task04_Hippocampus")
"""Data sets none of whose scans the weights ``default`` have seen."""
SABS = "abd-ct-sabs"
ALL = ("abd-mr-chaos", SABS, "abd-ct-sabs-13", "card-mr-mscmr", "Task04_Hippocampus", "lung-nodule-lidc")
NAMES = {
    SABS: "abd-ct-sabs, four structures",
    "abd-ct-sabs-13": "abd-ct-sabs, thirteen",
}
BEFORE = {
    "standard": "hybrid-default-400",
    "standard-novel": "hybrid-novel-400",
    "standard-random": "hybrid-400",
    "standard-open": "",
    "best": "",
    "best-novel": "hybrid-novel-1200",
    "best-random": "",
    "best-random-mass": "",
}
"""Learner in ``quality.yaml`` -> the same learner of the version before, in ``meta.yaml`` and ``learners.yaml``."""
TITLES = {
    "abd-mr-chaos": "CHAOS, abdominal MR: liver, kidneys, spleen",
    "card-mr-mscmr": "MS-CMRSeg, cardiac MR: myocardium, LV, RV",
    "Task04_Hippocampus": "MSD hippocampus, MR: anterior, posterior",
    SABS: "SABS (BTCV), abdominal CT: liver, kidneys, spleen",
    "lung-nodule-lidc": "LIDC, lung CT: nodules",
}


@dataclass(frozen=True)
class Records:
    """Finished cells, by (data set, K, learner)."""

    groups: dict[tuple[str, Shots, str], Group]

    def get(self, dataset: str, shots: int, learner: str, seeds: Sequence[int] | None = None) -> Group | None:
        """Return the group, of these draws alone if they are given; None if no such cell was run."""
        group = self.groups.get((dataset, shots, learner))
        if group is None or seeds is None:
            return group
        kept = tuple(result for result in group.results if result.cell.seed in seeds)
        return Group(group.cells, kept) if kept else None

    def common(self, dataset: str, shots: int, learners: Sequence[str]) -> list[int]:
        """Return the draws that each of the learners has."""
        groups = [self.get(dataset, shots, learner) for learner in learners]
        return sorted(set.intersection(*({r.cell.seed for r in g.results} if g else set() for g in groups)))


@cache
def recorded(protocol: str) -> Mapping[tuple[str, str], Record]:
    """Return all records, by (run, cell id)."""
    return {(record.run, record.id): record for record in read_records(protocol)}


def find_record(cell: Cell | OracleCell, runs: Sequence[str]) -> Record | None:
    """Return the record of a cell in one of these runs. Exits if it was made with other settings."""
    known = recorded(cell.protocol)
    record = next((known[run, cell.id] for run in runs if (run, cell.id) in known), None)
    if record is not None and record.content["fingerprint"] != cell.fingerprint:
        raise SystemExit(f"{record.run}: {cell.id} was run with other settings than the configuration says")
    return record


def groups_of(cells: Sequence[Cell], runs: Sequence[str]) -> list[Group]:
    """Return the cells with their records in these runs."""

    def find(cell: Cell) -> CellResult | None:
        record = find_record(cell, runs)
        return record and CellResult(cell, record.content, tuple(map(CaseScore.from_row, record.scores)))

    return group_cells(cells, find)


RUNS = ("meta", "learners", "quality")
"""Benchmark files whose cells the tables show; their runs have the same names."""
RATE_OF_TODAY = ("meta-today", *RUNS)
"""The same, cells of ``meta`` at the learning rate of today first."""


def read_groups(runs: Sequence[str] = RUNS) -> Records:
    """Read the finished cells of :data:`RUNS` from the first of ``runs`` that has them."""
    configs = [load_benchmark(CONFIGS / f"{name}.yaml") for name in RUNS]
    cells = list({cell.id: cell for config in configs for cell in plan_cells(config)}.values())
    return Records({group.key: group for group in groups_of(cells, runs) if group.results})


def report_of(config: Path, runs: Sequence[str], sections: Sequence[str] = ()) -> str:
    """Return the Markdown report of a benchmark file's cells, from records; see :func:`excerpt`."""
    plan = load_volume(config)
    groups = groups_of(plan_cells(plan), runs)
    done = sum(len(group.results) for group in groups)
    total = sum(len(group.cells) for group in groups)
    states = {CellState.DONE: done, CellState.NOT_RUN: total - done}
    return excerpt(report_text(plan, BenchmarkResults(groups, states, {})), sections)


def excerpt(text: str, wanted: Sequence[str]) -> str:
    """Return the head and the ``wanted`` sections of a report (all if none is named), two heading levels deeper."""
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    known = {section.splitlines()[0]: section for section in sections}
    chosen = [known[name] for name in wanted] or sections
    paragraphs = re.sub(r"\A# .*\n+", "", head).rstrip()
    return "\n\n".join([paragraphs, *(f"#### {section.rstrip()}" for section in chosen)]).strip()


def put(page: str, name: str, content: str) -> str:
    """Put ``content`` between the marks of ``name`` in ``page``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{begin} and {end} must stand in the page once each")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def read_table(name: str) -> list[dict[str, str]]:
    """Read a CSV file below ``lab/records``."""
    with (RECORDS / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def main_job_table(_: Records) -> str:
    """Make the tables of ``finetune`` from random weights, from figures per structure (scores per scan are lost)."""
    head = "dataset|K|structure|Dice [95 % CI]|seeds|HD95 mm|surface Dice, 2 mm|missed|false alarms"
    rows = []
    for row in read_table("finetune/structures.csv"):
        score = f"**{row['dice']}** [{row['dice_ci_low']}, {row['dice_ci_high']}]"
        seeds = " ".join(row[f"dice_seed_{seed}"] for seed in range(3))
        rest = [row[name] for name in ("hd95_mm", "surface_dice", "missed", "false_alarms")]
        rows.append([row["dataset"], row["shots"], row["structure"], score, seeds, *rest])
    cells: dict[tuple[str, str], list[dict[str, str]]] = {}
    for cell in read_table("finetune/cells.csv"):
        cells.setdefault((cell["dataset"], cell["shots"]), []).append(cell)
    costs = []
    for key, found in cells.items():
        first = found[0]
        seeds = ", ".join(cell["seed"] for cell in found)
        several = [" ".join(cell[name] for cell in found) for name in ("adapt_seconds", "steps")]
        peak = f"{first['peak_gb_adapt']}, {first['peak_gb_segment']}"
        costs.append([*key, first["options"], seeds, *several, first["seconds_per_query"], peak])
    cost_head = "dataset|K|options|seeds|adaptation s|steps|s per volume|peak GB (adapt, segment)"
    machine = "Machine: x86_64, 2 cores, AVX512, torch 2.13.0+cpu."
    return "\n\n".join([table(head, rows), table(cost_head, costs), machine])


def thousand_steps() -> dict[tuple[str, int], str]:
    """Mean Dice of ``finetune`` after 1000 steps, by (data set, K), with a footnote mark (SABS had 2000)."""
    rows = [row for row in read_table("finetune/structures.csv") if row["structure"] == "all labels"]
    return {(row["dataset"], int(row["shots"])): f"{row['dice']} ¹" for row in rows if row["dataset"] != SABS}


def dice(group: Group | None) -> float | None:
    """Mean Dice over the draws of a group; None without a group."""
    return None if group is None else float(np.mean([result.dice for result in group.results]))


def number(value: float | None, digits: int = 3) -> str:
    """Format a number; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(group: Group) -> str:
    """95 % interval of a group's Dice as text."""
    whole = group.summaries[-1]
    return f"[{whole.dice_ci_low:.3f}, {whole.dice_ci_high:.3f}]"


def with_interval(group: Group | None) -> str:
    """Mean Dice of a group with its interval as text."""
    return "" if group is None else f"{number(dice(group))} {interval(group)}"


def draws(group: Group) -> str:
    """Dice of each draw as text."""
    return " ".join(f"{result.dice:.3f}".lstrip("0") for result in group.results)


def bold_best(values: Sequence[float | None]) -> list[str]:
    """Format the values and make the best one bold."""
    best = max(round(value, 3) for value in values if value is not None)
    return [f"**{number(v)}**" if v is not None and round(v, 3) == best else number(v) for v in values]


def fewer_draws(group: Group | None, seeds: Sequence[int]) -> str:
    """Format the mean, with the number of its draws if the row has more."""
    have = 0 if group is None else len(group.results)
    return number(dice(group)) + (f" ({have})" if 0 < have < len(seeds) else "")


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table; ``head`` contains the column titles, separated by ``|``."""
    titles = head.split("|")
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("  ", " ")


def today(dataset: str, kind: str = "standard") -> str:
    """Return a learner of ``quality.yaml``, with the weights that have seen no label of the data set's structures."""
    return f"{kind}-novel" if dataset == SABS else kind


def family(dataset: str) -> list[str]:
    """Return the learners of the version before that are compared, its default first."""
    weights = "novel" if dataset == SABS else "default"
    return [f"hybrid-{weights}-400", f"{weights}-400", "atlas", "random-400"]


def default_table(records: Records) -> str:
    """Make the table of the version before beside its parts, draw by draw."""
    head = "K|data|draws|`hybrid` [95 % CI]|draw by draw|network alone|atlas alone|network, random weights"
    head += "|HD95 mm, hybrid|missed|adaptation s|s per volume"
    rows = []
    for shots in (1, 5):
        for dataset in (*UNSEEN, SABS):
            seeds = records.common(dataset, shots, family(dataset))
            groups = [records.get(dataset, shots, learner, seeds) for learner in family(dataset)]
            best, *others = bold_best([dice(group) for group in groups])
            name = f"{dataset}, `novel`" if dataset == SABS else dataset
            scores = [f"{best} {interval(groups[0])}", draws(groups[0]), *others]
            rows.append([str(shots), name, str(len(seeds)), *scores, *cost(groups[0], missed=True)])
    return table(head, rows)


def short_default_table(records: Records) -> str:
    """Make the table of accuracy and cost of the default, and of ``--quality best`` where it pays."""
    rows = []
    for dataset in (*UNSEEN, SABS):
        for shots, quality in ((1, "standard"), (5, "standard"), *([(5, "best")] if dataset == SABS else [])):
            group = records.get(dataset, shots, today(dataset, quality))
            title = TITLES[dataset] + (", `--quality best`" if quality == "best" else "")
            rows.append([title, str(shots), f"**{number(dice(group))}** {interval(group)}", *cost(group)])
    return table("scans|labelled scans|Dice [95 % interval]|HD95 mm|adaptation s|s per scan", rows)


def quality_table(records: Records) -> str:
    """Make the table of every finished cell of ``quality.yaml``, beside the version before over the same draws."""
    head = "K|data|learner|Dice [95 % CI]|draw by draw|the version before|surface Dice, 2 mm|before|HD95 mm|missed"
    rows = []
    for dataset, shots, learner in records.groups:
        if learner in BEFORE:
            group = records.get(dataset, shots, learner)
            seeds = [result.cell.seed for result in group.results]
            before = records.get(dataset, shots, BEFORE[learner], seeds)
            surfaces = [surface(group), surface(before)]
            scores = [with_interval(group), draws(group), draws(before) if before else "", *surfaces]
            rows.append([str(shots), NAMES.get(dataset, dataset), learner, *scores, *cost(group, missed=True)])
    return table(f"{head}|adaptation s|s per volume", sorted(rows))


def surface(group: Group | None) -> str:
    """Mean surface Dice at 2 mm as text; empty without a group or where distances mean nothing."""
    known = group is not None and group.cell.dataset.distances
    return number(group.summaries[-1].means["surface_dice"], 3) if known else ""


def parts_table(records: Records) -> str:
    """Make the table of the default beside its two parts, over the draws that all have."""
    rows = []
    for dataset in (*UNSEEN, SABS, "lung-nodule-lidc"):
        for shots in (1, 5):
            learners = [today(dataset), today(dataset, "network"), "atlas"]
            seeds = records.common(dataset, shots, learners)
            if seeds:
                scores = [dice(records.get(dataset, shots, learner, seeds)) for learner in learners]
                rows.append([TITLES[dataset].split(":")[0], str(shots), *bold_best(scores)])
    return table("scans|labelled scans|default|network alone|registration alone", rows)


def structures_table(records: Records) -> str:
    """Make the table of the default per structure."""
    rows = []
    for dataset in (*UNSEEN, SABS):
        one, five = (records.get(dataset, shots, today(dataset)).summaries[:-1] for shots in (1, 5))
        for few, more in zip(one, five, strict=True):
            scores = [number(few.dice_mean), number(more.dice_mean), number(few.means["hd95_mm"], 1)]
            rows.append([TITLES[dataset].split(":")[0], few.label_name, *scores, number(more.means["hd95_mm"], 1)])
    return table("scans|structure|Dice, 1 labelled scan|Dice, 5|HD95 mm, 1|HD95 mm, 5", rows)


def cost(group: Group, missed: bool = False) -> list[str]:
    """Format what a group cost, as table cells.

    Returns:
        HD95 in mm, the number of missed structures if ``missed``, and the seconds of adaptation and of a volume. The
        seconds are medians over draws, because the load of the machine varied.
    """
    distance = group.summaries[-1].means["hd95_mm"] if group.cell.dataset.distances else np.nan
    count = [str(sum(label.missed for label in group.summaries[:-1]))] if missed else []
    adapting, each = group.values("seconds", "adapt"), group.values("seconds_per_query")
    seconds = [number(float(np.median(adapting)), 0), number(float(np.median(each)), 1)]
    return ["" if np.isnan(distance) else number(distance, 1), *count, *seconds]


def peak(group: Group) -> str:
    """Most memory in GB, of adapting and of the whole cell."""
    return number(max(group.mean("peak_gb", stage) or 0 for stage in ("adapt", "all")), 1)


def equal_steps_table(_: Records) -> str:
    """Make the tables that compare weights at equal numbers of steps."""
    records = read_groups(RATE_OF_TODAY)
    return "\n\n".join(_equal_steps(records, shots) for shots in (1, 5))


def _equal_steps(records: Records, shots: int) -> str:
    rows = []
    for steps in (0, 25, 100, 400):
        start = f"default-{steps}"
        names = [start, f"random-{steps}"] if steps else [start]
        means = []
        for name in names:
            groups = [records.get(d, shots, name, records.common(d, shots, names)) for d in UNSEEN]
            means.append(float(np.mean([dice(group) for group in groups])))
            gain = f"{means[0] - means[1]:+.3f}" if len(means) == 2 else ""
            title = "weights `default`" if name == start else "random"
            rows.append([title, str(steps), *map(with_interval, groups), number(means[-1]), gain])
    return table("|".join([f"K = {shots}|steps", *UNSEEN, "mean|difference"]), rows)


def short_equal_steps_table(_: Records) -> str:
    """Make the table of the gain by meta-trained weights."""
    records, rows = read_groups(RATE_OF_TODAY), []
    for dataset in UNSEEN:
        for shots in (1, 5):
            changes = []
            for steps in (25, 100, 400):
                names = [f"random-{steps}", f"default-{steps}"]
                seeds = records.common(dataset, shots, names)
                before, after = (dice(records.get(dataset, shots, name, seeds)) for name in names)
                clear = after - before > 0.005
                changes.append(f"{number(before)} → " + (f"**{number(after)}**" if clear else number(after)))
            rows.append([TITLES[dataset].split(":")[0], str(shots), *changes])
    return table("scans|labelled scans|25 steps|100 steps|400 steps", rows)


def zero_steps_table(records: Records) -> str:
    """Make the table of learners without training steps."""
    learners = {"`finetune` (head in closed form)": "default-0", "`ridge`": "ridge-0", "`prototype`": "prototype-0"}
    rows = []
    for shots in (1, 5):
        for title, learner in learners.items():
            groups = [records.get(d, shots, learner, records.common(d, shots, list(learners.values()))) for d in UNSEEN]
            rows.append([title, str(shots), *map(with_interval, groups)])
    return table("|".join(["0 steps|K", *UNSEEN]), rows)


def atlas_table(records: Records) -> str:
    """Make the table of the learner ``atlas``."""
    rows = []
    for dataset in ALL:
        cells = []
        for shots in (1, 5):
            group = records.get(dataset, shots, "atlas")
            cells += [with_interval(group), draws(group), cost(group)[-1]]
        rows.append([NAMES.get(dataset, dataset), *cells])
    return table("data|K = 1|draw by draw|s per volume|K = 5|draw by draw|s per volume", rows)


def without_table(records: Records) -> str:
    """Make the tables of learners without meta-trained weights."""
    return "\n\n".join(_without(records, shots) for shots in (1, 5))


def _without(records: Records, shots: int) -> str:
    head = f"K = {shots}|draws|`atlas`|`hybrid`, 400 steps [95 % CI]|draw by draw|`finetune`, 100 steps|400|1000"
    head += "|hybrid: HD95 mm|adaptation s|s per volume|peak GB"
    longest = thousand_steps()
    rows, means = [], []
    for dataset in ALL:
        learners = ["atlas", "hybrid-400", "random-400"]
        seeds = records.common(dataset, shots, learners)
        groups = [records.get(dataset, shots, learner, seeds) for learner in learners]
        values = [dice(group) for group in groups]
        means.append(values)
        atlas, hybrid, network = bold_best(values)
        few = fewer_draws(records.get(dataset, shots, "random-100", seeds), seeds)
        many = longest.get((dataset, shots), "")
        scores = [atlas, f"{hybrid} {interval(groups[1])}", draws(groups[1]), few, network, many]
        rows.append([NAMES.get(dataset, dataset), str(len(seeds)), *scores, *cost(groups[1]), peak(groups[1])])
    atlas, hybrid, network = bold_best(np.mean(means, axis=0).tolist())
    rows.append(["mean", "", atlas, hybrid, "", "", network, "", "", "", "", ""])
    return table(head, rows)


def volume_report(_: Records) -> str:
    """Make the full report of the protocol ``volume``."""
    return report_of(CONFIGS / "quality.yaml", ("quality", "meta", "learners"))


def nnunet_report(_: Records) -> str:
    """Make the score and cost tables of nnU-Net."""
    return report_of(LAB_CONFIGS / "nnunet.yaml", ("nnunet",), ("Scores", "Costs"))


def oracle_page(_: Records) -> str:
    """Make the report of the protocol ``oracle-2d``."""

    def find(cell: OracleCell) -> oracle_report.Result | None:
        record = find_record(cell, ("oracle-2d",))
        return record and (record.content, oracle_report.score_rows(record.scores, cell))

    cells = plan_oracle_cells(load_oracle(LAB_CONFIGS / "oracle-2d.yaml"))
    return excerpt(oracle_report.report_text(oracle_report.group_cells(cells, find), {}), ())


def effort_table(_: Records) -> str:
    """Make the table of the simulated annotator: means over the random orders that were run."""
    rows = []
    for dataset in UNSEEN:
        points = read_table(f"effort/{dataset}.csv")
        for way in dict.fromkeys(point["way"] for point in points):
            mine = [point for point in points if point["way"] == way]
            for scans in sorted({int(point["scans"]) for point in mine}):
                same = [point for point in mine if int(point["scans"]) == scans]
                means = [float(np.mean([float(point[name]) for point in same])) for name in ("slices", "dice", "masks")]
                rows.append([dataset, way, str(scans), f"{means[0]:.0f}", f"{means[1]:.3f}", f"{means[2]:.3f}"])
                rows[-1].append(str(len(same)))
    return table("data|way|scans|slices|Dice of the drafts|Dice of the masks|orders", rows)


def stages_table(_: Records) -> str:
    """Make the table of the seconds of each stage, relative to a reference workload."""
    rows = read_table("speed.csv") if (RECORDS / "speed.csv").exists() else []
    cells = [[row["stage"], number(float(row["seconds"])), number(float(row["ratio"]), 2)] for row in rows]
    machine = f"Machine: {rows[0]['machine']}." if rows else "Nothing is recorded yet."
    return f"{table('stage|s of one core|times the reference', cells)}\n\n{machine}"


TABLES: dict[str, dict[str, Callable[[Records], str]]] = {
    "README.md": {"default": short_default_table},
    "docs/results.md": {
        "default": short_default_table,
        "structures": structures_table,
        "parts": parts_table,
        "equal_steps": short_equal_steps_table,
    },
    "lab/notes/results.md": {
        "main_job": main_job_table,
        "quality": quality_table,
        "default": default_table,
        "equal_steps": equal_steps_table,
        "zero_steps": zero_steps_table,
        "atlas": atlas_table,
        "without": without_table,
        "effort": effort_table,
    },
    "lab/notes/speed.md": {"stages": stages_table},
    "lab/notes/benchmark_tables.md": {"volume": volume_report, "nnunet": nnunet_report, "oracle-2d": oracle_page},
}


def main() -> int:
    """Write the tables into the pages, or compare them with ``--check``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page differs")
    check = parser.parse_args().check
    records, differ = read_groups(), False
    for name, tables in TABLES.items():
        path = ROOT / name
        before = page = path.read_text(encoding="utf-8")
        for mark, make in tables.items():
            page = put(page, mark, make(records))
        if page != before:
            differ = True
            print(f"{name}: {'differs from the records' if check else 'brought to the records'}")
        if not check:
            path.write_text(page, encoding="utf-8")
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main())
