"""The command line in this process: exit code, standard output and standard error as a user gets them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import toys

from medfewshot.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """``run("segment", path, ...)``; ``--learner toy`` is known."""
    toys.install(monkeypatch)

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["medfewshot", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return Done(int(stop.value.code or 0), told.out, told.err)

    return call


@pytest.fixture
def scans(tmp_path) -> Path:
    return toys.make_folders(tmp_path)


@pytest.fixture
def support(scans) -> tuple[str, ...]:
    """Options that give the toy learner its support."""
    return ("--support-dir", str(scans / "annotated"), "--learner", "toy")
