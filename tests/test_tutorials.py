"""The tutorials' notebooks are executed, agree with their scripts, and tell nothing of the machine they ran on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9]*.py"))


def cells_of_script(path: Path) -> list[tuple[str, str]]:
    """(kind, source) of every cell of a script in Jupytext's percent format."""
    text = path.read_text(encoding="utf-8").split("# %%", 1)[1]
    cells = []
    for part in re.split(r"^# %%", "# %%" + text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        source = re.sub(r"^# ?" if kind == "markdown" else r"^# (?=!)", "", body, flags=re.M)
        cells.append((kind, source.strip()))
    return cells


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def pair(request):
    notebook = json.loads(request.param.with_suffix(".ipynb").read_text(encoding="utf-8"))
    return request.param, notebook


def test_there_are_tutorials():
    assert len(SCRIPTS) >= 4


def test_script_and_notebook_are_the_same(pair):
    script, notebook = pair
    found = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert found == cells_of_script(script)


def test_the_notebook_is_executed_without_errors(pair):
    _, notebook = pair
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) or "image/jpeg" in output.get("data", {}) for output in outputs)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)


def test_it_says_how_long_it_takes(pair):
    _, notebook = pair
    assert re.search(r"takes\s+about\s+\w+\s+minutes", " ".join("".join(c["source"]) for c in notebook["cells"][:1]))


def test_no_folder_of_this_machine_is_in_it(pair):
    _, notebook = pair
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = json.dumps({**output, "data": {k: v for k, v in output.get("data", {}).items() if "text" in k}})
            assert not re.search(r"/(?:home|root|tmp|work|Users|usr|opt)/", text), text[:300]
