"""Many processes on one segmenter folder.

    python -m lab.studies.load_test --processes 16

All processes start at the same moment and read one segmenter folder, each with an output folder of its own; their
results are compared voxel for voxel. Many volumes in one process: ``lab.studies.many_scans``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from lab.studies.kill_test import make_scans, run, start, wait, words_of


def shared(root: Path, processes: int) -> None:
    """Segment one cohort in several processes at a time and check that the results agree."""
    begun = time.perf_counter()
    words = ["segment", str(root / "cohort"), "--segmenter", str(root / "segmenter"), "--device", "cpu"]
    children = [start([*words, "-o", str(root / f"out{number}")]) for number in range(processes)]
    codes = [wait(child) for child in children]
    assert codes == [0] * processes, codes
    results = [
        [np.asanyarray(nib.load(path).dataobj) for path in sorted((root / f"out{number}").glob("*.nii.gz"))]
        for number in range(processes)
    ]
    assert all(len(one) == 4 for one in results)
    same = all(np.array_equal(a, b) for one in results[1:] for a, b in zip(results[0], one, strict=True))
    assert same, "processes disagree"
    print(f"{processes} processes on one segmenter folder: all ended well with the same voxels, ", end="")
    print(f"{time.perf_counter() - begun:.0f} s")


def main() -> None:
    """Run the test in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=16)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    root = Path(tempfile.mkdtemp(prefix="load_test_"))
    make_scans(root)
    assert run(words_of("adapt", root, root / "segmenter", again=False)) == 0
    shared(root, given.processes)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
