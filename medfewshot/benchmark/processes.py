"""Run each cell in its own process, so that peak memory is measured per cell and a crash costs one cell."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from medfewshot.benchmark.cells import FAILURE, RECORD, REQUEST, Cell
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import one_line
from medfewshot.io import strict_json, write_text
from medfewshot.types import Event, Progress

LOG = "log.txt"
SECONDS_BETWEEN_REPORTS = 0.5
CellRunner = Callable[[Any, Path, Path, str, Progress], None]
"""``run(cell, data, folder, device, progress)`` runs a cell and leaves its record in ``folder``."""


@dataclass(frozen=True)
class ChildProcess:
    """A :data:`CellRunner` that runs the cell in a new Python process and records why it failed, if it did.

    The child has as many threads as OMP_NUM_THREADS says. What it prints is in ``log.txt``.

    Args:
        run: What the child does; it must be importable there.
    """

    run: CellRunner = run_cell

    def __call__(self, cell: Cell, data: Path, folder: Path, device: str, progress: Progress) -> None:
        """Run the cell in a child process and wait for it; if it fails, ``failure.json`` in ``folder`` says why."""
        (folder / FAILURE).unlink(missing_ok=True)
        write_text(folder / REQUEST, strict_json({"id": cell.id, "fingerprint": cell.fingerprint}))
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(self.run, cell, data, folder, device, sender), daemon=True)
        child.start()
        sender.close()  # so that the end of the child ends the pipe
        try:
            while True:
                progress.update(*receiver.recv())
        except EOFError:
            child.join()
        finally:  # also when interrupted
            child.kill()
            child.join()
        code = child.exitcode or 0
        if not (folder / RECORD).is_file() and not (folder / FAILURE).is_file():
            ended = f"was ended by signal {-code}, out of memory perhaps" if code < 0 else f"ended with {code}"
            write_failure(folder, cell, f"its process {ended}; see {LOG}")


def write_failure(folder: Path, cell: Cell, message: str) -> None:
    """Leave ``failure.json``, with ``message`` on one line."""
    content = {"id": cell.id, "fingerprint": cell.fingerprint, "message": " ".join(message.split())}
    write_text(folder / FAILURE, strict_json(content))


def _work(run: CellRunner, cell: Any, data: Path, folder: Path, device: str, sender: connection.Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (folder / LOG).open("w", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    warnings.simplefilter("ignore")  # what torch and MONAI warn developers of
    try:
        run(cell, data, folder, device, _reporter(sender))
    except Exception as error:  # the record names it, and the other cells run
        traceback.print_exc()
        write_failure(folder, cell, one_line(error))


def _reporter(sender: connection.Connection) -> Progress:
    last = 0.0

    def report(event: Event) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            sender.send((event.done, event.total, event.text or event.stage))

    return Progress(report)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, by whatever cause."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
