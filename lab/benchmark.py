"""``medfewshot benchmark`` with peers and the protocol ``oracle-2d``.

    python -m lab.benchmark lab/configs/oracle-2d.yaml -o runs/oracle-2d --data /scans
    MEDFEWSHOT_NNUNET_PYTHON=/envs/nnunet/bin/python python -m lab.benchmark lab/configs/nnunet.yaml -o runs/nnunet

Stop it at any time; the same command continues. ``--report FOLDER`` writes the report of what is done and runs nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.protocols import protocol_of
from medfewshot.benchmark import prepare_data, run_benchmark, select_cells, state_of
from medfewshot.benchmark.processes import ChildProcess
from medfewshot.errors import InputError
from medfewshot.workers import RayCluster


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(words)
    try:
        return _run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="benchmark file")
    parser.add_argument("-o", "--output", type=Path, help="run directory (default: runs/NAME of the file)")
    parser.add_argument("--data", type=Path, help="folder of the datasets (default: MEDFEWSHOT_DATA)")
    parser.add_argument("--only", action="append", default=[], help="cells that match this pattern; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="only these seeds of the file")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="every N-th cell, beginning with the I-th")
    parser.add_argument("--list", action="store_true", help="show the cells and their states; run nothing")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write the report there; run nothing")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: local, auto or HOST:PORT")
    parser.add_argument("--cpus", type=float, default=1, help="cores of a cell on Ray")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a cell on Ray")
    return parser


def _shard(text: str) -> tuple[int, int]:
    index, count = text.split("/")
    return int(index), int(count)


def _run(options: argparse.Namespace) -> int:
    protocol = protocol_of(options.config)
    plan = protocol.load(options.config)
    run = options.output or Path("runs") / options.config.stem
    cells = select_cells(protocol.plan(plan), options.only, options.seeds, options.shard)
    if options.list:
        for cell in cells:
            print(f"{state_of(cell, run).value:8} {cell.id}")
        return 0
    if options.report is not None:
        print(protocol.report(plan, run, options.report, cells))
        return 0
    data = prepare_data(cells, options.data or plan.data, run)
    runner = ChildProcess(protocol.run)
    cluster = None if options.ray is None else RayCluster(options.ray, options.cpus, options.gpus)
    outcome = run_benchmark(cells, data, run, options.device, log=print, runner=runner, cluster=cluster)
    print(protocol.report(plan, run, run / "report", None))
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
