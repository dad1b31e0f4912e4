"""Random command lines end with an exit code and a line, never with a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfewshot.cli import main

COMMANDS = ("segment", "adapt", "evaluate", "inspect")
OPTIONS = [
    "--support", "--support-dir", "--segmenter", "--learner", "--steps", "--budget", "--seed", "--labels", "--modality",
    "--spacing", "--config", "--device", "--quality", "--probabilities", "--uncertainty", "--resume", "--overwrite",
    "--quiet", "--json", "-r", "--tolerance", "--no-previews", "--version", "-h", "--", "-",
]  # fmt: skip
VALUES = [
    "annotated", "cohort", "cohort/q0.nii.gz", "reference", "segmenter", "nowhere", "=", ":", "a=b", "0", "-1", "1e400",
    "nan", "1,2", "205", "toy", "cpu", "cuda:9", "CT", "../..", "table.csv", "ü", "🧠", "", " ", "\n", "\x07",
    "annotated/images/s0.nii.gz=annotated/labels/s0.nii.gz",
]  # fmt: skip

words = st.lists(st.one_of(st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(max_size=8)), max_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = toys.make_folders(tmp_path_factory.mktemp("fuzz"), queries=1)
    (folder / "table.csv").write_text("image,label\n")
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(COMMANDS), more=words, output=st.booleans())
def test_any_words(root, monkeypatch, capsys, command, more, output):
    toys.install(monkeypatch)
    monkeypatch.chdir(root)
    # A learner that takes its time is of no use here.
    options = [*(["-o", "out"] if output else []), *(["--learner", "toy"] if command in ("segment", "adapt") else [])]
    words = ["medfewshot", command, *[word.replace("\0", "") for word in more], *options]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert stop.value.code in (0, 1, 2, None), told.err
    assert "Traceback" not in told.err
    if stop.value.code == 2:
        assert told.err.strip()
