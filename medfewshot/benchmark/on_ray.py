"""Run the cells of a benchmark on the nodes of a Ray cluster. Needs the extra ``ray``.

References:
    Moritz et al. 2018, "Ray: A distributed framework for emerging AI applications".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medfewshot.benchmark.cells import Cell, state_of
from medfewshot.benchmark.processes import CellRunner
from medfewshot.benchmark.run import CHILD, BenchmarkRun, run_benchmark
from medfewshot.errors import InputError
from medfewshot.types import Progress

Outcome = tuple[BenchmarkRun, list[str]]
"""What became of a cell, and the lines for the user."""


def run_on_ray(
    cells: Sequence[Cell],
    data: Path,
    run: Path,
    device: str = "auto",
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
    *,
    runner: CellRunner = CHILD,
    address: str = "local",
    cpus: float = 1,
    gpus: float = 0,
) -> BenchmarkRun:
    """Run cells on a Ray cluster, several at a time, in the order given.

    Otherwise like :func:`~medfewshot.benchmark.run.run_benchmark`. If a node is lost, its cell has used one
    attempt and Ray runs it again on another node.

    Args:
        cells: Cells to run.
        data: Directory of the data sets.
        run: Run directory. All nodes must see it and ``data`` under these paths.
        device: Device of each cell.
        progress: Receives the number of finished cells; may cancel.
        log: Receives lines for the user.
        runner: Runs one cell on its node.
        address: ``local`` starts Ray on this machine, ``auto`` finds the cluster of this machine; or ``HOST:PORT``.
        cpus: Cores of a cell; Ray sets its OMP_NUM_THREADS to it.
        gpus: GPUs of a cell.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or ``run`` contains a cell of the same name with
            other settings.
    """
    progress, outcome = progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
    run.mkdir(parents=True, exist_ok=True)
    with _cluster(address) as ray:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus)(run_one)
        waiting = {task.remote(cell, data.resolve(), run.resolve(), device, runner): cell for cell in cells}
        progress.update(0, len(cells), "waiting for nodes")
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(ready)
            try:
                found, lines = ray.get(ready)
            except ray.exceptions.RayError as error:  # the node is lost, or it has another version of this package
                found, lines = _failed(cell, str(error).strip().splitlines()[-1])
            outcome.add(found)
            for line in lines:
                log(line)
            progress.update(len(cells) - len(waiting), len(cells), cell.id)
    return outcome


def run_one(cell: Cell, data: Path, run: Path, device: str, runner: CellRunner = CHILD) -> Outcome:
    """Run one cell on its node."""
    if not run.is_dir():
        return _failed(cell, f"{run}: is not there on the node that was to run it; use a folder that all nodes share")
    lines: list[str] = []
    return run_benchmark([cell], data, run, device, log=lines.append, runner=runner), lines


def _failed(cell: Cell, message: str) -> Outcome:
    return BenchmarkRun(failed={cell.id: message}), [f"{cell.id}: failed: {message}"]


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected; a connection that was there before is used and left as it is."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise InputError("Ray is not installed", "pip install 'medfewshot[ray]'", setting="ray") from None
    if ray.is_initialized():
        yield ray
        return
    settings = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{address}: no such cluster ({reason})", "try local", setting="ray") from None
    try:
        yield ray
    finally:
        ray.shutdown()
