"""Run a cell in a process of its own: honest peak memory, and a crash costs one cell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medfewshot.benchmark.cells import FAILURE, RECORD, REQUEST, AnyCell
from medfewshot.bundle import strict_json
from medfewshot.io import write_text
from medfewshot.types import Progress

LOG = "log.txt"


class CellRunner(Protocol):
    """Runs a cell and leaves its record (``cell.json``) or why it failed (``failure.json``) in ``folder``."""

    def __call__(self, cell: AnyCell, data: Path, folder: Path, device: str, progress: Progress) -> None: ...


@dataclass(frozen=True)
class ChildProcess:
    """Runs a cell in a process of its own; it has as many threads as OMP_NUM_THREADS says.

    Args:
        command: Words that start the process; the cell's folder, which contains the request, is added to them.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "medfewshot.benchmark.child")

    def __call__(self, cell: AnyCell, data: Path, folder: Path, device: str, progress: Progress) -> None:
        (folder / FAILURE).unlink(missing_ok=True)
        request = {
            "protocol": cell.protocol,
            "fingerprint": cell.fingerprint,
            "cell": cell.model_dump(mode="json"),
            "data": str(data.resolve()),
            "device": device,
        }
        write_text(folder / REQUEST, strict_json(request))
        words = [*self.command, str(folder.resolve())]
        with (folder / LOG).open("w", encoding="utf-8") as log:
            child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                for line in child.stdout or ():
                    _pass_on(line, progress)
                code = child.wait()
            finally:  # also when interrupted
                end(child)
        if not (folder / RECORD).is_file() and not (folder / FAILURE).is_file():
            ended = f"was ended by signal {-code}, out of memory perhaps" if code < 0 else f"ended with {code}"
            write_failure(folder, cell, f"its process {ended}; see {LOG}")


def write_failure(folder: Path, cell: AnyCell, message: str) -> None:
    """Leave ``failure.json``, with ``message`` on one line."""
    content = {"id": cell.id, "fingerprint": cell.fingerprint, "message": " ".join(message.split())}
    write_text(folder / FAILURE, strict_json(content))


def end(process: subprocess.Popen[str]) -> None:
    """Kill ``process`` if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _pass_on(line: str, progress: Progress) -> None:
    try:
        done, total, text = json.loads(line)
    except ValueError:  # something a library printed
        return
    progress.update(done, total, text)
