"""A walk through a clean environment, as a new user goes it: install, demo, adapt, bundle, report, tutorials.

    python -m lab.studies.walk --data DIR

A fresh virtual environment gets the package, not editable, built from the last commit; everything after that runs in it
and in a folder of its own. ``DIR/Task04_Hippocampus`` contains the scans (default: MEDFEWSHOT_DATA; without it, the
demo's synthetic ones). The written bundle is run and checked by ``monai.bundle`` alone and must give the voxels that
``medfewshot segment`` gives; the report is opened in headless Chromium, where a console error or a request fails the
walk. Prints the seconds of each step on the clock and on processors, and the tutorials' sum. Exit code 1, and no
further step, where one fails.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, find_chromium  # noqa: E402  (standard library alone)

SCHEMA = ROOT / "tests/bundle/metadata_schema.json"
SAME_VOXELS = """
import sys
from pathlib import Path
import numpy as np
from medfewshot.io import read_label
theirs, ours = map(Path, sys.argv[1:])
names = sorted(path.name for path in theirs.iterdir())
assert names, "the bundle wrote nothing"
for name in names:
    one, other = read_label(theirs / name), read_label(ours / name)
    assert np.array_equal(one.data, other.data) and np.allclose(one.affine, other.affine, atol=1e-5), name
print(len(names), "volumes: the same voxels from monai.bundle and from medfewshot")
"""


class Walk:
    """The steps' commands, run in ``folder``, and how long each took."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        self.folder, self.data = folder, data
        self.bin = folder / "venv/bin"
        self.rows: list[tuple[str, float, float]] = []
        drop = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MPLBACKEND")  # the last: notebooks keep their pictures
        self.environment = {name: value for name, value in os.environ.items() if name not in drop}
        self.environment["PATH"] = f"{self.bin}:{os.environ['PATH']}"
        self.environment["MEDFEWSHOT_DATA"] = str(data or folder / "nowhere")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the commands of one step, and print its name with the seconds."""
        began, before = time.monotonic(), processor_seconds()
        try:
            yield
        except BaseException:
            print(f"FAILED: {name}, after {time.monotonic() - began:.0f} s", flush=True)
            raise
        self.rows.append((name, time.monotonic() - began, processor_seconds() - before))
        print(f"{self.rows[-1][1]:7.0f} s {self.rows[-1][2]:7.0f} s  {name}", flush=True)

    def run(self, *words: object, cwd: Path | None = None) -> str:
        """Standard output of a command of the new environment; its end is shown where it fails."""
        with open(self.folder / "walk.log", "a", encoding="utf-8") as log:
            print("$", *words, file=log, flush=True)
            done = subprocess.run(
                [str(word) for word in words], cwd=cwd or self.folder, env=self.environment, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            print(done.stdout, file=log, flush=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, words))}\nexit code {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def scans(self) -> list[tuple[Path, Path]]:
        """Images and labels; the last ones, so that a benchmark's support pool stays untouched."""
        task = self.data / "Task04_Hippocampus" if self.data else self.folder / "demo/data"
        images = sorted(path for path in (task / "imagesTr").glob("*.nii.gz") if not path.name.startswith("."))
        return [(image, task / "labelsTr" / image.name) for image in images][-6:]


