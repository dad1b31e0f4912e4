"""Benchmark files: what is valid, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from boards import DATASET, make_config

from medfewshot.benchmark import load_benchmark, plan_cells, select_cells
from medfewshot.benchmark.cells import weights_digest
from medfewshot.episodes import fixed_split
from medfewshot.errors import InputError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "benchmark").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_benchmark_in_the_repository_is_valid(path):
    assert plan_cells(load_benchmark(path))


def test_the_comparison_of_learners_covers_what_it_says():
    config = load_benchmark(next(path for path in CONFIGS if path.name == "learners.yaml"))
    cells = plan_cells(config)
    assert len(cells) == len(config.datasets) * len(config.learners) * 2 * 3
    assert all(learner.settings.budget_seconds is None for learner in config.learners)
    four = next(entry for entry in config.datasets if entry.name == "abd-ct-sabs")
    assert (four.labels, four.source) == ((1, 2, 3, 6), "abd-ct-sabs")
    thirteen = next(entry for entry in config.datasets if entry.name == "abd-ct-sabs-13")
    assert (thirteen.labels, thirteen.source) == (None, "abd-ct-sabs")
    assert thirteen.split == four.split == (range(15), range(15, 30))


def write(tmp_path: Path, **changes: object) -> Path:
    content = {"datasets": [DATASET], "learners": [{"name": "a", "learner": "finetune"}], "shots": [1], **changes}
    path = tmp_path / "bench.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


FAULTS = [
    ({"learners": [{"name": "a", "learner": "nonsense"}]}, "learners: a: learner nonsense: unknown"),
    ({"learners": [{"name": "a", "learner": "finetune", "steps": -1}]}, "learners: a: steps -1: should be greater"),
    ({"learners": [{"name": "a", "learner": "finetune", "depth": 3}]}, "learners: a: depth: is unknown"),
    ({"learners": [{"name": "a/b", "learner": "finetune"}]}, "learners: a/b: name: "),
    ({"learners": [{"name": "a", "learner": "atlas", "learning_rate": 0.1}]}, "has no setting learning_rate"),
    ({"learners": [{"name": "a", "learner": "finetune", "seed": 1}]}, "learners: a: seed: is decided by the cell"),
    ({"learners": [{"name": "a"}]}, "learners: a: learner: is missing"),
    ({"learners": [{"name": "a", "learner": "finetune"}] * 2}, "learners: the name a comes twice"),
    ({"learners": [{"name": "a", "learner": "finetune", "datasets": ["b"]}]}, "learner a: dataset b is not among"),
    ({"learners": []}, "learners: "),
    ({"datasets": [{"name": "unheard-of"}]}, "datasets: unheard-of: 'unheard-of' has no fixed split"),
    ({"datasets": [{**DATASET, "labels": [0, 1]}]}, "0 is background"),
    ({"datasets": [{**DATASET, "queries": [1, 5]}]}, "pool and queries overlap"),
    ({"datasets": [{**DATASET, "queries": None}]}, "give both pool and queries"),
    ({"datasets": [{**DATASET, "pool": [2, 2]}]}, "neither may be empty"),
    ({"shots": [3]}, "its pool of 2 is less than K"),
    ({"shots": [0]}, "shots: 0: 0 is no number of labelled scans; give 1 or more, or all"),
    ({"shots": ["most"]}, "shots: 0: most is no number of labelled scans"),
    ({"shots": [True]}, "True is no number of labelled scans"),
    ({"shots": ["all", "all"]}, "shots: give at least one, and each once"),
    ({"shots": ["all", 3]}, "its pool of 2 is less than K"),
    ({"shots": [1, 1]}, "shots: give at least one, and each once"),
    ({"seeds": [-1]}, "seeds: 0: should be greater"),
    ({"protocol": "slices"}, "protocol: "),
    ({"colour": "red"}, "colour: is no setting here"),
]


@pytest.mark.parametrize(("changes", "told"), FAULTS, ids=[told for _, told in FAULTS])
def test_errors_name_the_file_and_the_setting(tmp_path, changes, told):
    path = write(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_benchmark(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "told"), [("- 1", "must contain"), ("a: [", "valid YAML"), (None, "be read")])
def test_a_file_that_is_no_benchmark(tmp_path, text, told):
    path = tmp_path / "bench.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_benchmark(path)


def test_settings_reach_the_learner():
    entry = make_config(
        learners=[{"name": "a", "learner": "finetune", "steps": 7, "budget_seconds": 5, "width": 8, "quality": "draft"}]
    ).learners[0]
    settings = entry.settings
    assert (settings.learner, settings.steps, settings.budget_seconds) == ("finetune", 7, 5.0)
    assert (settings.width, settings.quality, settings.weights) == (8, "draft", None)


def test_no_time_budget_unless_it_is_given(tmp_path):
    assert load_benchmark(write(tmp_path)).learners[0].settings.budget_seconds is None


# --- the plan -------------------------------------------------------------------------------------------------------


def plan(**changes):
    learners = [{"name": name, "learner": "finetune"} for name in ("a", "b")]
    datasets = [DATASET, {**DATASET, "name": "other", "folder": "blobs"}]
    return plan_cells(make_config(**{"datasets": datasets, "learners": learners, "seeds": [1, 0], **changes}))


def test_the_first_seed_runs_on_everything_before_the_next():
    cells = plan(shots=[1, 2])
    assert [cell.seed for cell in cells] == [1] * 8 + [0] * 8
    assert [cell.id for cell in cells[:5]] == [
        "blobs/a/k1/s1", "blobs/b/k1/s1", "other/a/k1/s1", "other/b/k1/s1", "blobs/a/k2/s1",
    ]  # fmt: skip


def test_a_learner_may_be_shown_to_some_datasets_and_shots():
    learners = [
        {"name": "a", "learner": "finetune", "datasets": ["other"]},
        {"name": "b", "learner": "finetune", "shots": [2]},
    ]
    ids = {cell.id for cell in plan(shots=[1, 2], seeds=[0], learners=learners)}
    assert ids == {"other/a/k1/s0", "other/a/k2/s0", "blobs/b/k2/s0", "other/b/k2/s0"}


def test_all_is_the_whole_pool():
    learners = [{"name": "a", "learner": "finetune"}, {"name": "b", "learner": "finetune", "shots": ["all"]}]
    cells = plan(shots=[1, "all"], seeds=[0], learners=learners, datasets=[DATASET])
    assert [cell.id for cell in cells] == ["blobs/a/k1/s0", "blobs/a/kall/s0", "blobs/b/kall/s0"]
    assert [cell.supports for cell in cells] == [1, 2, 2]
    assert type(cells[0]).model_validate(cells[1].model_dump(mode="json")) == cells[1]
    two = plan(shots=[2], seeds=[0], learners=learners[:1], datasets=[DATASET])[0]
    assert two.fingerprint != cells[1].fingerprint


def test_a_data_set_named_like_a_split_uses_it():
    entries = [{"name": name, "folder": "abd-ct-sabs"} for name in ("abd-ct-sabs-mass", "abd-ct-sabs-13")]
    named, by_folder = (one.split for one in make_config(datasets=entries).datasets)
    assert named == fixed_split("abd-ct-sabs-mass")
    assert by_folder == fixed_split("abd-ct-sabs")


def test_cells_are_chosen_by_name_seed_and_shard():
    cells = plan()
    assert [cell.id for cell in select_cells(cells, ["other/a"], [0])] == ["other/a/k1/s0"]
    assert [cell.id for cell in select_cells(cells, ["blobs/*/s1"])] == ["blobs/a/k1/s1", "blobs/b/k1/s1"]
    assert select_cells(cells, ["*/a/*"]) == [cell for cell in cells if cell.learner.name == "a"]
    shards = [select_cells(cells, shard=(index, 3)) for index in (1, 2, 3)]
    assert sorted(cell.id for shard in shards for cell in shard) == sorted(cell.id for cell in cells)
    half = ({"only": ["other", "nothing"]}, {"seeds": [0, 7]})  # the rest would run without a word
    for wrong in ({"only": ["nothing"]}, {"seeds": [7]}, *half, {"shard": (4, 3)}, {"shard": (0, 3)}):
        with pytest.raises(InputError):
            select_cells(cells, **wrong)


def test_two_data_sets_of_one_folder_are_made_alike():
    other = {**DATASET, "name": "other", "folder": "blobs"}
    assert len(make_config(datasets=[DATASET, other]).datasets) == 2
    with pytest.raises(ValueError, match="is made otherwise"):
        make_config(datasets=[DATASET, {**other, "blobs": {**DATASET["blobs"], "seed": 5}}])


def test_weights_count_by_their_content(tmp_path):
    (tmp_path / "start.safetensors").write_bytes(b"one")
    first = weights_digest(str(tmp_path))
    (tmp_path / "start.safetensors").write_bytes(b"two")
    second = weights_digest(str(tmp_path))
    (tmp_path / "start.safetensors").write_bytes(b"one")
    assert first == weights_digest(str(tmp_path)) != second
    assert weights_digest("no-such-weights") == "no-such-weights"
    assert len({weights_digest("default"), weights_digest("novel"), "default", "novel"}) == 4


def test_a_fingerprint_outlives_new_settings():
    # Of a run directory that exists: a setting that is added later must not cost it.
    (cell,) = plan(seeds=[0], datasets=[DATASET], learners=[{"name": "a", "learner": "finetune"}])
    assert cell.fingerprint == "09a0709de28fbcf4"


def test_weights_reach_the_learner_and_their_absence_is_told(tmp_path):
    entry = {"name": "a", "learner": "finetune", "weights": str(tmp_path / "start")}
    with pytest.raises(InputError, match=r"learners: a: .*start"):
        load_benchmark(write(tmp_path, learners=[entry]))
    assert make_config(learners=[entry]).learners[0].settings.weights == str(tmp_path / "start")


def test_a_fingerprint_tells_settings_apart_and_nothing_else():
    (cell,) = plan(seeds=[0], datasets=[DATASET], learners=[{"name": "a", "learner": "finetune"}])
    entry = {"name": "a", "learner": "finetune", "datasets": ["blobs"], "shots": [1]}
    (same,) = plan(seeds=[0], datasets=[{**DATASET, "distances": False}], learners=[entry])
    assert cell.fingerprint == same.fingerprint
    for changes in ({"queries": 2}, {"tolerance_mm": 1.0}, {"datasets": [{**DATASET, "labels": [1]}]}):
        other = plan(**{"seeds": [0], "datasets": [DATASET], "learners": [entry], **changes})[0]
        assert other.fingerprint != cell.fingerprint
