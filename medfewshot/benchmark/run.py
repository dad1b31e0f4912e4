"""Run cells one after the other; finished cells are not run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medfewshot.benchmark.cells import FAILURE, RECORD, Cell, CellState, read_json, remove_leftovers, state_of
from medfewshot.benchmark.processes import CellRunner, ChildProcess
from medfewshot.errors import InputError
from medfewshot.io import claimed
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
    cells: Sequence[Cell], data: Path, run: Path, device: str = "auto", progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None, *, runner: CellRunner = CHILD,
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

    Raises:
        InputError: ``run`` contains a cell of the same name with other settings. Nothing has run then.
    """
    progress, outcome = progress or Progress(), BenchmarkRun()
    for cell in cells:
        state_of(cell, run)
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