def processor_seconds() -> float:
    """Return the processor time of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def install(walk: Walk, python: str) -> None:
    """Clone the repository and install it in a new environment."""
    source, pip = walk.folder / "source", (walk.bin / "python", "-m", "pip", "--disable-pip-version-check")
    constraints = source / "constraints.txt"
    with walk.step("clone and a new environment"):
        walk.run("git", "clone", "--quiet", ROOT, source)
        walk.run(python, "-m", "venv", walk.folder / "venv")
    with walk.step("install PyTorch"):
        (torch,) = re.findall(r"^torch==\S+", constraints.read_text(encoding="utf-8"), re.M)
        walk.run(*pip, "install", "-c", constraints, torch)
    with walk.step("install medfewshot[monai,tutorials]"):
        walk.run(*pip, "install", "-c", constraints, f"{source}[monai,tutorials]")
        where = walk.run(walk.bin / "python", "-c", "import medfewshot; print(medfewshot.__file__)").strip()
        assert Path(where).is_relative_to(walk.folder / "venv"), where
        print(walk.run(walk.bin / "medfewshot", "--version").strip())


def use(walk: Walk) -> None:
    """Run the demo and each command, and check what they write."""
    ours = walk.bin / "medfewshot"
    with walk.step("medfewshot demo"):
        walk.run(ours, "demo", "-o", "demo")
    scans = walk.scans()
    support = [word for image, label in scans[:3] for word in ("--support", f"{image}={label}")]
    (walk.folder / "cohort").mkdir()
    for image, _ in scans[3:]:
        (walk.folder / "cohort" / image.name).symlink_to(image)
    with walk.step("medfewshot adapt (3 supports, 50 steps)"):
        walk.run(ours, "adapt", *support, "--steps", "50", "-o", "kidney")
    with walk.step("monai.bundle run, without medfewshot's command line"):
        words = ("--config_file", "kidney/configs/inference.json", "--bundle_root", "kidney")
        python = (walk.bin / "python", "-m", "monai.bundle")
        walk.run(*python, "run", *words, "--dataset_dir", "cohort", "--output_dir", "theirs")
    with walk.step("monai.bundle verify_net_in_out, verify_metadata"):
        meta = ("--meta_file", "kidney/configs/metadata.json")
        walk.run(*python, "verify_net_in_out", "network_def", *meta, *words)
        walk.run(*python, "verify_metadata", *meta, "--filepath", SCHEMA)
    with walk.step("medfewshot segment, with a report"):
        walk.run(ours, "segment", "cohort", "--segmenter", "kidney", "-o", "out")
        print(walk.run(walk.bin / "python", "-c", SAME_VOXELS, "theirs", "out").strip().splitlines()[-1])
    with walk.step("the report and its viewer in Chromium"):
        look(walk.folder / "out/report.html")


def look(page: Path) -> None:
    """Open the report and its viewer; a console error, a warning or a request ends the walk."""
    executable = find_chromium()
    if executable is None:
        raise SystemExit("no Chromium on this machine: install it, the report has to be looked at")
    with Browser(executable) as browser:
        browser.open(page)
        browser.ask("document.querySelector('button.open').click()")
        browser.wait("document.getElementById('viewer').dataset.ready !== undefined")
        problems = [text for text in browser.problems if "GL Driver Message" not in text]  # of software rendering
        browser.picture(page.with_name("report.png"))
    if problems:
        raise SystemExit("\n".join([f"{page}: the browser complains", *problems]))


def tutorials(walk: Walk) -> None:
    """Execute the notebooks at their full settings; they stay in ``source/tutorials``."""
    folder = walk.folder / "source/tutorials"
    first = len(walk.rows)
    for notebook in sorted(folder.glob("[0-9]*.ipynb")):
        with walk.step(f"tutorial {notebook.stem}"):
            walk.run("jupyter-nbconvert", "--to", "notebook", "--execute", "--inplace", notebook.name, cwd=folder)
    seconds, processor = (sum(row[i] for row in walk.rows[first:]) for i in (1, 2))
    verdict = "under" if seconds < 20 * 60 else "NOT under"
    print(f"tutorials: {seconds / 60:.1f} minutes ({processor / 60:.1f} on processors), {verdict} 20 minutes")


def main() -> int:
    """Do every step and print a table of times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("MEDFEWSHOT_DATA")
    parser.add_argument("--data", type=Path, default=Path(root) if root else None)
    parser.add_argument("--work", type=Path, help="a new folder to work in; default: a temporary one")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that makes the environment")
    options = parser.parse_args()
    folder = (options.work or Path(tempfile.mkdtemp(prefix="walk-"))).resolve()
    folder.mkdir(parents=True, exist_ok=options.work is None)
    data = options.data.resolve() if options.data and (options.data / "Task04_Hippocampus").is_dir() else None
    print(f"in {folder}; scans: {'MSD hippocampus' if data else 'made up'}; {len(os.sched_getaffinity(0))} core(s)")
    print("  clock  processors")
    walk = Walk(folder, data)
    parts: tuple[Callable[[], None], ...] = (
        lambda: install(walk, options.python),
        lambda: use(walk),
        lambda: tutorials(walk),
    )
    for part in parts:
        part()
    print("every step ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
