"""Settings files: validated, never code, overridden by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medfewshot.config import AdaptConfig, load_settings
from medfewshot.errors import InputError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_in_the_repository_is_valid(path):
    load_settings(path)


def test_the_documented_defaults_are_the_defaults():
    path = next(path for path in CONFIGS if path.name == "adapt.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content == AdaptConfig().model_dump()
    assert load_settings(path) == load_settings(None)


def test_what_is_given_wins_over_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("steps: 50\nseed: 4\nspacing_mm: 2.5\nlabels: {6: spleen}\npatch_voxels: 4096\n")
    settings = load_settings(path, device="cpu", fast=True, steps=70, seed=None)
    assert (settings.steps, settings.seed, settings.device, settings.fast) == (70, 4, "cpu", True)
    assert settings.plan.spacing_mm == 2.5
    assert settings.plan.labels == {6: "spleen"}
    assert settings.plan.patch_voxels == 4096


def test_a_file_of_comments_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# steps: 50\n")
    assert load_settings(tmp_path / "a.yaml") == load_settings(None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: -1", "steps: should be greater"),
        ("steps: .nan", "steps"),
        ("learning_rate: -1", "learning_rate"),
        ("labels: {0: background}", "0 is background"),
        ("labels: []", "labels"),
        ("depth: 3", "depth: is unknown; known are learner, steps"),
        ("1: 2", "name: value"),
        ("steps: 1\n  seed: 2", "line 2"),
    ],
)
def test_errors_name_the_file_and_the_setting(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_settings(path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_name_the_option_where_the_value_came_from_there(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 5\n")
    with pytest.raises(InputError, match=r"^--budget -1: "):
        load_settings(tmp_path / "a.yaml", budget_seconds=-1)
