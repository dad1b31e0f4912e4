"""The Python examples in the documentation run, from top to bottom, as a reader would run them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import toys

from medfewshot.learners import LEARNERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "```python" in path.read_text(encoding="utf-8")]
PAGES.append(ROOT / "README.md")


@dataclass(frozen=True)
class QuickLearner(toys.ToyLearner):
    """The toy in the place of a default learner, which starts from weights."""

    start: Any = None


def test_there_are_examples():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_examples(page, tmp_path, monkeypatch):
    toys.install(monkeypatch)
    for default in ("hybrid", "finetune"):
        monkeypatch.setitem(LEARNERS, default, replace(LEARNERS[default], learner=QuickLearner, options=()))
    toys.make_folders(tmp_path)
    names_of = {"image": "img", "label": "lab"}
    for number in range(2):  # README names single files
        for kind in ("image", "label"):
            source = tmp_path / "annotated" / f"{kind}s" / f"s{number}.nii.gz"
            shutil.copy(source, tmp_path / f"{names_of[kind]}{number + 1}.nii.gz")
    shutil.copy(tmp_path / "cohort" / "q0.nii.gz", tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names: dict = {}
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        line = text[: match.start(1)].count("\n")
        exec(compile("\n" * line + match[1], str(page), "exec"), names)  # the traceback names the page's own line
