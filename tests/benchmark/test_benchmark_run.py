"""Many cells: each in a process of its own, failures recorded, nothing run twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toys
import yaml
from boards import DATASET, make_config, only_cell, write_cell

from medfewshot.benchmark import CellState, plan_cells, prepare_data, run_benchmark, state_of
from medfewshot.benchmark import run as module
from medfewshot.benchmark.cell import run_cell
from medfewshot.errors import InputError
from medfewshot.types import Progress


@pytest.fixture
def cells(monkeypatch):
    toys.install(monkeypatch)
    return plan_cells(make_config(seeds=[0, 1]))


def in_child(monkeypatch, code: str) -> None:
    """Cells run this Python code in place of the real thing; ``folder`` is theirs."""
    text = f"import os, sys, json, pathlib; folder = pathlib.Path(sys.argv[1]); {code}"
    monkeypatch.setattr(module, "_command", lambda folder: [sys.executable, "-c", text, str(folder)])


def test_a_cell_runs_in_a_process_of_its_own(tmp_path):
    cell = only_cell(learners=[{"name": "a", "learner": "finetune", "steps": 2, "width": 4}], queries=1)
    told, seen = [], []
    data = prepare_data([cell], None, tmp_path)
    progress = Progress(lambda event: seen.append((event.done, event.total, event.text)))
    outcome = run_benchmark([cell], data, tmp_path, "cpu", progress, told.append)
    assert (outcome.done, outcome.failed) == ([cell.id], {})
    assert told[0].startswith("blobs/a/k1/s0: Dice 0.")
    record = json.loads((cell.folder(tmp_path) / "cell.json").read_text())
    assert record["steps"] == 2
    assert record["peak_gb"]["all"] > 0.1
    assert (cell.folder(tmp_path) / "log.txt").read_text() == ""
    assert any("blobs/a/k1/s0: " in text for _, _, text in seen)
    again = run_benchmark([cell], data, tmp_path, "cpu")
    assert (again.done, again.skipped) == ([], [cell.id])


def test_a_crash_costs_one_cell_and_is_tried_again(tmp_path, cells, monkeypatch):
    data = prepare_data(cells, None, tmp_path)
    in_child(monkeypatch, "os.kill(os.getpid(), 9)")
    told = []
    outcome = run_benchmark(cells[:1], data, tmp_path, "cpu", tell=told.append)
    assert "signal 9, out of memory perhaps" in outcome.failed[cells[0].id]
    assert told == [f"{cells[0].id}: failed: {outcome.failed[cells[0].id]}"]
    assert state_of(cells[0], tmp_path) is CellState.FAILED
    monkeypatch.setattr(module, "_run_child", lambda cell, data, folder, device, progress: run_cell(cell, data, folder))
    outcome = run_benchmark(cells, data, tmp_path, "cpu")
    assert outcome.done == [cell.id for cell in cells]
    assert state_of(cells[0], tmp_path) is CellState.DONE


def test_what_a_kill_left_of_a_finished_cell_is_removed(tmp_path, cells, monkeypatch):
    data = prepare_data(cells, None, tmp_path)
    monkeypatch.setattr(module, "_run_child", lambda cell, data, folder, device, progress: run_cell(cell, data, folder))
    run_benchmark(cells[:1], data, tmp_path, "cpu")
    folder = cells[0].folder(tmp_path)
    whole = sorted(path.name for path in folder.iterdir())
    (folder / "cases").mkdir()
    (folder / "cases" / "blob_004.json").write_text("{}")
    (folder / "failure.json").write_text("{}")
    assert run_benchmark(cells[:1], data, tmp_path, "cpu").skipped == [cells[0].id]
    assert sorted(path.name for path in folder.iterdir()) == whole


def test_a_made_up_scan_is_whole_or_absent(tmp_path, monkeypatch):
    import nibabel

    toys.install(monkeypatch)

    def killed(image, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nibabel, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_data([only_cell()], None, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_scan_that_cannot_be_read_fails_its_cell_with_its_name(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    cell = only_cell()
    data = prepare_data([cell], None, tmp_path)
    (data / "blobs" / "imagesTr" / "blob_004.nii.gz").write_bytes(b"nothing")
    from medfewshot.benchmark.child import write_failure

    def here(cell, data, folder, device, progress):
        with pytest.raises(InputError) as error:
            run_cell(cell, data, folder, device)
        write_failure(folder, cell, str(error.value))

    monkeypatch.setattr(module, "_run_child", here)
    outcome = run_benchmark([cell], data, tmp_path, "cpu")
    assert "blob_004.nii.gz" in outcome.failed[cell.id]


def test_a_cell_of_other_settings_is_not_taken_for_this_one(tmp_path, cells):
    write_cell(cells[0], tmp_path, {"blob_002": {1: 0.5}}, fingerprint="another")
    with pytest.raises(InputError, match="was run with other settings"):
        run_benchmark(cells, tmp_path, tmp_path, "cpu")
    (cells[0].folder(tmp_path) / "cell.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        state_of(cells[0], tmp_path)


def test_two_benchmarks_in_one_folder_share_the_work(tmp_path, cells, monkeypatch):
    data = prepare_data(cells, None, tmp_path)
    begun, go_on, ran = threading.Event(), threading.Event(), []

    def slow(cell, data, folder, device, progress):
        begun.set()
        assert go_on.wait(30)
        ran.append(cell.id)
        run_cell(cell, data, folder, device)

    monkeypatch.setattr(module, "_run_child", slow)
    first = threading.Thread(target=run_benchmark, args=(cells[:1], data, tmp_path, "cpu"))
    first.start()
    assert begun.wait(30)
    outcome = run_benchmark(cells[:1], data, tmp_path, "cpu")
    go_on.set()
    first.join(30)
    assert outcome.busy == ran == [cells[0].id]


def test_progress_of_a_child_is_passed_on(tmp_path, cells, monkeypatch):
    in_child(monkeypatch, "print('chatter'); print(json.dumps([1, 4, 'step']), flush=True)")
    seen = []
    run_benchmark(
        cells[:1], tmp_path, tmp_path, "cpu", Progress(lambda event: seen.append((event.done, event.total, event.text)))
    )
    assert (0.25, 1, f"{cells[0].id}: step") in seen


def test_an_interrupted_benchmark_leaves_no_child_behind(tmp_path, cells, monkeypatch):
    in_child(monkeypatch, "print(json.dumps([os.getpid(), 1, 'up']), flush=True); sys.stdin.read()")
    children = []

    def stop(event):
        if event.text.endswith("up"):
            children.append(event.text)
            raise KeyboardInterrupt

    started = []
    popen = module.subprocess.Popen
    monkeypatch.setattr(module.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(cells, tmp_path, tmp_path, "cpu", Progress(stop))
    assert len(started) == len(children) == 1
    assert started[0].returncode == -9


def test_datasets_that_are_not_needed_need_not_be_there(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    monkeypatch.delenv("MEDFEWSHOT_DATA", raising=False)
    cells = plan_cells(make_config(datasets=[DATASET, {"name": "abd-mr-chaos"}]))
    assert prepare_data(cells[:1], None, tmp_path) == tmp_path / "data"
    with pytest.raises(InputError, match="give --data FOLDER or set MEDFEWSHOT_DATA"):
        prepare_data(cells, None, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_benchmark_goes_on_and_leaves_no_child_behind(tmp_path):
    """SIGKILL lets nobody tidy up: the child sees that its parent is gone, and the folder says how far it got."""
    content = {
        "datasets": [{**DATASET, "queries": [2, 6]}],
        "learners": [{"name": "a", "learner": "finetune", "steps": 60, "width": 8}],
        "shots": [1],
        "seeds": [0],
    }
    board = tmp_path / "board.yaml"
    board.write_text(yaml.safe_dump(content))
    words = [sys.executable, "-m", "medfewshot", "benchmark", str(board), "--device", "cpu", "-q", "-o"]
    cell = Path("cells/blobs/a/k1/s0")
    parent = subprocess.Popen([*words, str(tmp_path / "killed")])
    cases = tmp_path / "killed" / cell / "cases"
    wait_for(lambda: cases.is_dir() and any(cases.glob("*.json")))
    parent.kill()
    parent.wait()
    wait_for(lambda: not child_of(tmp_path / "killed" / cell))
    assert not (tmp_path / "killed" / cell / "failure.json").exists()
    for name in ("killed", "whole"):
        assert subprocess.run([*words, str(tmp_path / name)], check=False).returncode == 0
    killed, whole = ((tmp_path / name / cell / "scores.csv").read_text() for name in ("killed", "whole"))
    assert without_seconds(killed) == without_seconds(whole)
    tables = [(tmp_path / name / "report" / "tables.md").read_text() for name in ("killed", "whole")]
    killed, whole = (text.split("## Scores")[1].split("## Costs")[0] for text in tables)
    assert killed == whole  # costs are the machine's


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def child_of(folder: Path) -> bool:
    """Whether a process still works for the cell in ``folder``."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words:
            return True
    return False


def without_seconds(text: str) -> list[str]:
    return [line.rpartition(",")[0] for line in text.splitlines()]
