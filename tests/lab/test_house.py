"""The figures of the house: each rule finds what it is for, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil

import lab
from lab import house

CODE = """
class Settings:
    budget_seconds: float = 1.0

def adapt(own, value, *, budget_seconds):
    learner = "hybrid"
    budget_seconds = 2
    return getattr(own, "name", None), getattr(own, "name"), getattr(value, "name", None), hasattr(own, "name")
"""
TEST = """
import os
import medfewshot.io as reading
from medfewshot.learners import atlas

def test(monkeypatch):
    monkeypatch.setattr(atlas, "register", None)
    monkeypatch.setattr(reading.nifti, "read", None)
    monkeypatch.setattr("medfewshot.io.read_image", None)
    monkeypatch.setattr(os, "replace", None)
    monkeypatch.setitem(atlas.X, "a", 1)
"""


def test_every_rule_finds_its_faults(tmp_path):
    (tmp_path / "some.py").write_text(CODE)
    assert [place.split(":")[1] for place in house.budget_declarations(tmp_path)] == ["3", "5"]
    assert [place.split(":")[1] for place in house.guessed_attributes(tmp_path)] == ["8", "8"]
    assert [place.split(": ")[1] for place in house.learner_names(tmp_path)] == ['"hybrid"']
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TEST)
    assert [place.split(":")[1] for place in house.patched_names(tmp_path / "tests")] == ["7", "8", "9"]


def test_a_learner_may_name_itself_in_its_own_file(tmp_path):
    (tmp_path / "hybrid.py").write_text('NAME = "hybrid"')
    assert house.learner_names(tmp_path) == []


def test_the_rooms_add_up():
    assert sum(lines for _, lines in house.rooms()) == house.package_lines()


def test_every_module_of_the_laboratory_can_be_imported():
    """They use what the package does not promise to keep."""
    names = [module.name for module in pkgutil.walk_packages(lab.__path__, "lab.")]
    for name in names:
        if name != "lab.peers.nnunet_driver":  # another environment's Python runs it
            importlib.import_module(name)
