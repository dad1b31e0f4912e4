"""The notebooks are executed, have the same cells as their scripts, and name no folder of the machine they ran on.

If the extra ``tutorials`` is installed, each script is also executed on synthetic scans with small settings.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from medfewshot.cli.app import app

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9]*.py"))
SMALL = {  # number of scans, and what replaces the parameters
    "01_first_segmentation": (4, "STEPS = 2"),
    "02_your_own_data": (8, 'STEPS, SHOTS, DRAWS = 1, "1", 1'),
    "03_comparing_learners": (2, "SHOTS, QUERIES, STEPS = 1, 1, (1,)"),
    "04_meta_training": (16, "STEPS, VALIDATION, ADAPTATION = 12, 1, (0, 1)"),
    "05_monai": (4, "STEPS = 2"),
    "06_reading_the_report": (6, "STEPS = 2"),
    "07_label_learn_correct": (3, "STEPS, ROUNDS = 1, 1"),
    "08_cine": (1, "STEPS, FRAMES = 1, 4"),
}


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


def test_it_says_how_long_it_took(pair):
    _, notebook = pair
    texts = ["".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert any(re.search(r"^This tutorial took \d+ seconds on \d+ CPU cores", text, re.M) for text in texts)


def test_no_folder_of_this_machine_is_in_it(pair):
    _, notebook = pair
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = json.dumps({**output, "data": {k: v for k, v in output.get("data", {}).items() if "text" in k}})
            assert not re.search(r"/(?:home|root|tmp|work|Users|usr|opt)/", text), text[:300]


def run_command(words: str) -> None:
    """Run the command of a ``!`` line in this process, in which everything is imported already."""
    python, _, name, *arguments = shlex.split(words)
    assert (python, name) == ("python", "medfewshot")
    result = CliRunner().invoke(app, arguments)
    print(result.output)
    assert isinstance(result.exception, SystemExit | None), result.output[-2000:]  # inspect ends with 1 on purpose
    assert not re.search(r"^(?:medfewshot: |Traceback)", result.output, re.M), result.output[-2000:]


@pytest.mark.slow
def test_it_runs_with_small_settings(pair, tmp_path, monkeypatch, capsys):
    """Runs every cell of the script in this process, with other parameters."""
    pytest.importorskip("IPython", reason="the extra 'tutorials' is not installed")
    script, _ = pair
    scans, settings = SMALL[script.stem]
    shutil.copytree(TUTORIALS, tmp_path / "tutorials", ignore=shutil.ignore_patterns("work"))
    monkeypatch.chdir(tmp_path / "tutorials")
    monkeypatch.syspath_prepend(tmp_path / "tutorials")
    monkeypatch.delitem(sys.modules, "scans", raising=False)
    small = {"MEDFEWSHOT_DATA": str(tmp_path / "nowhere"), "MEDFEWSHOT_SMALL": str(scans)}
    for name, value in {**small, "COLUMNS": "100", "TTY_COMPATIBLE": "0", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TUTORIALS.parent), os.environ.get("PYTHONPATH", "")]))
    variables: dict[str, Any] = {"__name__": "__main__", "run_command": run_command}
    parameters, *cells = [source for kind, source in cells_of_script(script) if kind == "code"]
    for source in (parameters, settings, *cells):
        code = re.sub(r"^!(.*)$", lambda found: f"run_command(f{found[1]!r})", source, flags=re.M)
        exec(compile(code, str(script), "exec"), variables)
    figures = plt.get_fignums()
    plt.close("all")
    assert figures
    assert "synthetic" in capsys.readouterr().out
