"""Thousands of small volumes in one call: memory, processor time per volume, and the size of what is written.

    python -m lab.studies.many_scans --volumes 10000
    python -m lab.studies.many_scans --volumes 10000 --previews --keep /tmp/cohort
    python -m lab.studies.many_scans --volumes 10000 --stages segment --profile
    python -m lab.studies.many_scans --keep /tmp/cohort --stages browse

Each stage runs in a process of its own, so that its peak memory is its own. The volumes have 16 x 16 x 8 voxels and two
structures; the learner is ``prototype`` with a narrow network: what is left is the cost of everything around the
network. Times are processor seconds, which a busy machine changes less than those of the clock. The last stage opens,
filters, sorts and scrolls the report in Chromium; a step ends when its result is painted. It fails if a file is larger
than 30 MB or the browser reports a problem.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE, SPACING_MM = (16, 16, 8), (1.5, 1.5, 3.0)
SETTINGS = {"learner": "prototype", "width": 4, "steps": 12, "patch_voxels": 2048, "weights": "none", "seed": 0}
GROUP = 1000
LARGEST_MB = 30
PAINTED = "await new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
FIND = "{const f = document.getElementById('find'); f.value = %r; f.dispatchEvent(new Event('input'))}"
SHOW = "{const s = document.getElementById('show'); s.value = %r; s.dispatchEvent(new Event('change'))}"
SORT = "[...document.querySelectorAll('#table th button')].find(b => b.textContent === %r).click();"
SCROLL = "{const v = document.querySelector('.long'); v.scrollTop = v.scrollHeight * %s;}"
STEPS = {
    "find one scan": FIND % "000777",
    "find a word of many rows": FIND % "case",
    "show what is to review": SHOW % "flagged",
    "show all": SHOW % "all" + FIND % "",
    "sort by scan": SORT % "Scan",
    "sort by confidence": SORT % "Confidence",
    "sort by confidence, downwards": SORT % "Confidence",
    "scroll to the middle": SCROLL % 0.5,
    "scroll to the end": SCROLL % 1,
}


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
    pages = [root / "out" / "report.html", *sorted((root / "out" / "report_scans").glob("*.html"))]
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


def measure(browser: Any, expression: str) -> float:
    """Return the milliseconds until the result of an expression is painted."""
    code = (
        f"(async () => {{const begun = performance.now(); {expression} {PAINTED} return performance.now() - begun;}})()"
    )
    return float(browser.ask(code))


def opened(browser: Any, path: Path) -> float:
    """Return the seconds until a page is loaded and painted."""
    begun = time.perf_counter()
    browser.open(path)
    measure(browser, "")
    return time.perf_counter() - begun


def browse(root: Path) -> None:
    """Open the report in Chromium and use its table; write pictures of it beside the results."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from browser import Browser, find_chromium

    first = root / "out" / "report.html"
    further = sorted((root / "out" / "report_scans").glob("*.html"))
    with Browser(find_chromium() or sys.exit("no Chromium on this machine")) as browser:
        seconds, elements = opened(browser, first), browser.ask("document.querySelectorAll('*').length")
        print(f"  open: {seconds:.2f} s, {elements} elements")
        for number, (name, expression) in enumerate(STEPS.items()):
            count = "document.getElementById('count').textContent"
            print(f"  {name}: {measure(browser, expression):.0f} ms, {browser.ask(count)}")
            browser.ask("document.getElementById('cases').scrollIntoView()")
            browser.picture(root / f"{number}_{name.replace(' ', '_')}.png")
        for path in (further[:1] + further[-1:]) if further else []:
            print(f"  open {path.name} ({path.stat().st_size / 1e6:.1f} MB): {opened(browser, path):.2f} s")
            browser.picture(root / f"{path.stem}.png")
        problems = [text for text in browser.problems if "GL Driver Message" not in text]
    assert not problems, problems
    assert max(path.stat().st_size for path in (first, *further)) <= LARGEST_MB * 1e6


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
    parser.add_argument("--stages", nargs="+", default=["segment", "resume", "report", "evaluate", "compare", "browse"])
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
        "browse": lambda: browse(root),
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
