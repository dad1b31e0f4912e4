"""The protocols that a benchmark file may name; each brings its settings, its cells and its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfewshot.benchmark.cell import run_cell
from medfewshot.benchmark.cells import Cell, plan_volume_cells
from medfewshot.benchmark.config import BenchmarkConfig, read_benchmark, validate
from medfewshot.benchmark.oracle2d import (
    OracleCell,
    OracleConfig,
    plan_oracle_cells,
    run_oracle_cell,
    write_oracle_report,
)
from medfewshot.benchmark.report import write_volume_report
from medfewshot.errors import InputError

AnyConfig = BenchmarkConfig | OracleConfig


@dataclass(frozen=True)
class BenchmarkProtocol:
    """``plan(config)`` -> cells; ``run(cell, data, folder, device, progress)``; ``report(config, cells, run, folder)``
    -> the page to open."""

    config: Any
    cell: Any
    plan: Callable[[Any], list[Any]]
    run: Callable[..., None]
    report: Callable[[Any, Sequence[Any], Path, Path], Path]


PROTOCOLS: dict[str, BenchmarkProtocol] = {
    "volume": BenchmarkProtocol(BenchmarkConfig, Cell, plan_volume_cells, run_cell, write_volume_report),
    "oracle-2d": BenchmarkProtocol(OracleConfig, OracleCell, plan_oracle_cells, run_oracle_cell, write_oracle_report),
}


def load_benchmark(path: Path) -> AnyConfig:
    """Read and check a benchmark file. Raises InputError naming the file and the setting at fault."""
    content = read_benchmark(path)
    name = content.get("protocol", "volume")
    if name not in PROTOCOLS:
        raise InputError(f"{path}: protocol: {name} is unknown; choose {' or '.join(PROTOCOLS)}")
    return validate(PROTOCOLS[name].config, content, path)


def plan_cells(config: AnyConfig) -> list[Any]:
    """All cells, in the order in which they run."""
    return PROTOCOLS[config.protocol].plan(config)


def write_report(config: AnyConfig, run: Path, folder: Path, cells: Sequence[Any] | None = None) -> Path:
    """Tables and plots of ``cells`` (None: the whole plan), as far as done, in ``folder``; returns the page to open."""
    chosen = plan_cells(config) if cells is None else cells
    return PROTOCOLS[config.protocol].report(config, chosen, run, folder)
