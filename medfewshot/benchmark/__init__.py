"""The benchmark: datasets x learners x shots x seeds under the ``volume`` protocol, and its tables.

``volume`` protocol: whole query volumes on their original grid, no knowledge of where a structure lies; supports are
drawn from a fixed pool, queries are a fixed set of other subjects (:data:`medfewshot.episodes.FIXED_SPLITS`). A cell is
one (dataset, learner, K, seed); it runs in a process of its own and leaves a folder.
"""

from medfewshot.benchmark.cells import Cell, CellState, plan_cells, select_cells, state_of
from medfewshot.benchmark.config import BenchmarkConfig, load_benchmark
from medfewshot.benchmark.report import write_report
from medfewshot.benchmark.run import BenchmarkRun, outdated, prepare_data, run_benchmark

__all__ = [
    "BenchmarkConfig",
    "BenchmarkRun",
    "Cell",
    "CellState",
    "load_benchmark",
    "outdated",
    "plan_cells",
    "prepare_data",
    "run_benchmark",
    "select_cells",
    "state_of",
    "write_report",
]
