"""Many volumes in one call, and many processes on one segmenter folder.

    python -m lab.studies.load_test cohort --volumes 1000
    python -m lab.studies.load_test shared --processes 16

``cohort`` segments synthetic volumes in one ``segment`` call and follows the process's memory: flat means that the last
tenth of the volumes needs no more than the second. ``shared`` starts processes at the same moment that all read one
segmenter folder, each with an output folder of its own, and compares their results voxel for voxel.
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


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def cohort(root: Path, volumes: int, previews: bool) -> None:
    """Segment ``volumes`` copies of a scan and print time and growth of memory."""
    from medfewshot.bundle import load_segmenter
    from medfewshot.settings import SegmentSettings
    from medfewshot.types import Event, Progress
    from medfewshot.workflow import open_batch, segment

    source = root / "cohort" / "s2.nii.gz"
    for number in range(volumes):
        shutil.copy(source, root / "many" / f"v{number:05}.nii.gz")
    memory: list[float] = []
    seen: set[str] = set()

    def follow(event: Event) -> None:
        if event.text not in seen:  # the name of the next volume
            seen.add(event.text)
            memory.append(resident_mb())
            if len(memory) % 100 == 0:
                seconds = time.perf_counter() - begun
                print(f"{len(memory)} volumes begun, {seconds:.0f} s, {memory[-1]:.0f} MB", flush=True)

    begun = time.perf_counter()
    batch = open_batch([root / "many"], root / "out", SegmentSettings(previews=previews))
    result = segment(batch, load_segmenter(root / "segmenter"), progress=Progress(follow))
    seconds = time.perf_counter() - begun
    assert not result.failed
    assert len(list((root / "out").glob("*.nii.gz"))) == volumes
    tenth = max(1, volumes // 10)
    early, late = np.mean(memory[tenth : 2 * tenth]), np.mean(memory[-tenth:])
    print(f"{volumes} volumes: {seconds:.0f} s, {1000 * seconds / volumes:.0f} ms each")
    print(f"resident memory: second tenth {early:.0f} MB, last tenth {late:.0f} MB, growth {late - early:+.0f} MB")


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
    """Run one of the two tests in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cohort", "shared"))
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--previews", action="store_true", help="paint a picture of each, which takes most of the time")
    parser.add_argument("--processes", type=int, default=16)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    root = Path(tempfile.mkdtemp(prefix="load_test_"))
    make_scans(root)
    (root / "many").mkdir()
    assert run(words_of("adapt", root, root / "segmenter", again=False)) == 0
    if given.what == "cohort":
        cohort(root, given.volumes, given.previews)
    else:
        shared(root, given.processes)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
