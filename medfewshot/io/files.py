"""Files that are either whole or absent, and strict JSON for them."""

from __future__ import annotations

import csv
import json
import math
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from medfewshot.io.paths import PathLike, suffix_of


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``: renamed to ``path`` if the block ends well, else removed.

    It has the same suffix, so that writers choose the same format, and a hidden name, because it is not whole yet.
    The umask decides who may read the file, as for any new file: safetensors 0.8 would hide its own from all others.

    Raises:
        OSError: Names ``path``, which cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{suffix_of(path)}")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        temporary.unlink()
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            with suppress(PermissionError, NotImplementedError):  # a file system without such modes
                temporary.chmod(mode)
        move_into_place(temporary, path)
    except OSError as error:
        # The name of the temporary file means nothing to the user.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # on a read-only disk, even if there is no such file
            temporary.unlink()


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Yield whether no other process works in ``folder``, and keep others out meanwhile.

    It is free if the system has no such locks, or if nothing can be written there.
    """
    with ExitStack() as stack:
        free = True
        with suppress(ImportError, OSError):
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            else:
                stack.callback((folder / ".lock").unlink, missing_ok=True)
        yield free


def move_into_place(
    temporary: Path,
    path: Path,
    *,
    replace: Callable[[Path, Path], None] | None = None,
    pauses_s: Sequence[float] = (0.1, 0.5),
) -> None:
    """Rename ``temporary`` to ``path``; try again after pauses.

    On Windows and on network drives, a virus scanner or an indexer may have a new file open for a moment.

    Raises:
        OSError: It still fails after the last pause, or for another reason than permission.
    """
    replace = replace or os.replace
    for pause in pauses_s:
        try:
            replace(temporary, path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    replace(temporary, path)


def write_text(path: PathLike, text: str) -> None:
    """Write UTF-8 with the line ends as given. The file appears whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def strict_json(content: Any) -> str:
    """Format ``content`` as strict JSON: undefined numbers become null; paths and other objects become text."""
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def write_csv(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows with a header. The columns are in the order in which they first appear; None is an empty cell.

    The file appears whole or not at all.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)
