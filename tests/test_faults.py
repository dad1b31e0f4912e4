"""Full disks, folders that may not be written to, devices without memory, signals: one line, and no half file."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import toys
from PIL import Image

from medfewshot.bundle import load_segmenter
from medfewshot.cli import main
from medfewshot.inference import segment_volume
from medfewshot.io import read_image
from medfewshot.learners import LEARNERS
from medfewshot.settings import AdaptSettings
from medfewshot.workflow import adapt, read_supports


def run(*words: object) -> int:
    """The exit code of one command in this process."""
    before, sys.argv = sys.argv, ["medfewshot", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def scans(tmp_path, monkeypatch) -> Path:
    toys.install(monkeypatch)
    return toys.make_folders(tmp_path)


def support(scans: Path) -> tuple[object, ...]:
    return ("--support-dir", scans / "annotated", "--learner", "toy", "--device", "cpu")


def check_whole(folder: Path) -> None:
    """Every file under a final name can be read to its end; no temporary file is left."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        assert not path.name.startswith("."), f"left behind: {path}"
        check_file(path)


def check_file(path: Path) -> None:
    if path.name.endswith(".nii.gz"):
        np.asanyarray(nib.load(path).dataobj)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".csv":
        assert path.read_text().endswith("\n")
    elif path.name == "weights.safetensors" and (path.parent / "segmenter.json").exists():
        load_segmenter(path.parent)


# --- the disk is full ------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 1500, 4000])
@pytest.mark.parametrize("command", ["adapt", "segment", "evaluate"])
def test_no_room_for_a_file(scans, capsys, command, size):
    out = scans / "out"
    words = {
        "adapt": ("adapt", *support(scans)),
        "segment": ("segment", scans / "cohort", *support(scans), "--probabilities", "--no-previews"),
        "evaluate": ("evaluate", scans / "reference", "-r", scans / "reference"),
    }[command]
    with largest_file(size):
        code = run(*words, "-o", out, "--quiet")
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert code in ((1, 2) if size < 1000 else (0, 1, 2)), told
    if code:
        assert told.startswith("medfewshot: ")
        assert str(out) in told or "out/" in told, told
    if out.exists():
        check_whole(out)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_really_full(scans, tmp_path, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=48k tmpfs '{disk}' 2>/dev/null") != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        words = ("segment", scans / "cohort", *support(scans), "-o", disk / "out", "--probabilities", "--quiet")
        code = run(*words)
        told = capfd.readouterr().err
        assert code in (1, 2)
        assert "No space left on device" in told
        assert "Traceback" not in told
        check_whole(disk / "out")
    finally:
        os.system(f"umount '{disk}'")


def test_a_folder_that_may_not_be_written_to(scans, monkeypatch, capfd):
    """As another user where this one may write everywhere."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    shutil.copytree(scans / "annotated", folder / "annotated")
    shutil.copytree(scans / "cohort", folder / "cohort")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if user == 0:
            os.seteuid(65534)
        for words in (("segment", folder / "cohort"), ("adapt",)):
            assert run(*words, *support(folder), "-o", folder / "out" / "deep", "--quiet") == 2
            told = capfd.readouterr().err
            assert told.count("\n") == 1
            assert str(folder) in told
    finally:
        os.seteuid(user)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


# --- memory ----------------------------------------------------------------------------------------------------------


class Greedy(toys.ToySegmenter):
    """Says that it lives on a GPU, where it finds no memory."""

    device = torch.device("cuda")

    def forward(self, image):
        if self.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\n(and a page of advice)")
        return super().forward(image)

    def copy_to(self, device):
        moved = super().copy_to(device)
        moved.device = device
        return moved


@pytest.fixture
def adapted(scans):
    return adapt(read_supports(scans / "annotated"), AdaptSettings(learner="toy", device="cpu"))


def test_a_device_without_memory_hands_over_to_the_cpu(scans, adapted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    volume = read_image(scans / "cohort" / "q0.nii.gz")
    usual = segment_volume(volume, adapted.plan, adapted.segmenter)
    result = segment_volume(volume, adapted.plan, Greedy(adapted.segmenter.means))
    assert np.array_equal(result.labels, usual.labels)
    assert result.warnings == (
        "the device ran out of memory: segmented on the CPU; the result is as good, only slower",
    )


def out_of_memory(image):
    raise torch.OutOfMemoryError("out of memory")


def test_no_memory_anywhere(scans, adapted):
    greedy = Greedy(adapted.segmenter.means)
    greedy.device = torch.device("cpu")
    greedy.forward = out_of_memory
    with pytest.raises(RuntimeError, match="no larger device"):
        segment_volume(read_image(scans / "cohort" / "q0.nii.gz"), adapted.plan, greedy)


# --- signals ---------------------------------------------------------------------------------------------------------


def start(told: Path, *words: object) -> int:
    """The command in a forked process, which has everything imported and writes to ``told``; its process id."""
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = told.open("w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 99
        try:
            code = run(*words)
        except KeyboardInterrupt:  # in the moment after the command ended
            code = 130
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_stopped_at_any_moment_and_resumed(scans, tmp_path, name):
    torch.set_num_threads(1)  # no thread pool to be lost in a fork
    words = ("segment", scans / "cohort", *support(scans), "--probabilities", "--quiet", "--no-previews")
    begun = time.perf_counter()
    assert wait(start(tmp_path / "told", *words, "-o", tmp_path / "whole")) == 0
    usual = time.perf_counter() - begun
    truth = {path.name: nib.load(path).get_fdata() for path in (tmp_path / "whole").glob("*.nii.gz")}
    for number, share in enumerate((0.3, 0.6, 0.9)):
        out = tmp_path / f"out{number}"
        child = start(tmp_path / "told", *words, "-o", out)
        time.sleep(share * usual)
        os.kill(child, getattr(signal, name))
        code = wait(child)
        assert code in (0, 130 if name == "SIGINT" else -signal.SIGKILL), (tmp_path / "told").read_text()
        if out.exists() and name == "SIGINT":
            check_whole(out)
        for path in (path for path in out.rglob("[!.]*.*") if path.is_file()):
            check_file(path)
        assert run(*words, "-o", out, "--resume") == 0
        assert {path.name for path in out.glob("[!.]*.nii.gz")} == set(truth)
        for path, expected in truth.items():
            assert np.array_equal(nib.load(out / path).get_fdata(), expected)
        assert json.loads((out / "run.json").read_text())["finished"]


class Interrupted(toys.ToyLearner):
    """Stands for compiled code, which turns an interrupt into an error of its own."""

    def adapt(self, support):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise SystemError("returned a result with an exception set") from None


def test_an_interrupt_that_became_another_error(scans, tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "toy", replace(toys.TOY, learner=Interrupted))
    told = tmp_path / "told"
    assert wait(start(told, "adapt", *support(scans), "-o", tmp_path / "model")) == 130
    assert told.read_text().splitlines()[-1] == "medfewshot: interrupted"
    assert not (tmp_path / "model").exists()
