"""Help of every command at 80 columns: no line is longer, nothing is cut, examples are there and can be typed."""

from __future__ import annotations

import shlex

import pytest
from commands import COMMANDS, assert_can_be_typed, owner_of
from typer.main import get_command

from medfewshot.cli.app import SECTIONS, app
from medfewshot.cli.help import about, examples, meaning_of, names_of
from medfewshot.cli.options import learner_names
from medfewshot.learners import LEARNERS
from medfewshot.settings import (
    AdaptSettings,
    BenchmarkRunSettings,
    EvaluateSettings,
    SegmentSettings,
    TrainSchedule,
    WorkerSettings,
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(run, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    done = run(*name.split(), "--help")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith(f"Usage: medfewshot {name}".strip())
    assert max(map(len, lines)) <= 80
    assert "<" not in done.out  # a type in place of a word
    assert "…" not in done.out
    assert "Examples:" in lines
    assert "130 interrupted" in " ".join(done.out.split())
    told = done.out.replace(",", " ").split()
    for parameter in COMMANDS[name].params:  # every word is whole
        assert {*names_of(parameter).replace(",", " ").split()} <= {*told}
        assert {*meaning_of(parameter).replace(",", " ").split()} <= {*told}


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_typed(name):
    assert examples(COMMANDS[name])
    for line in examples(COMMANDS[name]):
        assert len(line) <= 78
        program, *words = shlex.split(line)
        assert program == "medfewshot"
        assert owner_of(words).startswith(name)
        assert_can_be_typed(words)


def test_commands_are_in_the_order_of_work(run):
    text = run("--help").out
    places = [text.index(f"\n  {name} ") for section in SECTIONS.values() for name in section]
    assert places == sorted(places)
    names = [name for section in SECTIONS.values() for name in section]
    order = ["inspect", "adapt", "segment", "evaluate", "report", "train"]
    assert [name for name in names if name in order] == order


def test_the_list_of_commands_has_a_line_for_each(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("--help").out
    for name, command in get_command(app).commands.items():
        assert any(line.split() == [name, *about(command).split("\n\n")[0].split()] for line in text.splitlines())


def test_help_names_the_learners(run):
    text = " ".join(run("adapt", "--help").out.split())
    assert set(learner_names()) == set(LEARNERS) - {"toy"}
    assert ", ".join(learner_names()) in text


@pytest.mark.parametrize(
    ("command", "models"),
    [
        ("adapt", [AdaptSettings]),
        ("segment", [AdaptSettings, SegmentSettings, WorkerSettings]),
        ("evaluate", [EvaluateSettings, WorkerSettings]),
        ("train", [TrainSchedule]),
        ("benchmark", [BenchmarkRunSettings]),
    ],
)
def test_every_setting_is_an_option(command, models):
    known = {option: one for one in COMMANDS[command].params for option in one.opts}
    for model in models:
        for name, option in model.options().items():
            assert known[f"--{option}"].help.startswith(model.model_fields[name].description)


def test_defaults_of_the_help_are_the_defaults(run):
    text = " ".join(run("segment", "--help").out.split())
    assert "(default: standard)" in text
    assert "(default: 0.5)" in text
    assert "(default: 1000)" not in " ".join(run("train", "--help").out.split())  # the file decides
