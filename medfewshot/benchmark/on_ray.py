"""The cells of a benchmark on the nodes of a Ray cluster (Moritz et al. 2018). Needs the extra ``ray``.

A task is one cell, run on its node as anywhere else: in a process of its own, claimed by a lock, resumed from its
folder. The run directory and the datasets must lie on a file system that all nodes share, under the same paths, and
every node needs this package. Ray pickles what it sends between nodes: join none but your own cluster.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfewshot.benchmark.cells import AnyCell, state_of
from medfewshot.benchmark.processes import CellRunner
from medfewshot.benchmark.run import CHILD, BenchmarkRun, run_benchmark
from medfewshot.errors import InputError
from medfewshot.types import Progress


@dataclass(frozen=True)
class RayOptions:
    address: str = "local"
    """``local`` starts Ray on this machine, ``auto`` finds the cluster that this one belongs to; or ``HOST:PORT``."""
    cpus: float = 1
    """Cores that a cell takes; Ray sets its OMP_NUM_THREADS to it."""
    gpus: float = 0


def run_on_ray(
    cells: Sequence[AnyCell],
    data: Path,
    run: Path,
    device: str = "auto",
    options: RayOptions | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    runner: CellRunner = CHILD,
) -> BenchmarkRun:
    """As :func:`~medfewshot.benchmark.run.run_benchmark`, several cells at a time, begun in the order given.

    A node that is lost costs one attempt; Ray runs its cell again on another node.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or ``run`` contains a cell of the same name with
            other settings.
    """
    options, progress, outcome = options or RayOptions(), progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
    run.mkdir(parents=True, exist_ok=True)
    with _cluster(options) as ray:
        task = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus)(run_one)
        where = str(data.resolve()), str(run.resolve())
        waiting = {task.remote(cell, *where, device, runner): cell for cell in cells}
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
                tell(line)
            progress.update(len(cells) - len(waiting), len(cells), cell.id)
    return outcome


def run_one(
    cell: AnyCell, data: str, run: str, device: str, runner: CellRunner = CHILD
) -> tuple[BenchmarkRun, list[str]]:
    """Run one cell on its node; returns what became of it and the lines for the user."""
    if not Path(run).is_dir():
        return _failed(cell, f"{run}: is not there on the node that was to run it; use a folder that all nodes share")
    lines: list[str] = []
    return run_benchmark([cell], Path(data), Path(run), device, tell=lines.append, runner=runner), lines


def _failed(cell: AnyCell, message: str) -> tuple[BenchmarkRun, list[str]]:
    return BenchmarkRun(failed={cell.id: message}), [f"{cell.id}: failed: {message}"]


@contextmanager
def _cluster(options: RayOptions) -> Iterator[Any]:
    """Ray, connected; a connection that was there before is used and left as it is."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise InputError("--ray: Ray is not installed; pip install 'medfewshot[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    settings = {"include_dashboard": False} if options.address == "local" else {}
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--ray {options.address}: no such cluster ({reason}); try --ray local") from None
    try:
        yield ray
    finally:
        ray.shutdown()
