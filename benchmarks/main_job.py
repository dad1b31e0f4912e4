"""The main job on the fixed splits, through the command line: adapt, segment whole volumes, evaluate, tabulate.

    python benchmarks/main_job.py --data DATA --runs runs/main_job --report docs/results.md

Each (dataset, K, seed) is three calls of ``medfewshot``; what is finished is skipped when the script is run again.
Support subjects: ``numpy.random.default_rng(seed).choice(pool, K, replace=False)`` over the support pool; queries: the
whole query set (see ``medfewshot.episodes.FIXED_SPLITS``).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medfewshot.episodes import draw_support, fixed_split
from medfewshot.evaluation import bootstrap_interval


@dataclass(frozen=True)
class Cell:
    """One row of the table before its seeds: dataset, shots, and the options the command line is given."""

    dataset: str
    shots: int
    labels: str | None = None
    modality: str = "MR"
    options: tuple[str, ...] = ()
    """Options of ``medfewshot adapt`` beyond the defaults; they stand in the table."""

    @property
    def name(self) -> str:
        return f"{self.dataset}-k{self.shots}"


CELLS = (
    Cell("Task04_Hippocampus", 5, options=("--budget", "115")),
    Cell("abd-mr-chaos", 1),
    Cell("abd-mr-chaos", 5),
    Cell("card-mr-mscmr", 5),
    Cell("abd-ct-sabs", 5, labels="1,2,3,6", modality="CT", options=("--steps", "2000", "--budget", "600")),
)


@dataclass(frozen=True)
class Finished:
    """Seconds and peak resident memory of one child process."""

    seconds: float
    peak_gb: float


def call(arguments: list[str], log: Path) -> Finished:
    """Run ``medfewshot`` as a person would; stops the benchmark where it fails."""
    begun = time.perf_counter()
    with log.open("w") as stream:
        child = subprocess.Popen([sys.executable, "-m", "medfewshot", *arguments], stdout=stream, stderr=stream)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"medfewshot {' '.join(arguments[:2])} ... ended with {child.returncode}; see {log}")
    return Finished(time.perf_counter() - begun, usage.ru_maxrss / 1024**2)


def run_cell(cell: Cell, seed: int, data: Path, runs: Path, extra: list[str]) -> dict:
    """One (dataset, K, seed): three commands and a record, or the record of an earlier run."""
    folder = runs / f"{cell.name}-s{seed}"
    done = folder / "cell.json"
    if done.is_file():
        return json.loads(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    images = sorted((data / cell.dataset / "imagesTr").glob("*.nii.gz"))
    pool, query = fixed_split(cell.dataset)
    supports = [images[i] for i in draw_support(pool, cell.shots, seed)]
    pairs = [f"{image}={image.parent.parent / 'labelsTr' / image.name}" for image in supports]
    options = ["--seed", str(seed), "--modality", cell.modality, "--device", "cpu", "--quiet", *cell.options, *extra]
    labels = ["--labels", cell.labels] if cell.labels else []
    support_options = [part for pair in pairs for part in ("--support", pair)]
    segmenter, predictions, scores = folder / "segmenter", folder / "predictions", folder / "scores"
    adapt = call(
        ["adapt", "-o", str(segmenter), *support_options, *options, *labels, "--overwrite"], folder / "adapt.log"
    )
    queries = [str(images[i]) for i in query]
    segment = call(
        [
            "segment",
            *queries,
            "--segmenter",
            str(segmenter),
            "-o",
            str(predictions),
            "--device",
            "cpu",
            "--quiet",
            "--overwrite",
            "--no-previews",
        ],
        folder / "segment.log",
    )
    call(
        [
            "evaluate",
            str(predictions),
            "-r",
            str(data / cell.dataset / "labelsTr"),
            "-o",
            str(scores),
            "--quiet",
            *labels,
        ],
        folder / "evaluate.log",
    )
    adaptation = json.loads((segmenter / "segmenter.json").read_text())["record"]
    record = {
        "cell": asdict(cell),
        "seed": seed,
        "supports": [path.name for path in supports],
        "adaptation_seconds": adaptation["seconds"]["adapt"],
        "steps": adaptation["learner"]["steps"],
        "adapt": asdict(adapt),
        "segment": asdict(segment),
        "volumes": len(queries),
        "summary": json.loads((scores / "summary.json").read_text()),
    }
    done.write_text(json.dumps(record, indent=2) + "\n")
    return record


def table(records: list[dict], data: Path, runs: Path) -> str:
    """Markdown: a row per dataset, K and structure, means over the seeds; names from ``dataset.json``."""
    lines = [
        "| dataset | K | structure | Dice [95 % CI] | seeds | HD95 mm | surface Dice, 2 mm | missed | false alarms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        mine = records_of(cell, records)
        if not mine:
            lines.append(f"| {cell.dataset} | {cell.shots} | not run | | | | | | |")
            continue
        names = json.loads((data / cell.dataset / "dataset.json").read_text())["labels"]
        for rows in zip(*(rows_of(record) for record in mine), strict=True):
            dice = [row["dice_mean"] for row in rows]
            low, high = interval(cell, mine, rows[0]["label"], runs)
            cells = (
                cell.dataset,
                cell.shots,
                names.get(str(rows[0]["label"]), rows[0]["label_name"]),
                f"**{np.mean(dice):.3f}** [{low:.3f}, {high:.3f}]",
                " ".join(f"{d:.3f}" for d in dice),
                mean_of(rows, "hd95_mm_mean", 1),
                mean_of(rows, "surface_dice_mean", 3),
                sum(row["missed"] for row in rows),
                sum(row["false_alarms"] for row in rows),
            )
            lines.append("| " + " | ".join(str(part) for part in cells) + " |")
    return "\n".join(lines)


def records_of(cell: Cell, records: list[dict]) -> list[dict]:
    return [r for r in records if r["cell"]["dataset"] == cell.dataset and r["cell"]["shots"] == cell.shots]


def interval(cell: Cell, records: list[dict], label: int | None, runs: Path) -> tuple[float, float]:
    """Bootstrap over query subjects, each with its mean over structures (``label`` None) and all its seeds."""
    values: dict[tuple[str, int], list[float]] = {}
    for record in records:
        with (runs / f"{cell.name}-s{record['seed']}" / "scores" / "scores.csv").open() as stream:
            for row in csv.DictReader(stream):
                if row["dice"] and label in (None, int(row["label"])):
                    values.setdefault((row["subject_id"], record["seed"]), []).append(float(row["dice"]))
    return bootstrap_interval([float(np.mean(v)) for v in values.values()], [subject for subject, _ in values])


def cost_table(records: list[dict]) -> str:
    lines = [
        "| dataset | K | options | seeds | adaptation s | steps | s per volume | peak GB (adapt, segment) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        mine = records_of(cell, records)
        if mine:
            seconds = " ".join(f"{r['adaptation_seconds']:.0f}" for r in mine)
            per_volume = np.mean([r["segment"]["seconds"] / r["volumes"] for r in mine])
            memory = [max(r[part]["peak_gb"] for r in mine) for part in ("adapt", "segment")]
            lines.append(
                f"| {cell.dataset} | {cell.shots} | {' '.join(cell.options) or 'default'} | "
                f"{', '.join(str(r['seed']) for r in mine)} | {seconds} | {' '.join(str(r['steps']) for r in mine)} | "
                f"{per_volume:.1f} | {memory[0]:.1f}, {memory[1]:.1f} |"
            )
    return "\n".join(lines)


def rows_of(record: dict) -> list[dict]:
    return [*record["summary"]["labels"], record["summary"]["all_labels"]]


def mean_of(rows: Sequence[dict], key: str, digits: int) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return f"{np.mean(values):.{digits}f}" if values else "-"


def machine() -> str:
    import torch

    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {os.cpu_count()} cores, {instructions}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDFEWSHOT_DATA", "../shared/data")))
    parser.add_argument("--runs", type=Path, default=Path("runs/main_job"))
    parser.add_argument("--report", type=Path, help="Markdown file whose part between the markers is replaced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="cells by name, e.g. abd-mr-chaos-k5")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="options handed to medfewshot adapt")
    given = parser.parse_args()
    records = []
    for seed in given.seeds:
        for cell in CELLS:
            if given.only and cell.name not in given.only:
                continue
            record = run_cell(cell, seed, given.data, given.runs, given.extra)
            records.append(record)
            overall = rows_of(record)[-1]
            print(
                f"{cell.name} seed {seed}: Dice {overall['dice_mean']:.3f}, {record['adaptation_seconds']:.0f} s",
                flush=True,
            )
    text = f"{table(records, given.data, given.runs)}\n\n{cost_table(records)}\n\nMachine: {machine()}.\n"
    print(text)
    if given.report:
        write_report(given.report, text)


def write_report(path: Path, text: str) -> None:
    begin, end = "<!-- main_job: begin -->", "<!-- main_job: end -->"
    content = path.read_text(encoding="utf-8")
    before, rest = content.split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
