"""Installed size without PyTorch, and seconds to import, to print the help and to segment a first scan.

    python -m lab.studies.footprint          # a table; exit code 1 if a figure is above its limit
    python -m lab.studies.footprint --show   # also the largest packages and the slowest imports

The size counts the package and all that it requires, without extras, in the environment of this interpreter.
PyTorch and what only PyTorch requires do not count. Seconds are processor seconds of one core, the least of three runs.
The first scan is a small synthetic one, segmented by a saved network in a new process.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from medfewshot.datasets import read_dataset
from medfewshot.settings import AdaptSettings
from medfewshot.synthetic import make_ct_cohort
from medfewshot.workflow import adapt, read_supports

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3
LIMITS = {
    "installed size, MB": 700.0,
    "import medfewshot, s": 0.2,
    "medfewshot --help, s": 1.0,
    "first prediction, s": 8.0,
}
"""The figures when they were set are in ``lab/notes/reliability.md``."""
OURS, PYTORCH = "medfewshot", "torch"


def required(name: str, without: Iterable[str] = ()) -> set[str]:
    """Return the names of a distribution and of all that it requires on this system, without extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if one in found or one in without:
            continue
        try:
            needs = distribution(one).requires or []
        except PackageNotFoundError:  # of another system, or optional
            continue
        found.add(one)
        parsed = [Requirement(text) for text in needs]
        waiting += [need.name for need in parsed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def size_mb(name: str) -> float:
    """Return the size of a distribution's files in MB; of ours, the files of the package in this checkout."""
    if name == OURS:
        paths = [path for path in (ROOT / OURS).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    else:
        paths = [Path(str(file.locate())) for file in distribution(name).files or [] if ".pyc" not in file.name]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def seconds_of(*words: object) -> float:
    """Return the least processor seconds of a command in a new process of this interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    taken = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *map(str, words)], env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def first_prediction(folder: Path) -> float:
    """Return the seconds in which a new process loads a saved network and segments one small scan."""
    cases = read_dataset(make_ct_cohort(folder / "data", 2, shape=(48, 40, 32), spacing_mm=8.0)).labelled
    settings = AdaptSettings(learner="finetune", weights="default", steps=1, device="cpu")
    adapt(read_supports(cases[:1]), settings).save(folder / "model")
    scan, out = cases[1].image_paths[0], folder / "out"
    return seconds_of("-m", OURS, "segment", scan, "--segmenter", folder / "model", "-o", out, "--overwrite", "-q")


def main() -> int:
    """Measure, print and compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true")
    show = parser.parse_args().show
    sizes = {name: size_mb(name) for name in required(OURS, without=[PYTORCH])}
    nothing = seconds_of("-c", "pass")
    with tempfile.TemporaryDirectory(prefix="footprint-") as folder:
        figures = {
            "installed size, MB": sum(sizes.values()),
            "import medfewshot, s": max(0.0, seconds_of("-c", f"import {OURS}") - nothing),
            "medfewshot --help, s": seconds_of("-m", OURS, "--help"),
            "first prediction, s": first_prediction(Path(folder)),
        }
    print(f"{'figure':<24}{'now':>8}{'limit':>8}")
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>8.2f}{LIMITS[name]:>8.2f}{'  ABOVE' if figure > LIMITS[name] else ''}")
    if show:
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
            print(f"{size:8.1f} MB  {name}")
        slowest_imports()
    return int(any(figure > LIMITS[name] for name, figure in figures.items()))


def slowest_imports() -> None:
    """Print the imports of the help that take longest by themselves."""
    words = [sys.executable, "-X", "importtime", "-m", OURS, "--help"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stderr.splitlines()
    parts = [line.removeprefix("import time:").split("|") for line in lines if line.count("|") == 2]
    own = [(int(one), name.strip()) for one, _, name in parts if one.strip().isdigit()]
    for microseconds, name in sorted(own, reverse=True)[:8]:
        print(f"{microseconds / 1000:8.1f} ms  {name}")


if __name__ == "__main__":
    sys.exit(main())
