"""One cell: what it leaves behind, and that nothing is done twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toys
from boards import BLOBS, DATASET, only_cell

from medfewshot.benchmark import load_benchmark, plan_cells, prepare_data
from medfewshot.benchmark.adaptation import adapt_cell
from medfewshot.benchmark.results import read_result
from medfewshot.benchmark.run_cell import check_seen, find_scans, run_cell
from medfewshot.errors import InputError
from medfewshot.io import EXPORTS, read_label
from medfewshot.synthetic import write_blob_dataset
from medfewshot.types import Progress

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "benchmark"


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toys.install(monkeypatch)


@pytest.fixture
def data(tmp_path):
    return prepare_data([only_cell()], None, tmp_path / "run")


def scores_of(folder, leave_out=("seconds",)):
    with (folder / "scores.csv").open() as stream:
        return [{key: v for key, v in row.items() if key not in leave_out} for row in csv.DictReader(stream)]


def test_a_cell_leaves_its_scores_and_its_record(tmp_path, data):
    cell = only_cell(seeds=[1])
    run_cell(cell, data, tmp_path / "cell", "cpu")
    rows = scores_of(tmp_path / "cell", ())
    cases = [f"blob_{index:03}" for index in range(2, 6)]
    assert [(row["case_id"], row["label"]) for row in rows] == [(case, label) for case in cases for label in "12"]
    assert all(float(row["seconds"]) > 0 and float(row["reference_volume_ml"]) > 0 for row in rows)
    assert all(0 < float(row["confidence"]) <= 1 for row in rows if row["status"] == "found")
    record = json.loads((tmp_path / "cell" / "cell.json").read_text())
    assert record["supports"][0] in ("blob_000", "blob_001")
    assert (record["protocol"], record["id"], record["queries"]) == ("volume", "blobs/toy/k1/s1", 4)
    assert record["fingerprint"] == cell.fingerprint
    assert record["steps"] == 1
    assert record["peak_gb"]["all"] >= record["peak_gb"]["adapt"] > 0.05
    assert record["seconds"]["adapt"] >= 0
    assert record["seconds_per_query"] > 0
    assert record["versions"]["torch"]
    assert record["labels"] == {"1": "blob 1", "2": "blob 2"}
    assert read_result(cell, tmp_path / "cell").dice == pytest.approx(
        sum(float(row["dice"]) for row in rows) / len(rows)
    )
    # The segmenter and the parts are gone once the whole is there.
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["cell.json", "scores.csv"]


def test_the_first_queries_and_some_labels_only(tmp_path, data):
    cell = only_cell(queries=2, datasets=[{**DATASET, "labels": [2]}])
    run_cell(cell, data, tmp_path / "cell", "cpu")
    assert [(row["case_id"], row["label"]) for row in scores_of(tmp_path / "cell")] == [
        ("blob_002", "2"),
        ("blob_003", "2"),
    ]


def test_references_are_matched_by_the_names_of_their_structures(tmp_path, data):
    """In 3D Slicer, one structure can have different numbers in different scans."""
    cell = only_cell(queries=1)
    run_cell(cell, data, tmp_path / "first", "cpu")
    root = data / "blobs"
    stored = read_label(root / "labelsTr" / "blob_002.nii.gz")
    swapped = np.array([0, 2, 1], np.uint8)[stored.data[0]]
    file = root / "labelsTr" / "blob_002.seg.nrrd"
    EXPORTS["seg_nrrd"].write(file, swapped, {1: "blob 2", 2: "blob 1"}, stored, {})
    table = (root / "dataset.json").read_text()
    assert "labelsTr/blob_002.nii.gz" in table
    (root / "dataset.json").write_text(table.replace("labelsTr/blob_002.nii.gz", "labelsTr/blob_002.seg.nrrd"))
    run_cell(cell, data, tmp_path / "second", "cpu")
    assert scores_of(tmp_path / "second") == scores_of(tmp_path / "first")
    EXPORTS["seg_nrrd"].write(file, swapped, {1: "blob 2", 2: "another"}, stored, {})
    with pytest.raises(InputError, match="label 2 is 'another'"):
        run_cell(cell, data, tmp_path / "third", "cpu")


class Watched:
    """Adapts as ever; counts the volumes that are segmented."""

    def __init__(self) -> None:
        self.segmented = 0

    def adapt(self, *words):
        segmenter = adapt_cell(*words)

        def segment(volume):
            self.segmented += 1
            return segmenter.segment(volume)

        return SimpleNamespace(plan=segmenter.plan, record=segmenter.record, segment=segment)


@pytest.mark.parametrize("stop_at", [0, 2, 4])
def test_a_cell_that_was_stopped_goes_on_where_it_was(tmp_path, data, stop_at):
    cell = only_cell()
    run_cell(cell, data, tmp_path / "whole", "cpu")
    toys.ToyLearner.adapted = 0

    def stop(event):
        if event.text.startswith(("segmenting", "writing")) and event.done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, data, tmp_path / "parts", "cpu", Progress(stop))
    assert not (tmp_path / "parts" / "cell.json").exists()
    assert toys.ToyLearner.adapted == 1
    watched = Watched()
    run_cell(cell, data, tmp_path / "parts", "cpu", adapt=watched.adapt)
    assert toys.ToyLearner.adapted == 1
    assert watched.segmented == 4 - stop_at
    assert scores_of(tmp_path / "parts") == scores_of(tmp_path / "whole")


def test_the_whole_pool_is_the_support(data):
    _, supports, queries, _ = find_scans(only_cell(shots=["all"], seeds=[3]), data)
    assert [case.case_id for case in supports] == ["blob_000", "blob_001"]
    assert len(queries) == 4


def test_the_same_cell_twice_gives_the_same_scores(tmp_path, data):
    cell = only_cell(learners=[{"name": "a", "learner": "finetune", "steps": 3, "width": 4}], queries=2)
    for name in ("first", "second"):
        run_cell(cell, data, tmp_path / name, "cpu")
    assert scores_of(tmp_path / "first") == scores_of(tmp_path / "second")
    other = cell.model_copy(update={"seed": 1})
    run_cell(other, data, tmp_path / "third", "cpu")
    assert scores_of(tmp_path / "third") != scores_of(tmp_path / "first")


def test_a_label_that_no_support_marks_is_left_out_and_named(tmp_path, data):
    root = data / "blobs"
    table = json.loads((root / "dataset.json").read_text())
    table["labels"]["7"] = "rare"
    (root / "dataset.json").write_text(json.dumps(table))
    run_cell(only_cell(), data, tmp_path / "cell", "cpu")
    record = json.loads((tmp_path / "cell" / "cell.json").read_text())
    assert record["unmarked"] == ["rare"]
    assert {row["label"] for row in scores_of(tmp_path / "cell")} == {"1", "2"}
    with pytest.raises(InputError, match="no support of this draw marks rare"):
        run_cell(only_cell(datasets=[{**DATASET, "labels": [7]}]), data, tmp_path / "other", "cpu")


def test_weights_that_have_seen_a_query_are_refused(data):
    cell = only_cell()
    _, _, queries, _ = find_scans(cell, data)
    check_seen({"blobs": {"subjects": ["blob_000"]}, "other": {"subjects": ["blob_003"]}}, cell, queries)
    with pytest.raises(InputError, match="was trained on blob_003, a query of blobs"):
        check_seen({"blobs": {"subjects": ["blob_000", "blob_003"]}}, cell, queries)


def test_supports_and_queries_never_share_a_subject(data):
    _, supports, queries, _ = find_scans(only_cell(shots=[2], seeds=[5]), data)
    assert len(supports) == 2
    assert not {case.subject_id for case in supports} & {case.subject_id for case in queries}


def test_what_the_dataset_lacks_is_told(tmp_path, data):
    with pytest.raises(InputError, match="contains 6 labelled scans, the split reaches to number 8"):
        find_scans(only_cell(datasets=[{**DATASET, "queries": [2, 9]}]), data)
    with pytest.raises(InputError, match="has no label 5; it has 1, 2"):
        find_scans(only_cell(datasets=[{**DATASET, "labels": [5]}]), data)
    with pytest.raises(InputError, match="does not exist; give the folder"):
        prepare_data([only_cell(datasets=[{"name": "abd-mr-chaos"}], learners=[{"name": "toy", "learner": "toy"}])],
                     tmp_path, tmp_path)  # fmt: skip


def test_made_up_data_are_made_once(tmp_path):
    folder = write_blob_dataset(tmp_path / "a", **{**BLOBS, "shape": (14, 10, 8)})
    first = folder / "imagesTr" / "blob_000.nii.gz"
    before = first.stat().st_mtime_ns
    write_blob_dataset(folder, **{**BLOBS, "shape": (14, 10, 8)})
    assert first.stat().st_mtime_ns == before
    write_blob_dataset(folder, **{**BLOBS, "shape": (14, 10, 8), "seed": 1})
    assert first.stat().st_mtime_ns != before


@pytest.mark.real
def test_supports_and_queries_of_every_cell(data_root, tmp_path):
    names: dict[str, int] = {}
    queried: dict[str, int] = {}
    cells = plan_cells(load_benchmark(CONFIGS / "learners.yaml"))
    assert prepare_data(cells, data_root, tmp_path) == data_root
    for cell in cells:
        if cell.learner.name != "random-100":
            continue
        labels, supports, queries, _ = find_scans(cell, data_root)
        assert len({case.subject_id for case in supports}) == cell.shots
        names[cell.dataset.name], queried[cell.dataset.name] = len(labels), len(queries)
    assert names == {
        "abd-mr-chaos": 4, "abd-ct-sabs": 4, "abd-ct-sabs-13": 13, "card-mr-mscmr": 3, "Task04_Hippocampus": 2,
        "lung-nodule-lidc": 1,
    }  # fmt: skip
    assert queried == {
        "abd-mr-chaos": 10, "abd-ct-sabs": 15, "abd-ct-sabs-13": 15, "card-mr-mscmr": 20, "Task04_Hippocampus": 60,
        "lung-nodule-lidc": 30,
    }  # fmt: skip
