"""Settings models: bounds, names, YAML files, and the table of the documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from medfewshot.errors import InputError
from medfewshot.settings import (
    QUALITY_LEVELS,
    AdaptSettings,
    InferenceSettings,
    SegmentSettings,
    load_settings,
    settings_table,
)

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


def refused(model=AdaptSettings, **values) -> InputError:
    with pytest.raises(InputError) as error:
        model(**values)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize(
    "values",
    [
        {"steps": -1}, {"steps": "ten"}, {"steps": float("nan")}, {"budget_seconds": 0}, {"budget_seconds": -5},
        {"budget_seconds": "soon"}, {"seed": -1}, {"width": 3}, {"width": 257}, {"learning_rate": 0},
        {"learning_rate": float("inf")}, {"spacing_mm": 0}, {"spacing_mm": (1, -1, 1)}, {"patch_voxels": 1023},
        {"quality": "good"},
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused_by_its_name(values):
    (name,) = values
    error = refused(**values)
    assert error.settings == (name,)
    assert str(error).startswith(f"{name} {values[name]}: ")


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "did you mean learning_rate?" in str(refused(learning_rat=0.1))
    assert refused(InferenceSettings, overlap=1.0).settings == ("overlap",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1,6", (1, 6)), ("liver, spleen", ("liver", "spleen")), ("1=liver,6=spleen", {1: "liver", 6: "spleen"}),
        ([1, "spleen"], (1, "spleen")), (np.array([3, 4]), (3, 4)), ({np.int64(6): "spleen"}, {6: "spleen"}),
        (2, (2,)), (None, None),
    ],
)  # fmt: skip
def test_labels_from_text_and_from_python(given, expected):
    assert AdaptSettings(labels=given).labels == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("0,1", "0 is background"), ([], "once"), ([1, 1], "once"), ({0: "background"}, "0 is background"),
        (",", "separated by commas"), ("-1", "separated by commas"), ("liver=1", "1=liver"), ([0.5], "labels"),
        ("1=liver,1=spleen", "each value once"),
    ],
)  # fmt: skip
def test_labels_that_mean_nothing(given, told):
    assert told in str(refused(labels=given))


@pytest.mark.parametrize(
    ("text", "told"), [("steps: 1\nsteps: 2", "steps comes twice in line 2"), ("labels: {1: a, 1: b}", "1 comes twice")]
)
def test_a_setting_that_a_file_gives_twice_is_refused(tmp_path, text, told):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_settings(AdaptSettings, tmp_path / "twice.yaml")


def test_text_is_parsed():
    """What a server sends as text: ``bool("false")`` would be true."""
    settings = SegmentSettings(keep_largest="false", overlap="0.25")
    assert (settings.keep_largest, settings.overlap) == (False, 0.25)
    assert AdaptSettings(steps="7", budget_seconds="inf").budget_seconds is None


def test_an_endless_budget_is_none():
    assert AdaptSettings(budget_seconds=float("inf")).budget_seconds is None


def test_the_time_limit_follows_the_quality_unless_it_is_given():
    assert [AdaptSettings(quality=one).time_limit for one in QUALITY_LEVELS] == [60, 240, None]
    assert AdaptSettings(quality="best", budget_seconds=5).time_limit == 5
    assert AdaptSettings(budget_seconds=None).time_limit is None


def test_settings_are_changed_by_replacing():
    settings = AdaptSettings(steps=5, quality="draft")
    assert settings.replace(seed=2) == AdaptSettings(steps=5, quality="draft", seed=2)
    with pytest.raises(InputError, match="seed -2"):
        settings.replace(seed=-2)


def test_a_file_may_use_the_names_of_options(tmp_path):
    (tmp_path / "a.yaml").write_text("budget: 5\nspacing: 2.5\n")
    settings = load_settings(AdaptSettings, tmp_path / "a.yaml")
    assert (settings.budget_seconds, settings.spacing_mm) == (5, 2.5)
    (tmp_path / "a.yaml").write_text("budget: 5\nbudget_seconds: 6\n")
    with pytest.raises(InputError, match=r"a\.yaml: budget: is unknown"):
        load_settings(AdaptSettings, tmp_path / "a.yaml")


def test_the_table_has_a_row_for_every_setting():
    rows = settings_table(AdaptSettings, SegmentSettings).splitlines()[2:]
    assert len(rows) == len(AdaptSettings.model_fields) + len(SegmentSettings.model_fields)
    assert next(row for row in rows if "budget_seconds" in row).startswith("| `budget_seconds` | `--budget` | auto |")
    for model in (AdaptSettings, SegmentSettings):
        assert all(field.description for field in model.model_fields.values())


def test_a_model_with_other_defaults_keeps_descriptions():
    class Thorough(SegmentSettings):
        overlap: float = 0.75

    assert Thorough.model_fields["overlap"].description == SegmentSettings.model_fields["overlap"].description
    assert "| 0.75 |" in settings_table(Thorough)
    assert Thorough().overlap == 0.75


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_in_the_repository_is_valid(path):
    load_settings(AdaptSettings, path)


def test_the_documented_defaults_are_the_defaults():
    path = next(path for path in CONFIGS if path.name == "adapt.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content == AdaptSettings().model_dump()
    assert load_settings(AdaptSettings, path) == AdaptSettings()


def test_what_is_given_wins_over_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("steps: 50\nseed: 4\nspacing_mm: 2.5\nlabels: {6: spleen}\npatch_voxels: 4096\n")
    settings = load_settings(AdaptSettings, path, device="cpu", quality="draft", steps=70, seed=None)
    assert (settings.steps, settings.seed, settings.device, settings.quality) == (70, 4, "cpu", "draft")
    assert settings.spacing_mm == 2.5
    assert settings.labels == {6: "spleen"}
    assert settings.patch_voxels == 4096


def test_a_file_of_comments_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# steps: 50\n")
    assert load_settings(AdaptSettings, tmp_path / "a.yaml") == AdaptSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: -1", "steps -1: should be greater"),
        ("steps: .nan", "steps"),
        ("learning_rate: -1", "learning_rate"),
        ("labels: {0: background}", "0 is background"),
        ("labels: []", "labels"),
        ("depth: 3", "depth: is unknown; known are labels, modality"),
        ("1: 2", "name: value"),
        ("steps: 1\n  seed: 2", "line 2"),
    ],
)
def test_errors_name_the_file_and_the_setting(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_settings(AdaptSettings, path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_name_the_setting_if_the_value_did_not_come_from_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 5\n")
    with pytest.raises(InputError, match=r"^budget_seconds -1: ") as error:
        load_settings(AdaptSettings, tmp_path / "a.yaml", budget_seconds=-1)
    assert error.value.settings == ("budget_seconds",)
