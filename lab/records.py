"""Records of finished benchmark cells as two CSV tables per protocol: ``cells`` and ``scores``.

    python -m lab.records runs/meta            # add the finished cells of a run directory to the records

``cells.csv`` has one row per cell (settings, supports, seconds, memory, versions), ``scores.csv`` one row per query
volume and structure. Both begin with the columns that name the cell. A dot in a column is a level of ``cell.json``;
lists and free-form objects are JSON. Values are never rounded: :func:`read_records` returns what the run directory had,
except the folders of files in warnings.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
KEYS = {
    "volume": ("cell.dataset.name", "cell.learner.name", "cell.shots", "cell.seed"),
    "oracle-2d": ("cell.dataset.name", "cell.learner.name", "cell.fold", "cell.seed"),
}
"""Protocol -> paths in ``cell.json`` that name a cell within a run."""
FREE = ("weights_have_seen", "learner", "labels", "absent", "cell.dataset.labels", "cell.dataset.blobs")
"""Objects whose keys differ from cell to cell: one column of JSON each."""
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^/\\\s]+)+[/\\](?=[^/\\\s])")
"""Folders in an absolute path."""


@dataclass(frozen=True)
class Record:
    """A finished cell of a benchmark run.

    Attributes:
        run: Name of the run.
        content: Content of ``cell.json``.
        scores: Rows of ``scores.csv``.
    """

    run: str
    content: Mapping[str, Any]
    scores: Sequence[Mapping[str, str]]

    @property
    def id(self) -> str:
        """Name of the cell."""
        return str(self.content["id"])


def read_run(folder: Path) -> list[Record]:
    """Read the finished cells of a run directory."""
    records = []
    for path in sorted(folder.rglob("cell.json")):
        with path.with_name("scores.csv").open(encoding="utf-8", newline="") as stream:
            scores = list(csv.DictReader(stream))
        records.append(Record(folder.name, json.loads(path.read_text(encoding="utf-8")), scores))
    return records


def read_records(protocol: str, root: Path = RECORDS) -> list[Record]:
    """Read all records of ``protocol`` ("volume" or "oracle-2d")."""
    keys = [_short(path) for path in ("run", *KEYS[protocol])]
    scores: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in _read(root / protocol / "scores.csv"):
        key = tuple(row.pop(name) for name in keys)
        scores.setdefault(key, []).append(row)
    records = []
    for row in _read(root / protocol / "cells.csv"):
        key = tuple(row[name] for name in keys)
        del row["run"]
        records.append(Record(key[0], _nested(row, protocol), scores.get(key, [])))
    return records


def write_records(records: Iterable[Record], protocol: str, root: Path = RECORDS) -> None:
    """Replace the tables of ``protocol``; rows are sorted by the columns that name a cell."""
    chosen = sorted(records, key=lambda record: (record.run, record.id))
    cells, scores = [], []
    for record in chosen:
        warnings = [_FOLDERS.sub("", text) for text in record.content.get("warnings", ())]
        content = {**record.content, "warnings": warnings} if warnings else record.content
        flat = {_short(path): _text(value) for path, value in _flat(content)}
        names = {_short(path): flat.pop(_short(path)) for path in KEYS[protocol]}
        key = {"run": record.run, **names}
        cells.append({**key, **{name: text for name, text in flat.items() if name not in ("id", "protocol")}})
        scores += [{**key, **row} for row in record.scores]
    (root / protocol).mkdir(parents=True, exist_ok=True)
    _write(root / protocol / "cells.csv", cells)
    _write(root / protocol / "scores.csv", scores)


def _short(path: str) -> str:
    """Return the column of a path: names of the cell lose their prefix, what the learner recorded is ``adaptation``."""
    named = {"learner": "adaptation", "cell.dataset.name": "dataset", "cell.learner.name": "learner"}
    named |= {f"cell.{name}": name for name in ("shots", "fold", "seed")}
    return named.get(path, path)


def _long(column: str, protocol: str) -> str:
    return {_short(path): path for path in ("learner", *KEYS[protocol])}.get(column, column)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in FREE:
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def _nested(row: Mapping[str, str], protocol: str) -> dict[str, Any]:
    content: dict[str, Any] = {"protocol": protocol}
    for column, text in row.items():
        if text == "":  # this cell has no such entry
            continue
        *parents, last = _long(column, protocol).split(".")
        place = content
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = _value(text)
    cell = content["cell"]
    number = f"k{cell['shots']}" if protocol == "volume" else f"f{cell['fold']}"
    content["id"] = f"{cell['dataset']['name']}/{cell['learner']['name']}/{number}/s{cell['seed']}"
    return content


def _text(value: Any) -> str:
    """JSON without quotes around a text, unless the bare text would read as something else."""
    if isinstance(value, str) and value and _value(value) is value:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Add the finished cells of run directories to the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of a benchmark")
    found = [record for run in parser.parse_args().runs for record in read_run(run)]
    for protocol in KEYS:
        new = {(r.run, r.id): r for r in found if r.content["protocol"] == protocol}
        if new:
            old = read_records(protocol) if (RECORDS / protocol).is_dir() else []
            write_records({**{(r.run, r.id): r for r in old}, **new}.values(), protocol)
            print(f"{protocol}: {len(new)} cells added or replaced")


if __name__ == "__main__":
    main()
