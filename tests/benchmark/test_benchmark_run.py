"""Many cells: each in a process of its own, failures recorded, nothing run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toys
import yaml
from boards import DATASET, make_config, only_cell, write_cell

from medfewshot.benchmark import (
    CellState,
    load_benchmark,
    outdated,
    plan_cells,
    prepare_data,
    run_benchmark,
    state_of,
    write_report,
)
from medfewshot.benchmark.processes import ChildProcess, write_failure
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import InputError
from medfewshot.synthetic import write_blob_dataset
from medfewshot.types import Progress


@pytest.fixture
def cells(monkeypatch):
    toys.install(monkeypatch)
    return plan_cells(make_config(seeds=[0, 1]))


def crash(cell, data, folder, device, progress) -> None:
    print("chatter", flush=True)
    progress.update(1, 4, "step")
    os.kill(os.getpid(), signal.SIGKILL)


def tarry(cell, data, folder, device, progress) -> None:
    progress.update(0, 1, str(os.getpid()))
    time.sleep(600)


def blunder(*words) -> None:
    raise ZeroDivisionError("twice\nover")


def fill_disk(*words) -> None:
    raise OSError(28, "No space left on device", "runs/scores.csv")


def test_a_cell_that_cannot_write_names_the_file(tmp_path, cells):
    outcome = run_benchmark(cells[:1], tmp_path, tmp_path, "cpu", runner=ChildProcess(fill_disk))
    assert outcome.failed == {cells[0].id: "runs/scores.csv: No space left on device; check the disk and the path"}


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


def test_a_finished_cell_is_outdated_if_its_data_changed(tmp_path):
    sets = [{"name": name, "modality": "MR", "pool": [0, 1], "queries": [1, 2]} for name in ("a", "b")]
    cells = plan_cells(make_config(datasets=sets))
    for cell in cells:
        write_cell(cell, tmp_path / "run", {"case": {1: 0.5}})
        (tmp_path / cell.dataset.source).mkdir(exist_ok=True)
        (tmp_path / cell.dataset.source / "labels.nii.gz").touch()
        os.utime(tmp_path / cell.dataset.source / "labels.nii.gz", (0, 0))
    assert outdated(cells, tmp_path, tmp_path / "run") == []
    (tmp_path / "b" / "labels.nii.gz").touch()
    assert outdated(cells, tmp_path, tmp_path / "run") == [cell.id for cell in cells if cell.dataset.name == "b"]


def test_a_crash_costs_one_cell_and_is_tried_again(tmp_path, cells):
    data = prepare_data(cells, None, tmp_path)
    told, seen = [], []
    progress = Progress(lambda event: seen.append((event.done, event.total, event.text)))
    outcome = run_benchmark(cells[:1], data, tmp_path, "cpu", progress, told.append, runner=ChildProcess(crash))
    assert "signal 9, out of memory perhaps" in outcome.failed[cells[0].id]
    assert (0.25, 1, f"{cells[0].id}: step") in seen
    assert (cells[0].folder(tmp_path) / "log.txt").read_text() == "chatter\n"
    assert told == [f"{cells[0].id}: failed: {outcome.failed[cells[0].id]}"]
    assert state_of(cells[0], tmp_path) is CellState.FAILED
    outcome = run_benchmark(cells, data, tmp_path, "cpu", runner=run_cell)
    assert outcome.done == [cell.id for cell in cells]
    assert state_of(cells[0], tmp_path) is CellState.DONE


def test_what_a_kill_left_of_a_finished_cell_is_removed(tmp_path, cells):
    data = prepare_data(cells, None, tmp_path)
    run_benchmark(cells[:1], data, tmp_path, "cpu", runner=run_cell)
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


def test_volumes_that_were_replaced_in_part_are_made_again(tmp_path, monkeypatch):
    import nibabel

    def files():
        return {path.name: path.read_bytes() for path in sorted(tmp_path.glob("*/*"))}

    write_blob_dataset(tmp_path, 2, seed=0)
    before, save = files(), nibabel.save

    def killed(image, path):
        if files() != before:
            raise KeyboardInterrupt
        save(image, path)

    monkeypatch.setattr(nibabel, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        write_blob_dataset(tmp_path, 2, seed=1)
    monkeypatch.undo()
    write_blob_dataset(tmp_path, 2, seed=0)
    assert files() == before


def test_a_scan_that_cannot_be_read_fails_its_cell_with_its_name(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    cell = only_cell()
    data = prepare_data([cell], None, tmp_path)
    (data / "blobs" / "imagesTr" / "blob_004.nii.gz").write_bytes(b"nothing")

    def here(cell, data, folder, device, progress):
        with pytest.raises(InputError) as error:
            run_cell(cell, data, folder, device)
        write_failure(folder, cell, str(error.value))

    outcome = run_benchmark([cell], data, tmp_path, "cpu", runner=here)
    assert "blob_004.nii.gz" in outcome.failed[cell.id]


def test_a_cell_of_other_settings_is_not_taken_for_this_one(tmp_path, cells):
    write_cell(cells[0], tmp_path, {"blob_002": {1: 0.5}}, fingerprint="another")
    with pytest.raises(InputError, match="was run with other settings"):
        run_benchmark(cells, tmp_path, tmp_path, "cpu")
    with pytest.raises(InputError, match="was run with other settings"):
        prepare_data(cells, None, tmp_path)
    assert not (tmp_path / "data").exists()
    (cells[0].folder(tmp_path) / "cell.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        state_of(cells[0], tmp_path)


def test_two_benchmarks_in_one_folder_share_the_work(tmp_path, cells):
    data = prepare_data(cells, None, tmp_path)
    begun, go_on, ran = threading.Event(), threading.Event(), []

    def slow(cell, data, folder, device, progress):
        begun.set()
        assert go_on.wait(30)
        ran.append(cell.id)
        run_cell(cell, data, folder, device)

    first = threading.Thread(target=run_benchmark, args=(cells[:1], data, tmp_path, "cpu"), kwargs={"runner": slow})
    first.start()
    assert begun.wait(30)
    outcome = run_benchmark(cells[:1], data, tmp_path, "cpu")
    go_on.set()
    first.join(30)
    assert outcome.busy == ran == [cells[0].id]


def test_a_programming_error_is_named_on_one_line(tmp_path, cells):
    outcome = run_benchmark(cells[:1], tmp_path, tmp_path, "cpu", runner=ChildProcess(blunder))
    assert outcome.failed == {cells[0].id: "ZeroDivisionError: twice over"}
    assert "Traceback" in (cells[0].folder(tmp_path) / "log.txt").read_text()


def test_an_interrupted_benchmark_leaves_no_child_behind(tmp_path, cells):
    children = []

    def stop(event):
        if event.text != cells[0].id:
            children.append(int(event.text.split()[-1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(cells, tmp_path, tmp_path, "cpu", Progress(stop), runner=ChildProcess(tarry))
    (process,) = children
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_datasets_that_are_not_needed_need_not_be_there(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    monkeypatch.delenv("MEDFEWSHOT_DATA", raising=False)
    cells = plan_cells(make_config(datasets=[DATASET, {"name": "abd-mr-chaos"}]))
    assert prepare_data(cells[:1], None, tmp_path) == tmp_path / "data"
    with pytest.raises(InputError, match="give it or set MEDFEWSHOT_DATA"):
        prepare_data(cells, None, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_benchmark_goes_on_and_leaves_no_child_behind(tmp_path):
    """SIGKILL lets nobody tidy up: the child sees that its parent is gone, and the folder says how far it got."""
    content = {
        "datasets": [{**DATASET, "queries": [2, 6]}],
        "learners": [{"name": "a", "learner": "finetune", "steps": 5, "width": 4}],
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
    children = children_of(parent.pid)
    assert children
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not (tmp_path / "killed" / cell / "failure.json").exists()
    assert subprocess.run([*words, str(tmp_path / "killed")], check=False).returncode == 0
    config = load_benchmark(board)
    cells = plan_cells(config)
    data = prepare_data(cells, None, tmp_path / "whole")
    run_benchmark(cells, data, tmp_path / "whole", "cpu", runner=run_cell)
    write_report(config, tmp_path / "whole", tmp_path / "whole" / "report")
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


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def without_seconds(text: str) -> list[str]:
    return [line.rpartition(",")[0] for line in text.splitlines()]
