"""The literature's protocol: its arithmetic by hand, and that nothing leaks from test to training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
import yaml
from boards import BLOBS

from lab.oracle2d import (
    OracleConfig,
    plan_oracle_cells,
    run_oracle_cell,
    training_examples,
    write_oracle_report,
)
from lab.oracle2d.cell import find_fold
from lab.oracle2d.protocol import (
    make_folds,
    pooled_dice,
    query_chunks,
    support_slices,
    training_slices,
)
from lab.oracle2d.report import MEAN, class_means
from lab.oracle2d.scans import Stack, normalise, read_stack, statistics_of
from lab.protocols import load_oracle
from medfewshot.benchmark import prepare_data
from medfewshot.episodes import EpisodeSampler, LabelledTask
from medfewshot.errors import InputError
from medfewshot.learners import Start, build_start, save_start
from medfewshot.learners.in_context import build_backbone
from medfewshot.types import Case, Progress

CONFIG = Path(__file__).resolve().parents[2] / "lab/configs/oracle-2d.yaml"
DATASET = {"name": "blobs", "blobs": {**BLOBS, "cases": 10}, "modality": "MR", "groups": [[1], [2]]}
LEARNERS = [{"name": "toy", "learner": "toy"}]


def make_config(**changes) -> OracleConfig:
    content = {"protocol": "oracle-2d", "datasets": [DATASET], "learners": LEARNERS, "folds": [1], **changes}
    return OracleConfig.model_validate(content)


@pytest.fixture
def toy(monkeypatch):
    toys.install(monkeypatch)


def label_of(*slices: tuple[int, ...]) -> np.ndarray:
    """``(Z, 3, 3)``: a voxel of each class in each slice."""
    label = np.zeros((len(slices), 3, 3), dtype=np.uint8)
    for index, values in enumerate(slices):
        label[index].flat[: len(values)] = values
    return label


def stack_of(name: str, label: np.ndarray) -> Stack:
    rng = np.random.default_rng(len(name))
    return Stack(name, name, rng.normal(5, 2, label.shape).astype(np.float32), label, (1.0, 1.0))


# --- folds, slices, chunks ------------------------------------------------------------------------------------------


def test_folds_are_those_of_the_literature():
    folds = make_folds(20)
    assert [fold.query for fold in folds] == [tuple(range(first, first + 4)) for first in (0, 4, 8, 12, 16)]
    assert [fold.support for fold in folds] == [4, 8, 12, 16, 0]
    assert [len(fold.query) for fold in make_folds(30)] == [6] * 5
    assert [fold.support for fold in make_folds(35)] == [7, 14, 21, 28, 0]


@pytest.mark.parametrize("scans", [10, 13, 20, 30, 35])
def test_no_scan_has_two_parts_in_a_fold_and_each_is_queried_once(scans):
    folds = make_folds(scans)
    for fold in folds:
        parts = [*fold.query, fold.support, *fold.training]
        assert sorted(parts) == list(range(scans))
    assert sorted(index for fold in folds for index in fold.query) == list(range(scans))


def test_too_few_scans():
    with pytest.raises(InputError, match="give at least 10 scans"):
        make_folds(9)


def test_support_slices_and_chunks_by_hand():
    label = label_of((), *[(1,)] * 12, (2,))
    # Twelve slices, numbers 1 to 12: at 1/6, 1/2 and 5/6 of them lie the 2nd, 6th and 10th after the first.
    assert support_slices(label, 1) == [3, 7, 11]
    assert [chunk.tolist() for chunk in query_chunks(label, 1)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert support_slices(label_of((2,)), 2) == [0, 0, 0]
    assert [len(chunk) for chunk in query_chunks(label_of((2,)), 2)] == [0, 0, 1]
    with pytest.raises(InputError, match="does not show it"):
        support_slices(label, 3)


def test_dice_is_pooled_over_the_scan():
    assert pooled_dice(6, 2, 2) == pytest.approx(0.75)
    assert np.isnan(pooled_dice(0, 0, 0))


# --- what training may see ------------------------------------------------------------------------------------------

MIXED = label_of((1,), (2,), (1, 2), (3,), (1, 3), (), (2, 3), (1, 2, 3))


def test_setting_2_leaves_out_every_slice_with_any_test_class():
    assert training_slices(MIXED, 2, (1, 2)).tolist() == [3, 5]
    assert training_slices(MIXED, 2, (3,)).tolist() == [0, 1, 2, 5]
    assert training_slices(MIXED, 1, (1, 2)).tolist() == list(range(8))


@pytest.mark.parametrize("setting", [1, 2])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_no_subject_and_no_class_leaks_into_training(setting, modality):
    stacks = [stack_of(f"s{index:02}", MIXED) for index in range(20)]
    for fold in make_folds(20):
        examples = training_examples(stacks, fold, setting, (1, 2), modality)
        assert {example.subject_id for example in examples} == {f"s{index:02}" for index in fold.training}
        assert len(examples) == len(fold.training) * (8 if setting == 1 else 2)
        assert {int(value) for example in examples for value in example.label.unique()} == {0, 3}
        held_out = {f"s{index:02}" for index in (*fold.query, fold.support)}
        sampler = EpisodeSampler([LabelledTask("task", tuple(examples))])
        for seed in range(5):
            episode = sampler.sample(seed)
            assert not held_out & {*episode.support_subjects, *episode.query_subjects}
            assert episode.task == "task[3]"


def test_ct_takes_its_statistics_from_training_scans_mr_from_itself():
    stacks = [stack_of("a", MIXED), stack_of("bb", MIXED)]
    both = statistics_of([stack.image for stack in stacks])
    images = np.concatenate([stack.image.ravel() for stack in stacks])
    assert (both.mean, both.std) == pytest.approx((images.mean(), images.std()), rel=1e-5)
    own = normalise(stacks[0], None)
    assert (own.mean(), own.std()) == pytest.approx((0, 1), abs=1e-5)
    assert normalise(stacks[0], both).mean() != pytest.approx(0, abs=1e-3)


def test_slices_are_cut_across_the_thick_axis_and_ct_is_clipped(tmp_path):
    image = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) * 10 - 500
    affine = np.diag([1.0, 6.0, 2.0, 1.0])
    path = toys.save_nifti(tmp_path / "a.nii.gz", image, affine)
    label = toys.save_nifti(tmp_path / "b.nii.gz", (image > 0).astype(np.uint8), affine)
    stack = read_stack(Case("a", "a", "CT", (path,), label), "CT")
    assert stack.image.shape == stack.label.shape == (5, 4, 6)
    assert stack.spacing_mm == (1.0, 2.0)
    assert (stack.image.min(), stack.image.max()) == (-125, 275)
    assert stack.label[2].tolist() == (image[:, 2] > 0).astype(int).tolist()


# --- cells ----------------------------------------------------------------------------------------------------------


def run_toy(tmp_path, folder="cell", **changes):
    (cell,) = plan_oracle_cells(make_config(**changes))
    data = prepare_data([cell], None, tmp_path / "run")
    run_oracle_cell(cell, data, tmp_path / folder, "cpu")
    with (tmp_path / folder / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return cell, rows, json.loads((tmp_path / folder / "cell.json").read_text())


def test_a_fold_scores_its_queries_with_three_supports_a_class(tmp_path, toy):
    cell, rows, record = run_toy(tmp_path)
    assert cell.id == "blobs/toy/f1/s0"
    assert [(row["case_id"], row["label"]) for row in rows] == [
        ("blob_002", "1"), ("blob_003", "1"), ("blob_002", "2"), ("blob_003", "2"),
    ]  # fmt: skip
    assert record["support"] == "blob_004"
    assert toys.ToyLearner.adapted == 2 * 3
    for row in rows:
        counts = [int(row[key]) for key in ("true_positives", "false_positives", "false_negatives")]
        assert float(row["dice"]) == pytest.approx(pooled_dice(*counts))
    assert record["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]))
    assert record["weights_have_seen"] == {}
    assert set(record["seconds"]) == {"read", "adapt", "segment", "metrics"}


def test_only_slices_that_show_the_class_are_scored(tmp_path, toy):
    _, rows, _ = run_toy(tmp_path)
    _, cases, fold = find_fold(plan_oracle_cells(make_config())[0], tmp_path / "run" / "data")
    for row in rows:
        label = read_stack(cases[fold.query[int(row["case_id"] == "blob_003")]], "MR").label
        shown = (label == int(row["label"])).any(axis=(1, 2))
        assert int(row["slices"]) == shown.sum()
        voxels = int(row["true_positives"]) + int(row["false_negatives"])
        assert voxels == (label[shown] == int(row["label"])).sum()


def test_classes_that_are_done_are_not_done_again(tmp_path, toy):
    cell, whole, _ = run_toy(tmp_path, "whole")
    toys.ToyLearner.adapted = 0

    def stop(event):
        if event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_oracle_cell(cell, tmp_path / "run" / "data", tmp_path / "parts", "cpu", Progress(stop))
    assert toys.ToyLearner.adapted == 3
    _, parts, _ = run_toy(tmp_path, "parts")
    assert toys.ToyLearner.adapted == 6
    assert parts == whole


def test_a_real_learner_takes_slices(tmp_path):
    learners = [{"name": "a", "learner": "finetune", "steps": 1, "width": 4}]
    _, rows, record = run_toy(tmp_path, learners=learners, datasets=[{**DATASET, "groups": [[1]]}])
    assert len(rows) == 2
    assert record["steps"] == [1] * 3


def test_an_unknown_class_is_told(tmp_path, toy):
    with pytest.raises(InputError, match="has no label 5"):
        run_toy(tmp_path, datasets=[{**DATASET, "groups": [[5]]}])


# --- file and tables ------------------------------------------------------------------------------------------------


def flat_start(folder, seen):
    """Weights of a 2D learner that reads supports, trained on nothing."""
    torch.manual_seed(0)
    start = build_start("in_context", build_backbone(dims=2, width=4, levels=2))
    save_start(Start("in_context", start, {}, {"seen": seen}), folder)
    return {"name": "reader", "learner": "in_context", "weights": str(folder), "steps": 0}


def test_weights_that_have_not_seen_the_dataset_are_taken_and_named(tmp_path):
    learner = flat_start(tmp_path / "start", {"elsewhere": {"subjects": ["a", "b"], "labels": {"1": "liver"}}})
    config = make_config(learners=[learner])
    (cell,) = plan_oracle_cells(config)
    run_oracle_cell(cell, prepare_data([cell], None, tmp_path), cell.folder(tmp_path), "cpu")
    record = json.loads((cell.folder(tmp_path) / "cell.json").read_text())
    assert record["steps"] == [0] * 6
    assert list(record["weights_have_seen"]) == ["elsewhere"]
    text = write_oracle_report(config, tmp_path, tmp_path / "report").read_text()
    assert f"- reader: {tmp_path / 'start'}, trained on 2 subjects of elsewhere" in text


def test_weights_that_have_seen_the_dataset_are_refused(tmp_path):
    """Nothing says which folds they were trained on."""
    learner = flat_start(tmp_path / "start", {"blobs": {"subjects": ["blob_009"], "labels": {"2": "two"}}})
    with pytest.raises(ValueError, match="learner reader: its weights have seen blobs"):
        make_config(learners=[learner])
    other = {**DATASET, "name": "others"}
    assert make_config(learners=[{**learner, "datasets": ["others"]}], datasets=[DATASET, other])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"folds": [5]}, "there are 5, counted from 0"),
        ({"folds": []}, "folds: give at least one"),
        ({"datasets": [{**DATASET, "groups": [[1], [1]]}]}, "name each class once"),
        ({"datasets": [{**DATASET, "modality": None}]}, "modality"),
        ({"learners": [{"name": "a", "learner": "finetune", "shots": [1]}]}, "1-shot"),
        ({"shots": [1]}, "shots: is no setting here"),
        ({"learners": [{"name": "a", "learner": "nnunet"}]}, "takes whole scans"),
        ({"learners": [{"name": "a", "learner": "nonsense"}]}, "learner nonsense: unknown"),
    ],
)
def test_errors_name_the_file_and_the_setting(tmp_path, changes, told):
    path = tmp_path / "oracle.yaml"
    content = {"protocol": "oracle-2d", "datasets": [DATASET], "learners": [{"name": "a", "learner": "finetune"}]}
    path.write_text(yaml.safe_dump({**content, **changes}))
    with pytest.raises(InputError) as error:
        load_oracle(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


def test_classes_weigh_the_same():
    rows = [{"label_name": "liver", "dice": dice} for dice in (0.9, 0.7)] + [{"label_name": "spleen", "dice": 0.4}]
    means = class_means(rows)
    assert means == pytest.approx({"liver": 0.8, "spleen": 0.4, MEAN: 0.6})
    assert class_means([]) == {}


def test_the_report_stands_apart(tmp_path, toy):
    config = make_config(folds=[0, 1])
    cells = plan_oracle_cells(config)
    data = prepare_data(cells, None, tmp_path)
    run_oracle_cell(cells[1], data, cells[1].folder(tmp_path), "cpu")
    text = write_oracle_report(config, tmp_path, tmp_path / "report").read_text()
    assert "protocol `oracle-2d`" in text
    assert "and with nothing else" in text
    assert "| blobs | toy | mean of classes | 0." in text
    assert "1 of 2" in text
    assert not (tmp_path / "report" / "tables.md").exists()
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Scores, oracle-2d" in page
    assert page.count("data:image/svg+xml") == 1  # a mark for every scan
    (cells[1].folder(tmp_path) / "scores.csv").write_text("label\n1\n")
    with pytest.raises(InputError, match="is damaged"):
        write_oracle_report(config, tmp_path, tmp_path / "report")


@pytest.mark.real
def test_the_classes_of_the_literature(data_root, tmp_path):
    found = {}
    cells = plan_oracle_cells(load_oracle(CONFIG))
    assert prepare_data(cells, data_root, tmp_path) == data_root
    for cell in cells:
        names, _, fold = find_fold(cell, data_root)
        found[cell.dataset.name] = (set(names.values()), len(fold.query))
    abdomen = {"liver", "spleen", "left kidney", "right kidney"}
    assert found["abd-mr-chaos"] == (abdomen, 4)
    assert found["abd-ct-sabs"] == (abdomen, 6)
    assert found["card-mr-mscmr"][1] == 7
