"""``medfewshot annotate``: what it prints, refuses and leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner
from workbench_toys import write_phantom

from medfewshot.cli.app import app
from medfewshot.io import claimed

COMMAND = [sys.executable, "-m", "medfewshot", "annotate"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [([], "--demo"), (["scans", "--demo"], "--demo"), (["nowhere"], "nowhere"), (["empty"], "empty")],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, words, problem):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["annotate", *words])
    assert result.exit_code == 2
    assert problem in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_taken_port_is_one_line(tmp_path, monkeypatch):
    write_phantom(tmp_path / "scans/a.nii.gz")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["annotate", "scans", "--host", "203.0.113.9", "--no-browser"])
    assert result.exit_code == 2
    assert "203.0.113.9" in result.output.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_a_second_workbench_of_one_project_is_one_line(tmp_path, monkeypatch):
    write_phantom(tmp_path / "scans/a.nii.gz")
    monkeypatch.chdir(tmp_path)
    with claimed(tmp_path / "scans_project"):
        result = CliRunner().invoke(app, ["annotate", "scans", "--no-browser"])
    assert result.exit_code == 2
    assert "another workbench" in result.output.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "cluster"])
def test_the_address_opens_the_page_and_a_signal_ends_it(ends, tmp_path):
    write_phantom(tmp_path / "scans/a.nii.gz")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [*COMMAND, "scans", "--no-browser", "--quiet"], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"workbench" in answer.read()
        process.send_signal(ends)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "everything drawn is saved" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "scans_project/project.json").is_file()
