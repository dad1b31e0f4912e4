"""Efficiency of two workers against one: on a Ray cluster of two nodes in this machine, and with two threads.

    OMP_NUM_THREADS=1 python -m lab.studies.ray_efficiency --scans 16 --rounds 2
    OMP_NUM_THREADS=1 python -m lab.studies.ray_efficiency --data ../shared/data --learner hybrid

Needs two idle cores and the extra ``ray``. Each round segments the same scans with one process, one node, two nodes and
``--jobs 2``, each in a new process. Efficiency is the time with one worker, divided by twice the time with two; 1 is
ideal. *Whole* begins when the command would: Ray starts, workers import the package and read the segmenter. *Steady* is
the time from each worker's first result to the last one, per scan. The voxels of all must be equal, or the exit code is
1. Times on a busy machine say nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAYS = ("one process", "one node", "two nodes", "--jobs 2")


def prepare(root: Path, data: Path | None, learner: str, scans: int) -> None:
    """Write ``scans`` volumes and a segmenter: of hippocampus scans from the support pool, or synthetic."""
    import medfewshot
    from medfewshot.datasets import read_dataset
    from medfewshot.episodes import fixed_split
    from medfewshot.synthetic import make_ct_cohort

    if data is None:
        cases = read_dataset(make_ct_cohort(root / "data")).labelled
        chosen = [case.image_path for case in cases]
    else:
        cases = read_dataset(data / "Task04_Hippocampus").labelled
        cases = [cases[number] for number in fixed_split("Task04_Hippocampus")[0]]
        chosen = [case.image_path for case in cases[2:]]
    (root / "scans").mkdir()
    for number in range(scans):
        shutil.copy(chosen[number % len(chosen)], root / "scans" / f"scan{number:03}.nii.gz")
    pairs = [(case.image_path, case.label_path) for case in cases[:2]]
    medfewshot.adapt(pairs, learner=learner, steps=20, budget_seconds=None, device="cpu").save(root / "model")


@contextmanager
def cluster_of(nodes: int) -> Iterator[None]:
    """Start nodes of one core each, and a head without cores, for a ``with`` block; no node: nothing."""
    if not nodes:
        yield
        return
    import ray
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # 15 would starve beside other work
    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **small)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def segment(root: Path, way: str, out: Path) -> None:
    """Segment all scans in one way and note the seconds until each result."""
    begun = time.perf_counter()
    import torch

    from medfewshot.bundle import load_segmenter
    from medfewshot.settings import SegmentSettings
    from medfewshot.types import Event, Progress
    from medfewshot.workers import RayCluster, Threads
    from medfewshot.workflow import SavedModel, open_batch
    from medfewshot.workflow import segment as run

    torch.set_num_threads(1)
    moments: list[float] = []

    def follow(event: Event) -> None:
        if event.text and event.done == int(event.done) > len(moments):
            moments.append(time.perf_counter() - begun)

    workers = {"--jobs 2": Threads(2), "one process": Threads(1)}.get(way, RayCluster())
    with cluster_of({"one node": 1, "two nodes": 2}.get(way, 0)):
        batch = open_batch([root / "scans"], out, SegmentSettings(report=False))
        result = run(
            batch, load_segmenter(root / "model", torch.device("cpu")), progress=Progress(follow), workers=workers,
            saved=SavedModel(root / "model", "cpu"),
        )  # fmt: skip
        assert not result.failed, result.failed[0].error
    (out / "moments.txt").write_text("\n".join(map(str, moments)))


def steady(moments: list[float], workers: int) -> float:
    """Return the seconds per scan after the first result of each worker."""
    return (moments[-1] - moments[workers - 1]) / (len(moments) - workers)


def same_voxels(first: Path, second: Path) -> bool:
    """Return whether two folders contain the same label maps."""
    import nibabel as nib
    import numpy as np

    names = [sorted(path.name for path in folder.glob("*.nii.gz")) for folder in (first, second)]
    return names[0] == names[1] != [] and all(
        np.array_equal(*(np.asanyarray(nib.load(folder / name).dataobj) for folder in (first, second)))
        for name in names[0]
    )


def main() -> int:
    """Print the table; the exit code says whether all results are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--learner", default="hybrid")
    parser.add_argument("--data", type=Path, help="folder of the real data sets; default: synthetic scans")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ray_efficiency_"))
    new = multiprocessing.get_context("spawn").Process

    def in_a_process(function: object, *words: object) -> None:
        child = new(target=function, args=words)
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(f"failed: {words}")

    in_a_process(prepare, root, given.data, given.learner, given.scans)
    whole: dict[str, list[float]] = {way: [] for way in given.ways}
    per_scan: dict[str, list[float]] = {way: [] for way in given.ways}
    equal = True
    for number in range(given.rounds):
        for way in given.ways:
            out = root / f"out{number}_{given.ways.index(way)}"
            in_a_process(segment, root, way, out)
            moments = [float(line) for line in (out / "moments.txt").read_text().split()]
            whole[way].append(moments[-1])
            per_scan[way].append(steady(moments, 1 if way.startswith("one") else 2))
            equal &= same_voxels(root / "out0_0", out)
            print(f"{way}: whole {whole[way][-1]:.1f} s, steady {per_scan[way][-1]:.2f} s a scan", flush=True)
    for two, one in (("two nodes", "one node"), ("two nodes", "one process"), ("--jobs 2", "one process")):
        if two in whole and one in whole:
            shares = [min(times[one]) / (2 * min(times[two])) for times in (whole, per_scan)]
            print(f"{two} against {one}: efficiency {shares[0]:.2f} whole, {shares[1]:.2f} steady")
    print("the same voxels" if equal else "DIFFERENT voxels")
    shutil.rmtree(root)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
