"""Run the cells of a benchmark on the nodes of a Ray cluster. Needs the extra ``ray``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from medfewshot.benchmark.cells import Cell, state_of
from medfewshot.benchmark.processes import CellRunner
from medfewshot.benchmark.run import CHILD, BenchmarkRun, run_benchmark
from medfewshot.types import Progress
from medfewshot.workers import Lost, RayCluster

Outcome = tuple[BenchmarkRun, list[str]]
"""What became of a cell, and the lines for the user."""


def run_on_ray(
    cells: Sequence[Cell], data: Path, run: Path, device: str = "auto", progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None, *, runner: CellRunner = CHILD, cluster: RayCluster,
) -> BenchmarkRun:  # fmt: skip
    """Run cells on a Ray cluster, several at a time, in the order given.

    Otherwise like :func:`~medfewshot.benchmark.run.run_benchmark`. All nodes must see ``run`` and ``data`` under these
    paths; ``cluster`` has the cores and GPUs of a cell. If a node is lost, its cell has used one attempt and Ray runs
    it again on another node.

    Raises:
        InputError: The cluster cannot be used, or ``run`` contains a cell of the same name with other settings.
    """
    progress, outcome = progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
    run.mkdir(parents=True, exist_ok=True)
    data, run = data.resolve(), run.resolve()
    work = partial(run_one, data=data, run=run, device=device, runner=runner)
    progress.update(0, len(cells), "waiting for nodes")
    with cluster.ready(data, results=run), closing(cluster.run(work, cells, progress)) as results:
        for done, (number, result) in enumerate(results, start=1):
            cell = cells[number]
            found, lines = _failed(cell, result.reason) if isinstance(result, Lost) else result
            outcome.add(found)
            for line in lines:
                log(line)
            progress.update(done, len(cells), cell.id)
    return outcome


def run_one(
    cell: Cell, progress: Progress | None = None, *, data: Path, run: Path, device: str, runner: CellRunner = CHILD
) -> Outcome:
    """Run one cell on its node."""
    if not run.is_dir():
        return _failed(cell, f"{run}: is not there on the node that was to run it; use a folder that all nodes share")
    lines: list[str] = []
    return run_benchmark([cell], data, run, device, progress, log=lines.append, runner=runner), lines


def _failed(cell: Cell, message: str) -> Outcome:
    return BenchmarkRun(failed={cell.id: message}), [f"{cell.id}: failed: {message}"]
