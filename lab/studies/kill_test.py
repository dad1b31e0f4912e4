"""kill -9 at random moments of every command that writes: no half file, and the same result after another try.

    python -m lab.studies.kill_test --kills 60 --seed 0
    python -m lab.studies.kill_test --kills 40 --commands train benchmark

Small synthetic scans and the real learner (a few steps of a narrow network); ``configs/train/tiny.yaml``; a benchmark
of four cells on synthetic volumes. Each command runs in a forked process, which is killed after a random share of the
time that the command takes; half of them only when, from that moment on, a file is being written. Then every file under
a final name must be whole, a second run (``segment --resume``, ``adapt --overwrite``, ``evaluate``, ``train --resume``,
``benchmark``) must end well, and what it leaves must equal what an uninterrupted run left: every bit of voxels,
weights, scores and logs, except times and memory. ``train`` and ``benchmark`` are killed up to eight times in a row
before they may end. Of a benchmark, everything dies, or its first process alone (the other must follow by itself), or
the process of a cell alone; cells are forked too, so that kills do not all fall into imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

COMMANDS = ("adapt", "segment", "segment and adapt", "evaluate", "train", "benchmark")
IN_A_ROW = {"train": 8, "benchmark": 8}
TINY = Path(__file__).resolve().parents[2] / "configs/train/tiny.yaml"
BOARD = """
protocol: volume
datasets:
  - {name: blobs, blobs: {cases: 6, labels: 2, shape: [20, 16, 12], seed: 0}, pool: [0, 2], queries: [2, 6]}
learners:
  - {name: finetune-8, learner: finetune, steps: 8, width: 4}
  - {name: prototype-4, learner: prototype, steps: 4, width: 4}
shots: [1]
seeds: [0, 1]
"""
TEMPORARY = re.compile(r"\.[0-9a-f]{12}")
TIMED = ("second", "_gb", "device", "machine", "versions")
"""What is in the name of a column or a fact that another run of the same thing may give otherwise."""
SETTINGS = "width: 4\nsteps: 12\npatch_voxels: 4096\n"
MOMENTS = ("before any file", "with some files written", "while a file was written")
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
    (root / "board.yaml").write_text(BOARD)


def words_of(command: str, root: Path, out: Path, again: bool) -> list[str]:
    """Return the words of a command; ``again`` for a run that resumes or overwrites."""
    support = ["--support-dir", f"{root}/annotated", "--config", f"{root}/settings.yaml", "--device", "cpu"]
    maps = ["--probabilities", "--uncertainty"]
    return {
        "adapt": ["adapt", *support, "-o", f"{out}", *(["--overwrite"] if again else [])],
        "segment": ["segment", f"{root}/cohort", "--segmenter", f"{root}/whole/adapt", *maps, "-o", f"{out}",
                    "--device", "cpu", *(["--resume"] if again else [])],
        "segment and adapt": ["segment", f"{root}/cohort", *support, "-o", f"{out}", *(["--resume"] if again else [])],
        "evaluate": ["evaluate", f"{root}/whole/segment", "-r", f"{root}/reference", "-o", f"{out}"],
        "train": ["train", f"{TINY}", "-o", f"{out}", "--device", "cpu",
                  *(["--resume"] if again else [])],
        "benchmark": ["benchmark", f"{root}/board.yaml", "-o", f"{out}", "--device", "cpu"],
    }[command]  # fmt: skip


def start(words: list[str], leads: bool = False) -> int:
    """Return ``medfewshot words`` in a forked process, where everything is imported already; its process id.

    ``leads``: it and its children form a group of their own.
    """
    child = os.fork()
    if child:
        if leads:  # here too: whichever comes first
            os.setpgid(child, child)
        return child
    code = 99
    try:
        if leads:
            os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = run(words)
    finally:
        os._exit(code)


def run(words: list[str]) -> int:
    """Run a command in this process and return its exit code."""
    from medfewshot.cli import main

    sys.argv = ["medfewshot", *words, "--quiet"]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def wait(child: int) -> int:
    """Wait for a child process and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def members(group: int) -> list[int]:
    """Return the living processes of a group, except its leader."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z" and int(path.parent.name) != group:
            found.append(int(path.parent.name))
    return found


def is_cell(process: int) -> bool:
    """Return whether it is the process of a benchmark's cell, not a helper of ``multiprocessing``."""
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


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
    """Read a file completely; raises an error if it is damaged."""
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
    elif path.suffix == ".svg":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>"), "cut short"
    elif path.suffix == ".stl":
        assert path.stat().st_size == 84 + 50 * int(np.fromfile(path, "<u4", 1, offset=80)[0]), "cut short"
    elif path.suffix == ".npz":
        dict(np.load(path))
    elif path.suffix == ".nrrd":
        sitk.ReadImage(str(path))
    elif path.name == "log.txt":  # what a cell's process says, as it says it
        pass
    elif path.name == "LICENSE" or path.suffix in (".md", ".tex"):
        assert path.read_text(encoding="utf-8").endswith("\n"), "cut short"
    else:
        raise ValueError("a file of an unknown kind")


