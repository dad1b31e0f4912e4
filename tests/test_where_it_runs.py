"""Users without a name or a home, full temporary folders, old locales: a result, and nothing on standard error."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toys

REPOSITORY = Path(__file__).resolve().parents[1]
UNKNOWN_USER = [
    "setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups",
    "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",  # to reach the interpreter, not to write
]  # fmt: skip
WITHOUT_A_NAME = """
import os, pwd, sys
def nobody(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
import medfewshot, monai
print(os.environ["LOGNAME"], monai.__name__)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may reach: pytest's own is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="Müller-"))
    toys.make_folders(folder, supports=1, queries=1)
    (folder / "home").mkdir(mode=0o555)
    (folder / "out").mkdir()
    for path in (folder, folder / "out"):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def environment(**more: str) -> dict[str, str]:
    """Nothing but what Python needs to find the package."""
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def command(place: Path, learner: str = "atlas") -> list[str]:
    pair = f"{place}/annotated/images/s0.nii.gz={place}/annotated/labels/s0.nii.gz"
    words = ["segment", f"{place}/cohort", "--support", pair, "--learner", learner, "-o", f"{place}/out/run", "--quiet"]
    return [sys.executable, "-m", "medfewshot", *words]


def check(done: subprocess.CompletedProcess[str], place: Path) -> None:
    assert done.returncode == 0, done
    assert done.stderr == ""
    run = place / "out" / "run"
    assert {"q0.nii.gz", "report.html"} <= {path.name for path in run.iterdir()}
    assert (run / "previews" / "q0.png").is_file()


def allowed(*words: str) -> bool:
    """Whether this system lets this user run the command."""
    try:
        return subprocess.run([*words, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def test_a_user_without_a_name_or_a_home(place):
    """As under ``docker run --user 12345``; TMPDIR names no folder, and the locale is the oldest."""
    if not allowed(*UNKNOWN_USER):
        pytest.skip("setpriv may not change the user here")
    lacking = environment(TMPDIR="/no/such/folder", LC_ALL="C")
    done = subprocess.run([*UNKNOWN_USER, *command(place)], env=lacking, capture_output=True, text=True)
    check(done, place)


def test_without_a_name_monai_can_be_imported():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_A_NAME], env=environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == ["unknown", "monai"], done.stderr


def test_a_home_that_cannot_be_written_and_full_temporary_folders(place):
    if not allowed("unshare", "-m"):
        pytest.skip("unshare may not mount file systems here")
    fill = "mount -t tmpfs -o size=8k tmpfs {0} && head -c 8192 /dev/zero > {0}/full; "
    script = fill.format("/dev/shm") + fill.format("/var/tmp") + 'mount -t tmpfs -o ro tmpfs "$HOME" && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", *command(place)]
    lacking = environment(TMPDIR="/var/tmp", HOME=str(place / "home"), LANG="C", PYTHONUTF8="0")
    check(subprocess.run(words, env=lacking, capture_output=True, text=True), place)


def test_in_a_notebook(tmp_path, monkeypatch):
    """A notebook has threads and a running event loop: a fork could stop for ever, a second loop would fail."""
    import medfewshot

    def fork() -> int:
        raise AssertionError("a process with threads was forked")

    monkeypatch.setattr(os, "fork", fork)
    toys.install(monkeypatch)
    toys.make_folders(tmp_path, supports=1, queries=1)

    async def cell() -> medfewshot.Segmentation:
        segmenter = medfewshot.adapt(tmp_path / "annotated", learner="toy")
        return medfewshot.segment(tmp_path / "cohort" / "q0.nii.gz", segmenter)

    assert np.array_equal(asyncio.run(cell()).labels, toys.make_scan(10)[1])
