"""Does a change make segmentation faster and leave the labels as they were? Support-pool subjects alone.

    python -m lab.studies.scan_seconds prepare --data ../shared/data runs/seconds      # adapts once, minutes a cell
    git worktree add ../old COMMIT
    python -m lab.studies.scan_seconds measure --data ../shared/data runs/seconds --old ../old

Two processes, one with the old code and one with this, take turns at each scan on one core. The table has processor
seconds a scan (old, new, ratio of sums), the Dice of new with old labels (mean and lowest structure), and the mean Dice
of both with the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CELLS = {
    "chaos": ("abd-mr-chaos", None),
    "hippocampus": ("Task04_Hippocampus", None),
    "sabs4": ("abd-ct-sabs", "1,2,3,6"),
    "sabs13": ("abd-ct-sabs", None),
    "mscmr": ("card-mr-mscmr", None),
}
SHOTS = (1, 5)


def cases_of(data: Path, cell: str, shots: int, count: int) -> tuple[list[Any], list[Any]]:
    """Return the supports of the first draw, and ``count`` other subjects of the pool."""
    from medfewshot.datasets import read_dataset
    from medfewshot.episodes import draw_support, fixed_split

    name = CELLS[cell][0]
    cases = read_dataset(data / name).labelled
    pool = list(fixed_split(name)[0])
    chosen = draw_support(pool, shots, 0)
    rest = [number for number in pool if number not in chosen][:count]
    return [cases[number] for number in chosen], [cases[number] for number in rest]


def prepare(given: argparse.Namespace) -> None:
    """Adapt a segmenter for each cell."""
    from medfewshot.settings import AdaptSettings
    from medfewshot.workflow import adapt, read_supports

    for cell in given.cells:
        for shots in SHOTS:
            folder = given.folder / f"{cell}{shots}"
            if folder.exists():
                continue
            settings = AdaptSettings(
                labels=CELLS[cell][1], budget_seconds=None, device="cpu", steps=given.steps, weights=given.weights
            )
            begun = time.process_time()
            segmenter = adapt(read_supports(cases_of(given.data, cell, shots, 0)[0]), settings)
            segmenter.save(folder)
            print(folder, round(time.process_time() - begun), "s of the processor", flush=True)


def work(given: argparse.Namespace) -> None:
    """Segment the scans whose paths come in, one JSON list a line, and answer with the seconds."""
    import torch

    from medfewshot.bundle import load_segmenter
    from medfewshot.io import read_image

    torch.set_num_threads(1)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not write into the answers
    loaded: dict[str, Any] = {}
    for line in sys.stdin:
        folder, image, result = json.loads(line)
        if folder not in loaded:
            loaded = {folder: load_segmenter(Path(folder))}
        volume = read_image([Path(path) for path in image])
        begun = time.process_time()
        found = loaded[folder].segment(volume)
        seconds = time.process_time() - begun
        np.savez_compressed(result, labels=found.labels)
        print(json.dumps({"seconds": seconds, "stages": found.seconds}), file=answer, flush=True)


def measure(given: argparse.Namespace) -> None:
    """Print a table of old and new code, taking turns."""
    workers = [start_worker(folder) for folder in (given.old, Path.cwd())]
    print("| cell | scans | old, s | new, s | ratio | same labels (mean, lowest) | Dice old | Dice new |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for cell in given.cells:
        for shots in SHOTS:
            folder = given.folder / f"{cell}{shots}"
            if folder.exists():
                print(row(cell, shots, list(compared(workers, folder, given, cell, shots))), flush=True)
    for worker in workers:
        worker.communicate("")


def start_worker(code: Path) -> subprocess.Popen[str]:
    """Start a process that segments with the code of one checkout."""
    environment = os.environ | {"PYTHONPATH": str(code.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "work", "-"]
    return subprocess.Popen(
        command, cwd=code, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def compared(
    workers: list[subprocess.Popen[str]], folder: Path, given: argparse.Namespace, cell: str, shots: int
) -> Iterator[dict[str, Any]]:
    """Yield per scan the seconds of both, and the Dice of each structure: new with old, old and new with reference."""
    from medfewshot.io import read_label
    from medfewshot.structures import dice

    for number, case in enumerate(cases_of(given.data, cell, shots, given.scans)[1]):
        seconds, labels = [0.0, 0.0], []
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            result = given.folder.resolve() / f"{which}.npz"
            line = json.dumps([str(folder.resolve()), [str(path) for path in case.image_paths], str(result)])
            stdin, stdout = workers[which].stdin, workers[which].stdout
            assert stdin
            assert stdout
            print(line, file=stdin, flush=True)
            seconds[which] = json.loads(stdout.readline())["seconds"]
        labels = [np.load(given.folder / f"{which}.npz")["labels"] for which in (0, 1)]
        truth = read_label(case.label_path).data[0]
        values = [value for value in np.unique(labels[0]) if value]
        yield {
            "seconds": seconds,
            "same": [dice(labels[0] == value, labels[1] == value) for value in values],
            "dice": [
                np.mean([dice(one == value, truth == value) for value in values if (truth == value).any()])
                for one in labels
            ],
        }


def row(cell: str, shots: int, scans: list[dict[str, Any]]) -> str:
    """Return one row of the table."""
    old, new = np.mean([scan["seconds"] for scan in scans], axis=0)
    same = np.concatenate([scan["same"] for scan in scans])
    before, after = np.mean([scan["dice"] for scan in scans], axis=0)
    shown = (
        f"{old:.1f} | {new:.1f} | {new / old:.2f} | {same.mean():.4f}, {same.min():.3f} | {before:.4f} | {after:.4f}"
    )
    return f"| {cell}, K={shots} | {len(scans)} | {shown} |"


def main() -> None:
    """Prepare the segmenters, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["prepare", "measure", "work"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--old", type=Path, help="checkout of the old code")
    parser.add_argument("--cells", nargs="*", default=list(CELLS))
    parser.add_argument("--scans", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--weights", default="auto")
    given = parser.parse_args()
    {"prepare": prepare, "measure": measure, "work": work}[given.job](given)


if __name__ == "__main__":
    main()
