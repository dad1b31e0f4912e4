"""Install a wheel into clean environments of several Pythons, and take the documented first steps outside the checkout.

    python -m lab.studies.clean_install dist/*.whl --python python3.11 python3.12 python3.13

Each environment gets PyTorch and the wheel in the versions of constraints.txt. Then the commands of docs/install.md and
docs/first_segmentation.md run as they are written, on small synthetic scans, in a new folder. ``--steps 20`` shortens
training. Prints the seconds of each step on the clock and on processors. Exit code 1 at the first step that fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from lab.published import ROOT, commands_of
from lab.studies.walk import Walk

PAGES = ("docs/install.md", "docs/first_segmentation.md")
SCANS = """
from pathlib import Path
from shutil import copy
from medfewshot.synthetic import make_ct_cohort

made = make_ct_cohort("made", 5, shape=(56, 48, 36), spacing_mm=6.0)
for kind, learn, new in (("image", "annotated/images", "scans"), ("label", "annotated/labels", "labels")):
    files = sorted((made / f"{kind}sTr").glob("*.nii.gz"))
    for folder, chosen in ((learn, files[:3]), (new, files[3:])):
        Path(folder).mkdir(parents=True)
        for path in chosen:
            copy(path, folder)
    for number in (1, 2):
        copy(files[number - 1], f"{kind[:3].replace('ima', 'img')}{number}.nii.gz")
copy("scans/case_003.nii.gz", "scan.nii.gz")
"""


def documented_steps() -> list[tuple[str, ...]]:
    """Return the words of the pages' commands of this program, in order, without repetition."""
    lines = [command for page in PAGES for command in commands_of(ROOT / page)]
    return list(dict.fromkeys(line.words for line in lines if line.whole and line.words[0] == "medfewshot"))


def install(walk: Walk, python: str, wheel: Path) -> None:
    """Make a new environment and install PyTorch and the wheel, in the tested versions."""
    constraints = ROOT / "constraints.txt"
    (torch,) = re.findall(r"^torch==\S+", constraints.read_text(encoding="utf-8"), re.M)
    pip = (walk.bin / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", constraints)
    with walk.step("a new environment"):
        walk.run(python, "-m", "venv", walk.folder / "venv")
    with walk.step(f"install {torch}"):
        walk.run(*pip, torch)
    with walk.step(f"install {wheel.name}[annotate]"):
        walk.run(*pip, f"{wheel}[annotate]")
        walk.run(walk.bin / "python", "-m", "pip", "check")
    where = walk.run(walk.bin / "python", "-c", "import medfewshot; print(medfewshot.__file__)").strip()
    assert Path(where).is_relative_to(walk.folder / "venv"), where
    print(walk.run(walk.bin / "python", "-c", "import sys, torch; print(sys.version, torch.__version__)").strip())


def first_steps(walk: Walk, steps: int | None) -> None:
    """Run the documented commands."""
    walk.run(walk.bin / "python", "-c", SCANS)
    for words in [("medfewshot", "--help"), ("medfewshot", "annotate", "--help"), *documented_steps()]:
        line = list(words)
        if "--support" in line:  # the other way to get out/
            line = [word.replace("out/", "at-once/") for word in line]
        if "compare" in line:
            for name in ("out-1", "out-2"):
                shutil.copytree(walk.folder / "out", walk.folder / name)
        if steps is not None and ({"adapt", "demo", "--support"} & set(line)):
            line += ["--steps", str(steps)]
        with walk.step(" ".join(line)):
            walk.run(walk.bin / line[0], *line[1:])
    for name in ("demo/report.html", "out/report.html", "at-once/scan.nii.gz", "scores/scores.csv", "compared"):
        assert (walk.folder / name).exists(), f"{name} is missing"


def main() -> int:
    """Install and walk with each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters, one after the other")
    parser.add_argument("--steps", type=int, help="training steps; default: as documented")
    given = parser.parse_args()
    for python in given.python:
        with tempfile.TemporaryDirectory(prefix="clean-") as folder:
            print(f"{python}\n  clock  processors", flush=True)
            walk = Walk(Path(folder).resolve(), None)
            install(walk, python, given.wheel.resolve())
            first_steps(walk, given.steps)
    print("every step ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
