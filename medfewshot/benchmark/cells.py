"""List the cells of a benchmark, their folders in the run directory, and their state."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from medfewshot.benchmark.config import ALL, BenchmarkConfig, DatasetEntry, LearnerEntry, Shots
from medfewshot.errors import InputError, some
from medfewshot.learners import find_weights

RECORD, FAILURE, SCORES, REQUEST = "cell.json", "failure.json", "scores.csv", "request.json"
PARTIAL = ("segmenter", "cases", "labels")
"""Folders of a cell that are removed when it is done."""

NEW_SETTINGS = {"frame": None, "ignore": None, "quality": "standard"}
"""Settings of a learner that are younger than the first records, with the value that the records imply."""


class CellState(StrEnum):
    """State of a cell in a run directory."""

    DONE = "done"
    FAILED = "failed"
    BEGUN = "begun"
    NOT_RUN = "not run"


class Cell(BaseModel):
    """One (dataset, learner, K, seed): everything except the machine that determines its result."""

    model_config = ConfigDict(frozen=True)
    protocol: ClassVar[str] = "volume"

    dataset: DatasetEntry
    learner: LearnerEntry
    shots: Shots
    seed: int
    queries: int | None = None
    tolerance_mm: float = 2.0
    pictures: bool = False

    @property
    def id(self) -> str:
        """Name of the cell, e.g. ``abd-mr-chaos/hybrid/k5/s0``."""
        return f"{self.dataset.name}/{self.learner.name}/k{self.shots}/s{self.seed}"

    @property
    def supports(self) -> int:
        """How many scans are learned from."""
        return len(self.dataset.split[0]) if self.shots == ALL else self.shots

    @property
    def fingerprint(self) -> str:
        """Of everything that the scores depend on: not which other datasets a learner runs on, nor what is shown."""
        return fingerprint_of(self, {"learner": ("datasets", "shots"), "dataset": ("distances",), "": ("pictures",)})

    def folder(self, run: Path) -> Path:
        """Folder of the cell in the run directory ``run``."""
        return run / "cells" / self.id


def plan_cells(config: BenchmarkConfig) -> list[Cell]:
    """Return all cells, in the order in which they run: seed, then K, then dataset, then learner."""
    common = {"queries": config.queries, "tolerance_mm": config.tolerance_mm, "pictures": config.pictures}
    return [
        Cell(dataset=dataset, learner=learner, shots=shots, seed=seed, **common)
        for seed, shots, dataset, learner in product(config.seeds, config.shots, config.datasets, config.learners)
        if (learner.datasets is None or dataset.name in learner.datasets)
        and (learner.shots is None or shots in learner.shots)
    ]


def select_cells(
    cells: Iterable[Cell], only: Sequence[str] = (), seeds: Sequence[int] = (), shard: tuple[int, int] | None = None
) -> list[Cell]:
    """Select cells by id, seed and shard.

    Args:
        cells: All cells.
        only: Patterns of ids; empty for all.
        seeds: Seeds; empty for all.
        shard: (i, n) selects every n-th cell, i from 1; None for all.
    """
    cells = list(cells)
    patterns = {one: one if any(sign in one for sign in "*?[") else f"*{one}*" for one in only or ["*"]}
    named = {one: [cell for cell in cells if fnmatchcase(cell.id, pattern)] for one, pattern in patterns.items()}
    idle = [one for one, found in named.items() if not found]
    idle += [f"seed {seed}" for seed in seeds if seed not in {cell.seed for cell in cells}]
    ids = {cell.id for found in named.values() for cell in found}
    chosen = [cell for cell in cells if cell.id in ids and (not seeds or cell.seed in seeds)]
    if idle or not chosen:
        which = some(idle) if idle else "the chosen names and seeds"
        raise InputError(f"no cell matches {which}", "choose others", setting=("only", "seeds"))
    if shard is not None:
        index, count = shard
        if not 1 <= index <= count:
            raise InputError(f"{index}/{count}: is no shard", "give i/n with i from 1 to n", setting="shard")
        chosen = chosen[index - 1 :: count]
    return chosen


def state_of(cell: Cell, run: Path) -> CellState:
    """Return the state of a cell in the run directory ``run``.

    Raises:
        InputError: The folder contains a cell of the same name with other settings.
    """
    folder = cell.folder(run)
    for name, state in ((RECORD, CellState.DONE), (FAILURE, CellState.FAILED), (REQUEST, CellState.BEGUN)):
        if (folder / name).is_file():
            if read_json(folder / name).get("fingerprint") != cell.fingerprint:
                remedy = "choose another run directory or another name, or remove that folder"
                raise InputError(f"{folder}: was run with other settings", remedy, setting="output")
            return state
    return CellState.NOT_RUN


def picture_of(folder: Path, case: str) -> Path:
    """Return where a query's picture is, if it was painted; ``folder`` is the cell's."""
    return folder / "pictures" / f"{case}.webp"


def remove_leftovers(folder: Path) -> None:
    """Remove what a cell that is done needed on its way; it may have been killed before it could do so itself."""
    for name in PARTIAL:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / FAILURE).unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a cell's JSON file.

    Raises:
        InputError: The file is missing, damaged or contains no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged", "remove its folder, and the cell runs again")
    return content


def fingerprint_of(cell: BaseModel, ignored: Mapping[str, Collection[str]]) -> str:
    """Digest of a cell's settings. Weights count by their content, not by their name.

    Args:
        cell: The cell.
        ignored: Part of the cell -> settings in it that do not count; ``""`` for the cell's own.
    """
    content = cell.model_dump(mode="json")
    for part, names in ignored.items():
        for name in names:
            (content[part] if part else content).pop(name, None)
    for name, implied in NEW_SETTINGS.items():
        if name in content["learner"] and content["learner"][name] == implied:
            del content["learner"][name]
    content["learner"]["fast"] = False  # run directories from before ``quality`` have it
    weights = content["learner"].pop("weights")
    if weights is not None:
        content["learner"]["weights"] = weights_digest(weights)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(name: str) -> str:
    """Digest of the tensors in the folder ``name``, or in the package's weights of that name; ``name`` without any."""
    try:
        folder = find_weights(name)
    except InputError:
        folder = Path(name)  # the cell that runs says what is missing
    files = sorted(folder.glob("*.safetensors"))
    digests = [_file_digest(path, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16] if files else name


@cache
def _file_digest(path: Path, changed: int) -> bytes:
    """Read again only if the file has changed: every cell asks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
