"""kill -9 at random moments of adapt, segment and evaluate: no half file, and the same result after another try.

    python benchmarks/kill_test.py --kills 60 --seed 0

Small made-up scans and the real learner (a few steps of a narrow network). Each command runs in a forked process, which
is killed after a random share of the time that the command takes. Then every file under a final name must be whole, a
second run (``segment --resume``, ``adapt --overwrite``, ``evaluate``) must end well, and what it leaves must equal,
voxel for voxel and number for number, what an uninterrupted run left.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

COMMANDS = ("adapt", "segment", "segment and adapt", "evaluate")
SETTINGS = "width: 4\nsteps: 12\npatch_voxels: 4096\n"
MISSED = "ended before"


def make_scans(root: Path) -> None:
    """Two labelled scans under ``annotated/``, four queries under ``cohort/`` and their labels under ``reference/``."""
    rng = np.random.default_rng(0)
    for number in range(6):
        image, label = rng.normal(100, 5, (20, 18, 16)), np.zeros((20, 18, 16), np.uint8)
        for value, first in ((1, 2), (2, 11)):
            box = (slice(first, first + 6), slice(4, 12 - number % 2), slice(3, 11))
            image[box] += 100 * value
            label[box] = value
        image_folder, label_folder = ("annotated/images", "annotated/labels") if number < 2 else ("cohort", "reference")
        for folder, data in ((image_folder, image.astype(np.int16)), (label_folder, label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.diag([1.5, 1.5, 2, 1])), root / folder / f"s{number}.nii.gz")
    (root / "settings.yaml").write_text(SETTINGS)


def words_of(command: str, root: Path, out: Path, again: bool) -> list[str]:
    support = ["--support-dir", f"{root}/annotated", "--config", f"{root}/settings.yaml", "--device", "cpu"]
    maps = ["--probabilities", "--uncertainty"]
    return {
        "adapt": ["adapt", *support, "-o", f"{out}", *(["--overwrite"] if again else [])],
        "segment": ["segment", f"{root}/cohort", "--segmenter", f"{root}/whole/adapt", *maps, "-o", f"{out}",
                    "--device", "cpu", *(["--resume"] if again else [])],
        "segment and adapt": ["segment", f"{root}/cohort", *support, "-o", f"{out}", *(["--resume"] if again else [])],
        "evaluate": ["evaluate", f"{root}/whole/segment", "-r", f"{root}/reference", "-o", f"{out}"],
    }[command]  # fmt: skip


def start(words: list[str]) -> int:
    """``medfewshot words`` in a forked process, where everything is imported already; its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = run(words)
    finally:
        os._exit(code)


def run(words: list[str]) -> int:
    from medfewshot.cli import main

    sys.argv = ["medfewshot", *words, "--quiet"]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def half_files(folder: Path) -> list[str]:
    """Files under a final name that cannot be read to their end."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            try:
                read_whole(path)
            except Exception as error:
                found.append(f"{path}: {error}")
    return found


def read_whole(path: Path) -> None:
    from PIL import Image
    from safetensors.numpy import load_file

    if path.name.endswith(".nii.gz"):
        np.asanyarray(nib.load(path).dataobj)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.open()))
        assert len({len(row) for row in rows}) == 1, "rows of several lengths"
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "cut short"
    elif path.name == "LICENSE" or path.suffix == ".md":
        assert path.read_text(encoding="utf-8").endswith("\n"), "cut short"
    else:
        raise ValueError("a file of an unknown kind")


def content(folder: Path) -> dict[str, object]:
    """What must be the same: voxels, weights and tables; records without their times; pictures by name alone."""
    from safetensors.numpy import load_file

    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".nii.gz"):
            found[name] = np.asanyarray(nib.load(path).dataobj).tobytes()
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tobytes() for key, value in load_file(path).items()}
        elif path.suffix == ".csv":
            found[name] = path.read_text()
        elif path.name == "run.json":
            outputs = json.loads(path.read_text())["outputs"]
            found[name] = [{k: v for k, v in entry.items() if k != "seconds"} for entry in outputs]
        else:
            found[name] = None
    return found


def one_kill(command: str, root: Path, usual: float, rng: np.random.Generator) -> str:
    """What happened, for the tally. Raises AssertionError where a rule is broken."""
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    child = start(words_of(command, root, out, again=False))
    time.sleep(rng.uniform(0, usual))
    os.kill(child, signal.SIGKILL)
    ended = wait(child)
    left = [p for p in out.rglob("*") if p.is_file()] if out.exists() else []
    assert not (broken := half_files(out)), broken
    code = wait(start(words_of(command, root, out, again=True)))
    assert code == 0, f"{command}: the second run ended with {code}"
    assert content(out) == content(root / "whole" / command), f"{command}: another result after a kill"
    if ended != -signal.SIGKILL:
        return MISSED
    hidden = any(p.name.startswith(".") for p in left)
    return "while a file was written" if hidden else "with some files written" if left else "before any file"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    import medfewshot.cli.commands
    import medfewshot.evaluation  # noqa: F401

    root, rng = Path(tempfile.mkdtemp(prefix="kill_test_")), np.random.default_rng(given.seed)
    make_scans(root)
    usual = {}
    for command in COMMANDS:
        for _ in range(2):  # the first run imports what the commands import late
            shutil.rmtree(root / "whole" / command, ignore_errors=True)
            begun = time.perf_counter()
            assert run(words_of(command, root, root / "whole" / command, again=False)) == 0, command
            usual[command] = time.perf_counter() - begun
    tally: dict[str, Counter[str]] = {command: Counter() for command in COMMANDS}
    while sum(sum(c.values()) - c[MISSED] for c in tally.values()) < given.kills:
        command = COMMANDS[int(rng.integers(len(COMMANDS)))]
        moment = one_kill(command, root, usual[command], rng)
        tally[command][moment] += 1
        if moment == MISSED:  # the machine has become faster
            usual[command] *= 0.8
    print("| command | killed | before any file | with some files written | while a file was written |")
    print("|---|---|---|---|---|")
    for command, counts in tally.items():
        moments = ("before any file", "with some files written", "while a file was written")
        cells = [sum(counts[moment] for moment in moments), *(counts[moment] for moment in moments)]
        print(f"| {command} | {' | '.join(map(str, cells))} |")
    print("\nNo half file, and the same result after every kill.")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
