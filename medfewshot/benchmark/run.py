"""Run cells one after the other; what is done stays done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medfewshot.benchmark.cells import FAILURE, RECORD, AnyCell, CellState, read_json, state_of, tidy
from medfewshot.benchmark.processes import CellRunner, ChildProcess
from medfewshot.errors import InputError
from medfewshot.synthetic import write_blob_dataset
from medfewshot.types import Event, Progress

CHILD = ChildProcess()


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
    cells: Sequence[AnyCell],
    data: Path,
    run: Path,
    device: str = "auto",
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    runner: CellRunner = CHILD,
) -> BenchmarkRun:
    """Run what is not done yet, in the order given; failed cells are tried again.

    Args:
        cells: The cells.
        data: Folder of the datasets; that of made-up ones is ``run / "data"`` (see :func:`prepare_data`).
        run: Run directory.
        device: Where to adapt and segment.
        progress: Receives events.
        tell: Receives a line about every cell that has run.
        runner: Runs one cell.

    Raises:
        InputError: ``run`` contains a cell of the same name with other settings. Nothing has run then.
    """
    progress, outcome = progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
    for number, cell in enumerate(cells):
        progress.update(number, len(cells), cell.id)
        with _claimed(cell.folder(run)) as free:
            if not free:
                outcome.busy.append(cell.id)
            elif state_of(cell, run) is CellState.DONE:
                tidy(cell.folder(run))
                outcome.skipped.append(cell.id)
            else:
                source = run / "data" if cell.dataset.blobs else data
                runner(cell, source, cell.folder(run), device, _part(progress, number, len(cells), cell.id))
                tell(_note(outcome, cell, run))
    progress.update(len(cells), len(cells), "done")
    return outcome


def prepare_data(cells: Sequence[AnyCell], given: str | Path | None, run: Path) -> Path:
    """Make the made-up datasets; the folder of the others: ``given``, else that of MEDFEWSHOT_DATA.

    Raises InputError where a dataset of these cells is not there.
    """
    entries = {cell.dataset.name: cell.dataset for cell in cells}.values()
    for entry in entries:
        if entry.blobs is not None:
            made = entry.blobs
            write_blob_dataset(run / "data" / entry.source, made.cases, made.seed, shape=made.shape, labels=made.labels)
    named = given or os.environ.get("MEDFEWSHOT_DATA")
    needed = [entry for entry in entries if entry.blobs is None]
    if not needed:
        return run / "data"
    if not named:
        raise InputError("where the datasets are is not known; give --data FOLDER or set MEDFEWSHOT_DATA")
    root = Path(named).resolve()
    for entry in needed:
        if not (root / entry.source).is_dir():
            raise InputError(f"{root / entry.source}: does not exist; give --data FOLDER or leave out {entry.name}")
    return root


def _note(outcome: BenchmarkRun, cell: AnyCell, run: Path) -> str:
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
    """The progress of one cell as a part of the whole."""

    def report(event: Event) -> None:
        share = min(0.99, event.done / event.total if event.total else 0)
        progress.update(number + share, total, f"{name}: {event.text or event.stage}")

    return Progress(report, progress.cancelled)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work in ``folder``: several may share a run directory, none runs a cell twice."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such lock on this system
        yield True
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
