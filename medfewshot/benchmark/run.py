"""Run cells one after the other, or on the nodes of a Ray cluster; finished cells are not run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medfewshot.benchmark.cells import FAILURE, RECORD, Cell, CellState, read_json, remove_leftovers, state_of
from medfewshot.benchmark.processes import CellRunner, ChildProcess
from medfewshot.errors import InputError
from medfewshot.io import claimed
from medfewshot.synthetic import write_blob_dataset
from medfewshot.types import Event, Progress
from medfewshot.workers import Lost, RayCluster

CHILD = ChildProcess()
Log = Callable[[str], None]


@dataclass
class BenchmarkRun:
    """Ids of the cells by what became of them; ``failed`` with their messages."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Finished by an earlier run."""
    busy: list[str] = field(default_factory=list)
    """Being run by another process in the same run directory."""
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: BenchmarkRun) -> None:
        """Add what became of other cells."""
        self.done += other.done
        self.skipped += other.skipped
        self.busy += other.busy
        self.failed |= other.failed


def run_benchmark(
    cells: Sequence[Cell], data: Path, run: Path, device: str = "auto", progress: Progress | None = None,
    log: Log = lambda line: None, *, runner: CellRunner = CHILD, cluster: RayCluster | None = None,
) -> BenchmarkRun:  # fmt: skip
    """Run what is not done yet, in the order given; failed cells are tried again.

    Args:
        cells: The cells.
        data: Folder of the datasets; synthetic ones are in ``run / "data"`` (see :func:`prepare_data`).
        run: Run directory.
        device: Where to adapt and segment.
        progress: Receives events.
        log: Receives a line about every cell that has run.
        runner: Runs one cell.
        cluster: Runs several cells at a time, on nodes that all see ``run`` and ``data`` under these paths. If a node
            is lost, its cell has used one attempt and Ray runs it again on another node. None for this machine.

    Raises:
        InputError: ``run`` contains a cell of the same name with other settings, and nothing has run; or the cluster
            cannot be used.
    """
    progress, outcome = progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
    if cluster is not None:
        return _run_on_nodes(cells, data.resolve(), run.resolve(), device, progress, log, runner, cluster)
    for number, cell in enumerate(cells):
        progress.update(number, len(cells), cell.id)
        with claimed(cell.folder(run)) as free:
            if not free:
                outcome.busy.append(cell.id)
            elif state_of(cell, run) is CellState.DONE:
                remove_leftovers(cell.folder(run))
                outcome.skipped.append(cell.id)
            else:
                source = run / "data" if cell.dataset.blobs else data
                runner(cell, source, cell.folder(run), device, _part(progress, number, len(cells), cell.id))
                log(_note(outcome, cell, run))
    progress.update(len(cells), len(cells), "done")
    return outcome


def _run_on_nodes(
    cells: Sequence[Cell], data: Path, run: Path, device: str, progress: Progress, log: Log, runner: CellRunner,
    cluster: RayCluster,
) -> BenchmarkRun:  # fmt: skip
    outcome = BenchmarkRun()
    run.mkdir(parents=True, exist_ok=True)
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
) -> tuple[BenchmarkRun, list[str]]:
    """Run one cell on its node; returns what became of it, and the lines for the user."""
    if not run.is_dir():
        return _failed(cell, f"{run}: is not there on the node that was to run it; use a folder that all nodes share")
    lines: list[str] = []
    return run_benchmark([cell], data, run, device, progress, log=lines.append, runner=runner), lines


def _failed(cell: Cell, message: str) -> tuple[BenchmarkRun, list[str]]:
    return BenchmarkRun(failed={cell.id: message}), [f"{cell.id}: failed: {message}"]


def prepare_data(cells: Sequence[Cell], given: str | Path | None, run: Path) -> Path:
    """Make the synthetic datasets of these cells in ``run``, and find the others.

    Args:
        cells: The cells.
        given: Folder of the datasets; None for the one in MEDFEWSHOT_DATA.
        run: Run directory.

    Returns:
        The folder of the datasets.

    Raises:
        InputError: A dataset is not there, or ``run`` contains a cell of the same name with other settings.
    """
    needed = []
    for cell in cells:
        state_of(cell, run)
    for entry in {cell.dataset.name: cell.dataset for cell in cells}.values():
        if entry.blobs is None:
            needed.append(entry)
        else:
            write_blob_dataset(run / "data" / entry.source, **entry.blobs.model_dump())
    if not needed:
        return run / "data"
    named = given or os.environ.get("MEDFEWSHOT_DATA")
    if not named:
        raise InputError("the folder of the datasets is unknown", "give it or set MEDFEWSHOT_DATA", setting="data")
    root = Path(named).resolve()
    for entry in needed:
        if not (root / entry.source).is_dir():
            remedy = f"give the folder of the datasets, or choose cells without {entry.name}"
            raise InputError(f"{root / entry.source}: does not exist", remedy, setting="data")
    return root


def outdated(cells: Sequence[Cell], data: Path, run: Path) -> list[str]:
    """Return the ids of finished cells with a data set in which a file has changed since."""
    newest: dict[str, float] = {}
    for name in {cell.dataset.source for cell in cells if cell.dataset.blobs is None}:
        newest[name] = max((path.stat().st_mtime for path in (data / name).rglob("*") if path.is_file()), default=0)
    return [c.id for c in cells if (c.folder(run) / RECORD).stat().st_mtime < newest.get(c.dataset.source, 0)]


def _note(outcome: BenchmarkRun, cell: Cell, run: Path) -> str:
    """Enter what became of a cell; a line that says it."""
    if state_of(cell, run) is not CellState.DONE:
        outcome.failed[cell.id] = str(read_json(cell.folder(run) / FAILURE)["message"])
        return f"{cell.id}: failed: {outcome.failed[cell.id]}"
    outcome.done.append(cell.id)
    record = read_json(cell.folder(run) / RECORD)
    dice = "undefined" if record["dice"] is None else f"{record['dice']:.3f}"
    adapt, query = record["seconds"]["adapt"], record["seconds_per_query"]
    return f"{cell.id}: Dice {dice}, adapted in {adapt:.1f} s, {query:.2f} s per query"


def _part(progress: Progress, number: int, total: int, name: str) -> Progress:
    """Return the progress of one cell as a part of the whole."""

    def report(event: Event) -> None:
        share = min(0.99, event.done / event.total if event.total else 0)
        progress.update(number + share, total, f"{name}: {event.text or event.stage}")

    return Progress(report, progress.cancelled)
