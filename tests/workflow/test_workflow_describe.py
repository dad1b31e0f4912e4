"""Words about a run: what they state, and what they warn of."""

from __future__ import annotations

import json

import pytest

from medfewshot.errors import InputError
from medfewshot.workflow import describe

RECORD = {
    "finished": "2026-11-28T17:52:16+00:00",
    "device": "cpu (1 threads, float32)",
    "seed": 3,
    "supports": [{"image": "/a/s0.nii.gz"}, {"image": "/a/s1.nii.gz"}],
    "plan": {
        "spatial_dims": 3, "channels": 1, "spacing_mm": [1.5, 1.5, 3.0], "labels": {"1": "liver", "2": "spleen"},
        "normalization": [{"kind": "window", "low": -160.0, "high": 240.0}], "keep_largest": [1],
    },
    "adaptation": {
        "settings": {"learner": "finetune", "weights": "/home/x/start"}, "device": "cuda:0 (A100)",
        "learner": {"steps": 400, "parameters": 1234567},
        "weights_have_seen": {"setA": {"subjects": ["p1", "q0"], "labels": {"1": "kidney"}}},
    },
    "options": {"keep_largest": True},
    "seconds": {"adapt": 61.4},
    "outputs": [
        {"case": "q0", "inputs": ["/c/q0.nii.gz"], "status": "done", "seconds": {"read": 1.0, "predict": 2.0}},
        {"case": "q1", "inputs": ["/c/q1.nii.gz"], "status": "failed", "error": "broken"},
    ],
    "warnings": ["label 7 has no name"],
    "versions": {"medfewshot": "0.2", "torch": "2.13", "monai": "1.6", "python": "3.11"},
}  # fmt: skip


def described(folder, **changes):
    (folder / "run.json").write_text(json.dumps(RECORD | changes))
    return describe(folder)


def test_the_paragraph_states_what_a_reader_needs(tmp_path):
    text = described(tmp_path).paragraph
    for words in (
        "segmented liver and spleen with medfewshot 0.2 (PyTorch 2.13, MONAI 1.6)",
        "learned from 2 labelled scans",
        "weights start, which were trained on setA (2 subjects; kidney)",
        "resampled to 1.5 x 1.5 x 3 mm, and gray values were clipped to -160 to 240 HU",
        "(1,234,567 parameters)",
        "400 steps (random seed 3; 61 s on cuda:0 (A100))",
        "3.0 s on average on cpu (1 threads, float32)",
        "largest connected piece of liver was kept",
        "Of 2 scans, 1 was segmented and 0 flagged",
    ):
        assert words in text
    assert "your" not in text


def test_a_model_that_continues_another_says_so(tmp_path):
    earlier = {"supports": [{"image": "/c/q0.nii.gz"}], "steps": 20}
    found = described(tmp_path, adaptation=RECORD["adaptation"] | {"earlier": earlier})
    assert "2 labelled scans (the support set); the model that it continues, from 1 more." in found.paragraph
    assert "Training took 400 steps after 20 steps of an earlier model" in found.paragraph
    assert any("do not score q0" in text for text in found.warnings)


def test_the_checklist_and_what_to_check_first(tmp_path):
    found = described(tmp_path)
    answers = {item.claim: item.answer for item in found.items}
    assert "No segmented scan is in the support set" in answers["20"]
    assert "Not scored" in answers["28, 29, 37"]
    assert found.warnings == ("the weights have seen q0: do not score them, or say so", "label 7 has no name")
    assert "CLAIM 14 to 17" in found.text
    assert found.text.count("\n| ") == len(found.items) + 1


def test_scores_beside_the_run_are_stated(tmp_path):
    row = {"label_name": "liver", "cases": 2, "dice_mean": 0.9, "dice_ci_low": 0.85, "dice_ci_high": 0.95}
    once = {**row, "label_name": "spleen", "dice_mean": 0.7, "dice_ci_low": None, "dice_ci_high": None}
    nowhere = {**once, "label_name": "gallbladder", "dice_mean": None}
    (tmp_path / "summary.json").write_text(json.dumps({"labels": [row, once, nowhere]}))
    found = described(tmp_path)
    assert (
        "references of 2 scans (95 % bootstrap interval): liver 0.900 (0.850 to 0.950), spleen 0.700 (no interval)."
        in (found.paragraph)
    )
    assert "Not scored" not in found.text


def test_a_summary_of_another_program_is_no_damage_to_the_run(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert "Not scored" in described(tmp_path).text


def test_doubts_about_the_run(tmp_path):
    outputs = [{"case": "s0", "inputs": ["/a/s0.nii.gz"], "status": "done"}]
    adaptation = {"settings": {"learner": "atlas", "weights": None}, "learner": {}}
    found = described(tmp_path, finished=None, outputs=outputs, adaptation=adaptation, warnings=[])
    assert "not finished" in found.warnings[0]
    assert "do not score s0" in found.warnings[1]
    assert "No network was trained" in found.paragraph
    assert "random weights" not in found.text


def test_no_run_and_a_damaged_one_are_one_line(tmp_path):
    with pytest.raises(InputError, match="contains no results"):
        describe(tmp_path)
    with pytest.raises(InputError, match="is damaged"):
        described(tmp_path, plan={})
