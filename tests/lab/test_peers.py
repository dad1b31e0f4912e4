"""Peers: other packages' learners behind the same contract, for benchmark files alone."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import torch
from boards import only_cell, write_board

from lab.peers.cells import adapt_any
from lab.peers.monai_unet import MonaiSegmenter, MonaiUnet
from lab.protocols import load_volume
from medfewshot.benchmark import load_benchmark, prepare_data
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import InputError
from medfewshot.learners import make_learner
from medfewshot.settings import AdaptSettings
from medfewshot.types import Support


def box_support(*shape: int) -> Support:
    """A bright box in the dark, 1-way 1-shot."""
    label = torch.zeros(shape, dtype=torch.int64)
    label[tuple(slice(size // 4, size - size // 4) for size in shape)] = 1
    return Support((label[None].float(),), (label,), 2, shape, (1.0,) * len(shape))


def test_it_learns_a_box_and_says_how():
    support = box_support(16, 14)
    segmenter = MonaiUnet(steps=40, width=4, learning_rate=1e-2, seed=1).adapt(support)
    logits = segmenter(support.images[0][None])
    assert logits.shape == (1, 2, 16, 14)
    assert logits.dtype == torch.float32
    found, true = logits.argmax(1)[0] == 1, support.labels[0] == 1
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9
    record = segmenter.record
    assert (record["learner"], record["steps"], record["stopped_by"]) == ("monai-unet", 40, "steps")
    assert record["versions"]["monai"] == version("monai")
    assert record["optimizer"]["lr"] == 1e-2
    assert record["network"]["channels"][0] == 4
    json.dumps(record)


def test_the_same_seed_gives_the_same_and_a_saved_one_is_the_same():
    support = box_support(9, 10, 7)  # no axis divides by its strides
    one, two = (MonaiUnet(steps=2, width=4, seed=3).adapt(support) for _ in range(2))
    image = torch.rand(1, 1, 9, 10, 7)
    assert torch.equal(one(image), two(image))
    restored = MonaiSegmenter.from_config(json.loads(json.dumps(one.config())))
    restored.load_state_dict(one.state_dict())
    assert torch.equal(one(image), restored(image))


def test_a_budget_ends_training_after_a_first_step():
    segmenter = MonaiUnet(steps=5, width=4, budget_seconds=1e-9).adapt(box_support(12, 12))
    assert (segmenter.record["steps"], segmenter.record["stopped_by"]) == (1, "budget")
    with pytest.raises(InputError, match="steps of 1 or more"):
        MonaiUnet(steps=0).adapt(box_support(12, 12))


def test_a_benchmark_file_names_it_and_the_command_line_does_not(tmp_path):
    cell = only_cell(learners=[{"name": "peer", "learner": "monai-unet", "steps": 2, "width": 4}], queries=1)
    run_cell(cell, prepare_data([cell], None, tmp_path), tmp_path / "cell", "cpu", adapt=adapt_any)
    record = json.loads((tmp_path / "cell" / "cell.json").read_text())
    assert (record["steps"], record["learner"]["learner"]) == (2, "monai-unet")
    assert record["learner"]["loss"]["class"] == "monai.losses.DiceCELoss"
    with pytest.raises(InputError, match="learner monai-unet: unknown"):
        make_learner(AdaptSettings(learner="monai-unet"))
    path = write_board(tmp_path, {"name": "peer", "learner": "monai-unet", "weights": "default"})
    with pytest.raises(InputError, match="weights"):
        load_volume(path)
    with pytest.raises(InputError, match="learners: peer: learner monai-unet: unknown"):
        load_benchmark(path)
