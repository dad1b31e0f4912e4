"""The process of one cell: ``python -m medfewshot.benchmark.child FOLDER``. Started by ``processes``.

``FOLDER/request.json`` says what to do. Progress goes to standard output, one JSON list ``[done, total, text]`` a line;
the process ends itself when its standard input closes, so that it does not outlive a benchmark that was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medfewshot.benchmark.cell import run_cell
from medfewshot.benchmark.cells import REQUEST, Cell, read_json
from medfewshot.benchmark.processes import write_failure
from medfewshot.errors import InputError
from medfewshot.types import Event, Progress

SECONDS_BETWEEN_REPORTS = 0.5
PROTOCOLS: Mapping[str, tuple[Any, Callable[..., None]]] = {Cell.protocol: (Cell, run_cell)}
PARENT_GONE = 3
"""Exit code where nobody is left to report to."""


def main(folder: Path, protocols: Mapping[str, tuple[Any, Callable[..., None]]] = PROTOCOLS) -> int:
    """Run the cell that ``folder`` asks for.

    Args:
        folder: Folder of the cell.
        protocols: Protocol -> class of its cells and ``run(cell, data, folder, device, progress)``.

    Returns:
        The exit code: 1 if the cell failed, which ``failure.json`` explains.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = read_json(folder / REQUEST)
    kind, run = protocols[request["protocol"]]
    cell = kind.model_validate(request["cell"])
    warnings.simplefilter("ignore")  # what torch and MONAI warn developers of
    try:
        run(cell, Path(request["data"]), folder, request["device"], _reporter())
    except InputError as error:
        write_failure(folder, cell, str(error))
        return 1
    except Exception as error:  # the record names it, and the other cells run
        traceback.print_exc()
        write_failure(folder, cell, f"{type(error).__name__}: {error}")
        return 1
    return 0


def _reporter() -> Progress:
    last = 0.0

    def report(event: Event) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            try:
                print(json.dumps([event.done, event.total, event.text or event.stage]), flush=True)
            except BrokenPipeError:
                os._exit(PARENT_GONE)

    return Progress(report)


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock a waiting thread would keep when the interpreter ends
        pass
    os._exit(PARENT_GONE)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
