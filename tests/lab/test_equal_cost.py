"""Variants of a training at equal cost, and the benchmark that compares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.studies.equal_cost import LEARNERS, SOURCES, benchmark_of, settings_of
from medfewshot.benchmark import BenchmarkConfig
from medfewshot.episodes import fixed_split
from medfewshot.settings import read_yaml
from medfewshot.training import TrainSettings

REGIONS = TrainSettings(**read_yaml(Path(__file__).parents[2] / "configs" / "train" / "regions.yaml"))


@pytest.mark.parametrize("variant", SOURCES)
def test_variants_differ_in_their_tasks_alone(variant):
    made = settings_of(REGIONS, "sources", SOURCES[variant], {"minutes": None, "steps": 5})
    left_out = {kind for kind in ("regions", "label_maps") if kind not in made.tasks.from_data}
    assert left_out == set(SOURCES[variant])
    assert made.replace(tasks=REGIONS.tasks, steps=REGIONS.steps, minutes=REGIONS.minutes) == REGIONS


def test_every_learner_gets_the_same_episodes_and_time():
    made = [settings_of(REGIONS, "learners", changes, {"minutes": 3.0}) for changes in LEARNERS.values()]
    assert {one.minutes for one in made} == {3.0}
    assert all((one.tasks, one.backbone, one.seed) == (REGIONS.tasks, REGIONS.backbone, REGIONS.seed) for one in made)


def test_the_benchmark_uses_support_pools_alone():
    plan = BenchmarkConfig.model_validate(benchmark_of({"a": ("finetune", "runs/a/start")}, (0, 25)))
    assert [one.name for one in plan.learners] == ["a-0", "a-25"]
    for dataset in plan.datasets:
        pool, queries = dataset.split
        assert {*pool, *queries} <= set(fixed_split(dataset.source)[0])
