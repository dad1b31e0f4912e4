"""The container: its file keeps the rules, and the script that executes it reads it as an engine does."""

from __future__ import annotations

from lab.studies.container import CHECKOUT, ignored, instructions

FILE = [*instructions((CHECKOUT / "Dockerfile").read_text(encoding="utf-8"))]


def test_the_file_keeps_the_rules():
    last = [keyword for keyword, _ in FILE]
    last = FILE[len(last) - last[::-1].index("FROM") - 1 :]
    found = dict(last)
    assert found["USER"].split(":")[0].isdigit()
    assert int(found["USER"].split(":")[0]) > 0
    assert {"HEALTHCHECK", "ENTRYPOINT", "WORKDIR"} <= set(found)
    assert all("pip" not in text for _, text in last)  # only the stage that builds needs a network
    installs = [text for keyword, text in FILE if keyword == "RUN" and "pip install" in text]
    assert len(installs) == 2
    assert all("-c constraints.txt" in text for text in installs)
    assert not any(text.endswith(":latest") or ":" not in text for keyword, text in FILE if keyword == "FROM")
    assert [text.partition("=")[0] for keyword, text in FILE if keyword == "ARG"] == ["PYTHON", "DEVICE", "EXTRAS"]


def test_lines_are_joined_and_comments_ignored():
    text = '# a\nFROM x\n\nRUN a && \\\n    # why\n    b\nCMD ["c"]\n'
    assert [*instructions(text)] == [("FROM", "x"), ("RUN", "a &&      b"), ("CMD", '["c"]')]


def test_the_last_pattern_decides():
    patterns = ["*", "!medfewshot", "**/__pycache__"]
    assert ignored("tests/a.py", patterns)
    assert not ignored("medfewshot/io/a.py", patterns)
    assert ignored("medfewshot/__pycache__/a.pyc", patterns)
