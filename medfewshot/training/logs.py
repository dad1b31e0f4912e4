"""What a run reports on disk: one CSV for training, one for validation, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medfewshot.io import write_text

TRAINING, VALIDATION = "training.csv", "validation.csv"


class Logs:
    """Appends rows; on resume, rows after ``step`` are dropped, because they will be written again."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (TRAINING, VALIDATION):
            _drop_rows_after(folder / name, step)
        self._board = _tensorboard(folder / "tensorboard", step)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """``row`` begins with ``step``; every row of a file has the same columns."""
        path, text = self.folder / name, io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if path.is_file():
            writer.writerow(row)
            with path.open("a", newline="", encoding="utf-8") as file:
                file.write(text.getvalue())  # one call to the system: a kill leaves whole rows
        else:
            writer.writeheader()
            writer.writerow(row)
            write_text(path, text.getvalue())
        if self._board is not None:
            for key, value in row.items():
                if key != "step":
                    self._board.add_scalar(f"{Path(name).stem}/{key}", value, row["step"])

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log; none where there is no file. A row cut off in the middle is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if None not in row and None not in row.values()]
    return [{key: float(value) for key, value in row.items()} for row in whole]


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if not header.endswith("\n"):  # cut off before the first row
        path.unlink()
        return
    whole = [line for line in lines if line.endswith("\n") and line.count(",") == header.count(",")]
    write_text(path, "".join([header, *(line for line in whole if int(line.split(",")[0]) <= step)]))


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
