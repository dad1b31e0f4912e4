"""The process of one cell: ``python -m medfewshot.benchmark.child FOLDER``. Not for people; see ``run``.

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
from pathlib import Path

from medfewshot.benchmark.cells import FAILURE, REQUEST, AnyCell, read_json
from medfewshot.benchmark.protocols import PROTOCOLS
from medfewshot.bundle import strict_json
from medfewshot.errors import InputError
from medfewshot.io import write_text
from medfewshot.types import Event, Progress

SECONDS_BETWEEN_REPORTS = 0.5
PARENT_GONE = 3
"""Exit code where nobody is left to report to."""


def main(folder: Path) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = read_json(folder / REQUEST)
    protocol = PROTOCOLS[request["protocol"]]
    cell = protocol.cell.model_validate(request["cell"])
    warnings.simplefilter("ignore")  # what torch and MONAI warn developers of
    try:
        protocol.run(cell, Path(request["data"]), folder, request["device"], _reporter())
    except InputError as error:
        write_failure(folder, cell, str(error))
        return 1
    except Exception as error:  # whatever ends one cell, the record says it and the others get their turn
        traceback.print_exc()
        write_failure(folder, cell, f"{type(error).__name__}: {error}")
        return 1
    return 0


def write_failure(folder: Path, cell: AnyCell, message: str) -> None:
    content = {"id": cell.id, "fingerprint": cell.fingerprint, "message": " ".join(message.split())}
    write_text(folder / FAILURE, strict_json(content))


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