def content(folder: Path) -> dict[str, object]:
    """Return what must be the same: voxels, weights, tables and records without their times; the rest by name alone."""
    from safetensors.numpy import load_file

    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".nii.gz"):
            found[name] = np.asanyarray(nib.load(path).dataobj).tobytes()
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tobytes() for key, value in load_file(path).items()}
        elif path.suffix == ".csv":
            found[name] = [untimed(row) for row in csv.DictReader(path.open())]
        elif path.name == "run.json":
            found[name] = [untimed(entry) for entry in json.loads(path.read_text())["outputs"]]
        elif path.name in ("start.json", "cell.json"):
            found[name] = untimed(json.loads(path.read_text()))
        else:
            found[name] = None
    return found


def untimed(content: object) -> object:
    """Remove the entries that measure time from JSON content."""
    if isinstance(content, dict):
        return {k: untimed(v) for k, v in content.items() if not any(word in k for word in TIMED)}
    return [untimed(v) for v in content] if isinstance(content, list) else content


def kill(command: str, words: list[str], out: Path, wait_s: float, rng: np.random.Generator) -> str:
    """Start, wait, kill; when it was, for the tally.

    Raises:
        AssertionError: A process outlives its parent.
    """
    child = start(words, leads=True)
    ends = time.perf_counter() + wait_s
    time.sleep(rng.uniform(0, wait_s))
    if rng.random() < 0.5:
        while time.perf_counter() < ends and not writes_in(out):
            time.sleep(0.0002)
    victim = rng.choice(["all", "first", "cell"]) if command == "benchmark" else "first"
    cells = [one for one in members(child) if is_cell(one)] if victim == "cell" else []
    if cells:  # the benchmark continues with the next cell and reports at its end that one failed
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(cells[0], signal.SIGKILL)
    elif victim == "all":
        os.killpg(child, signal.SIGKILL)
    else:
        os.kill(child, signal.SIGKILL)
    left = [name for _, _, names in os.walk(out) for name in names]
    hit = any(TEMPORARY.match(name) for name in left)
    ended = wait(child)
    patience = time.perf_counter() + 60
    while members(child):
        assert time.perf_counter() < patience, f"{command}: a process outlives the one that started it"
        time.sleep(0.02)
    if ended != (1 if cells else -signal.SIGKILL):
        return MISSED
    return MOMENTS[2 if hit else 1 if left else 0]


def writes_in(folder: Path) -> bool:
    """Return whether a temporary file of an unfinished write remains below ``folder``."""
    return any(TEMPORARY.match(name) for _, _, names in os.walk(folder) for name in names)


def some_kills(command: str, root: Path, usual: float, rng: np.random.Generator) -> Iterator[str]:
    """Kill one run once or several times and end it; return the moments of the kills.

    Raises:
        AssertionError: A rule is broken.
    """
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    for number in range(int(rng.integers(1, IN_A_ROW.get(command, 1) + 1))):
        words = words_of(command, root, out, again=number > 0)
        moment = kill(command, words, out, usual * (0.7 if number else 1), rng)
        assert not (broken := half_files(out)), broken
        yield moment
    code = wait(start(words_of(command, root, out, again=True)))
    assert code == 0, f"{command}: the last run ended with {code}"
    found, expected = content(out), content(root / "whole" / command)
    other = sorted(name for name in found.keys() | expected.keys() if found.get(name, 0) != expected.get(name, 0))
    assert not other, f"{command}: another result after a kill: {', '.join(other)}"


def main() -> None:
    """Kill and resume every command many times, and check what is on disk each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="at least so many, shared out evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    import medfewshot.cli.console
    import medfewshot.workflow  # noqa: F401

    root, rng = Path(tempfile.mkdtemp(prefix="kill_test_")), np.random.default_rng(given.seed)
    make_scans(root)
    usual = {}
    for command in COMMANDS:
        needed = command in given.commands or command in ("adapt", "segment")  # whose results the others take
        # The first run imports what the commands import late.
        for _ in range(0 if not needed else 2 if command in given.commands else 1):
            shutil.rmtree(root / "whole" / command, ignore_errors=True)
            begun = time.perf_counter()
            assert run(words_of(command, root, root / "whole" / command, again=False)) == 0, command
            usual[command] = time.perf_counter() - begun
    tally: dict[str, Counter[str]] = {command: Counter() for command in given.commands}

    def killed(command: str) -> int:
        return sum(tally[command][moment] for moment in MOMENTS)

    while sum(map(killed, tally)) < given.kills:
        command = min(tally, key=killed)
        for moment in some_kills(command, root, usual[command], rng):
            tally[command][moment] += 1
            if moment == MISSED and command not in IN_A_ROW:  # the machine has become faster
                usual[command] *= 0.8
        print(f"killed: {', '.join(f'{name} {killed(name)}' for name in tally)}", file=sys.stderr, flush=True)
    print(f"| command | killed | {' | '.join(MOMENTS)} |")
    print("|---|---|---|---|---|")
    for command, counts in tally.items():
        print(f"| {command} | {' | '.join(map(str, [killed(command), *(counts[moment] for moment in MOMENTS)]))} |")
    print("\nNo half file, and the same result after every kill.")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
