"""The Python examples in the documentation run, from top to bottom, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import toys

from medfewshot.learners import LEARNERS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python" in path.read_text(encoding="utf-8"))


class QuickLearner(toys.ToyLearner):
    """The toy in the place of a default learner, which starts from weights."""

    def __init__(self, start: Any = None, steps: int = 1, seed: int = 0, device: Any = None, progress: Any = None) -> None:
        super().__init__(seed, device, steps, progress)


def test_there_are_examples():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_examples(page, tmp_path, monkeypatch):
    toys.install(monkeypatch)
    for default in ("hybrid", "finetune"):
        monkeypatch.setitem(LEARNERS, default, QuickLearner)
    toys.make_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names: dict = {}
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        line = text[: match.start(1)].count("\n")
        exec(compile("\n" * line + match[1], str(page), "exec"), names)  # the traceback names the page's own line
