"""Thousands of small volumes in one call: memory, processor time per volume, and the size of what is written.

    python -m lab.studies.many_scans --volumes 10000
    python -m lab.studies.many_scans --volumes 10000 --previews --keep /tmp/cohort
    python -m lab.studies.many_scans --volumes 10000 --stages segment --profile

Each stage (segment, resume, report, evaluate, compare) runs in a process of its own, so that its peak memory is its
own. The volumes have 16 x 16 x 8 voxels and two structures; the learner is ``prototype`` with a narrow network: what is
left is the cost of everything around the network. Times are processor seconds, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, SPACING_MM = (16, 16, 8), (1.5, 1.5, 3.0)
SETTINGS = {"learner": "prototype", "width": 4, "steps": 12, "patch_voxels": 2048, "weights": "none", "seed": 0}
GROUP = 1000


def write_scans(root: Path, volumes: int) -> None:
    """Write two labelled scans, ``volumes`` queries under ``scans/`` and their labels under ``labels/``."""
    rng = np.random.default_rng(0)
    affine = np.diag([*SPACING_MM, 1.0])
    for number in range(-2, volumes):
        image, label = rng.normal(100, 5, SHAPE).astype(np.int16), np.zeros(SHAPE, np.uint8)
        for value, first in ((1, 2), (2, 9)):
            x, y, z = rng.integers(3, 6, 3)
            box = (slice(first, first + x), slice(4, 5 + y), slice(2, 1 + z))
            image[box] += 100 * value
            label[box] = value
        folders = ("support/images", "support/labels") if number < 0 else ("scans", "labels")
        for folder, data in zip(folders, (image, label), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, affine), root / folder / f"case{number + 2:06}.nii.gz")


def adapt(root: Path) -> None:
    """Adapt to the two labelled scans and save the segmenter."""
    import medfewshot

    medfewshot.adapt(root / "support", device="cpu", **SETTINGS).save(root / "model")


def segment(root: Path, previews: bool, out: str = "out", resume: bool = False) -> None:
    """Segment everything in one call; print time and memory of each thousand volumes."""
    from medfewshot.bundle import load_segmenter
    from medfewshot.settings import SegmentSettings
    from medfewshot.types import Event, Progress
    from medfewshot.workflow import open_batch
    from medfewshot.workflow import segment as run

    settings = SegmentSettings(previews=previews, resume=resume)
    batch = open_batch([root / "scans"], root / out, settings)
    marks, names = [time.process_time()], set[str]()

    def follow(event: Event) -> None:
        if event.text in names or not event.text.startswith("case"):
            return
        names.add(event.text)
        if len(names) % GROUP == 0:
            marks.append(time.process_time())
            each = 1000 * (marks[-1] - marks[-2]) / GROUP
            print(f"  {len(names)} volumes: {each:.2f} ms each, {resident_mb():.0f} MB", flush=True)

    result = run(batch, load_segmenter(root / "model"), progress=Progress(follow))
    assert not result.failed, result.failed[0]
    begun = time.process_time()
    print(f"  to review: {len(result.review)}, found in {time.process_time() - begun:.1f} s")


def report(root: Path) -> None:
    """Write the report, without scores."""
    from medfewshot.workflow import report as run

    run(root / "out")
    pages = sorted((root / "out").glob("report*.html")) + sorted((root / "out" / "report").glob("*.[!n]*"))
    sizes = [page.stat().st_size / 1e6 for page in pages]
    print(f"  {len(pages)} file(s), {sum(sizes):.1f} MB, the largest {max(sizes):.1f} MB")


def evaluate(root: Path) -> None:
    """Score everything, without writing the report again."""
    from medfewshot.workflow import evaluate as run

    evaluation = run(root / "out", root / "labels")
    assert evaluation.scores


def compare(root: Path) -> None:
    """Compare the run with a copy of its label maps in which every tenth is empty."""
    from medfewshot.workflow import compare as run

    (root / "second").mkdir(exist_ok=True)
    for number, path in enumerate(sorted((root / "out").glob("*.nii.gz"))):
        if number % 10:
            shutil.copy(path, root / "second" / path.name)
        else:
            image = nib.load(path)
            nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), root / "second" / path.name)
    run(root / "out", root / "second", reference=root / "labels", folder=root / "comparison")


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def in_child(name: str, work: Callable[[], None], profile: bool) -> None:
    """Run one stage in a process of its own; print its processor time and peak memory."""
    print(f"{name}:", flush=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            profiler = cProfile.Profile()
            profiler.runcall(work) if profile else work()
            if profile:
                pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{name} failed")
    seconds = used.ru_utime + used.ru_stime
    print(f"  {seconds:.1f} s of processor time, peak {used.ru_maxrss / 1e3:.0f} MB", flush=True)


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=GROUP)
    parser.add_argument("--previews", action="store_true", help="paint a picture of each, which takes most of the time")
    parser.add_argument("--stages", nargs="+", default=["segment", "resume", "report", "evaluate", "compare"])
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it; files of an earlier call are used")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a second thread that waits counts as busy
    root = given.keep or Path(tempfile.mkdtemp(prefix="many_scans_"))
    work: dict[str, Callable[[], None]] = {
        "segment": lambda: segment(root, given.previews),
        "resume": lambda: segment(root, given.previews, resume=True),
        "report": lambda: report(root),
        "evaluate": lambda: evaluate(root),
        "compare": lambda: compare(root),
    }
    if not (root / "model").exists():
        in_child("scans", lambda: write_scans(root, given.volumes), profile=False)
        in_child("adapt", lambda: adapt(root), profile=False)
    for stage in given.stages:
        in_child(stage, work[stage], given.profile)
    record = root / "out" / "run.json"
    print(f"run.json {record.stat().st_size / 1e6:.1f} MB")
    if given.keep is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
