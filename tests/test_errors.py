"""Errors say what is wrong, what to do, and which setting is concerned, in the words of whoever prints them."""

import pickle

from medfewshot.errors import InputError, did_you_mean


def test_an_error_is_problem_and_remedy():
    assert str(InputError("a.nii: is empty", "export it again")) == "a.nii: is empty; export it again"
    assert str(InputError("a.nii: is empty")) == "a.nii: is empty"


def test_a_setting_is_spelled_by_whoever_prints_it():
    error = InputError("out: already contains results", "continue or replace them", setting=("resume", "overwrite"))
    assert str(error) == "out: already contains results; continue or replace them (settings: resume, overwrite)"
    assert error.render(lambda name: f"--{name}", "option").endswith("(options: --resume, --overwrite)")


def test_an_error_survives_another_process():
    error = pickle.loads(pickle.dumps(InputError("72 s: is negative", "give more", setting="budget_seconds")))
    assert (error.problem, error.remedy, error.settings) == ("72 s: is negative", "give more", ("budget_seconds",))
    assert str(error) == "72 s: is negative; give more (setting: budget_seconds)"


def test_similar_names_are_suggested():
    assert did_you_mean("Livr", ["liver", "spleen"]) == " (did you mean liver?)"
    assert did_you_mean("aorta", ["liver", "spleen"]) == ""
