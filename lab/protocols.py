"""The protocols of the laboratory: ``volume`` with peers, and ``oracle-2d``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.oracle2d import OracleCell, OracleConfig, plan_oracle_cells, run_oracle_cell, write_oracle_report
from lab.peers import SCAN_PEERS, known_learners
from lab.peers.cells import adapt_any
from medfewshot.benchmark import Cell, load_benchmark, plan_cells, write_report
from medfewshot.benchmark.config import check_learners, validate
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings, read_yaml


@dataclass(frozen=True)
class Protocol:
    """Functions of one benchmark protocol.

    Attributes:
        cell: Type of its cells.
        load: ``load(path)`` reads a configuration file.
        plan: ``plan(config)`` lists the cells.
        run: ``run(cell, data, folder, device, progress)`` runs one cell.
        report: ``report(config, run, folder, cells)`` writes the report and returns the page to open.
    """

    cell: type[Any]
    load: Callable[[Path], Any]
    plan: Callable[[Any], list[Any]]
    run: Callable[..., None]
    report: Callable[[Any, Path, Path, Sequence[Any] | None], Path]


def load_volume(path: Path) -> Any:
    """Read a file of the protocol ``volume``, which may name peers.

    Raises:
        InputError: A setting is wrong; names the file and the setting.
    """
    config = load_benchmark(path, learners=known_learners())
    for entry in config.learners:
        made = entry.settings
        foreign = [name for name in ("spacing_mm", "patch_voxels", "weights") if made.model_dump()[name]]
        foreign += ["quality"] if made.quality != AdaptSettings().quality else []
        if made.learner in SCAN_PEERS and foreign:
            where = f"{path}: learners: {entry.name}"
            raise InputError(f"{where}: {made.learner} plans for itself, without {', '.join(foreign)}", "remove it")
    return config


def load_oracle(path: Path) -> OracleConfig:
    """Read a file of the protocol ``oracle-2d``.

    Raises:
        InputError: A setting is wrong; names the file and the setting.
    """
    config = validate(OracleConfig, read_yaml(path), path)
    check_learners(config.learners, known_learners(), path)
    return config


PROTOCOLS = {
    "volume": Protocol(Cell, load_volume, plan_cells, partial(run_cell, adapt=adapt_any), write_report),
    "oracle-2d": Protocol(OracleCell, load_oracle, plan_oracle_cells, run_oracle_cell, write_oracle_report),
}


def protocol_of(path: Path) -> Protocol:
    """Return the protocol that a benchmark file names.

    Raises:
        InputError: There is none.
    """
    name = read_yaml(path).get("protocol", "volume")
    if name not in PROTOCOLS:
        raise InputError(f"{path}: protocol: {name} is unknown", f"choose {' or '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
