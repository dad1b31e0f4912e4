"""Fine-tuning learns a tiny task, keeps to its budget and gets up again after a collapse."""

from __future__ import annotations

import pytest
import torch
from blobs import backbone_for, dice, episode_of, example, slow_steps, support_of

from medfewshot.backbones import UNet, choose_strides
from medfewshot.errors import InputError
from medfewshot.learners import Finetune
from medfewshot.learners.finetune import MAX_RESTARTS
from medfewshot.types import Progress

FLAT = support_of([(24, 24), (28, 20)], patch=(24, 24))


@pytest.mark.parametrize("shape", [(32, 32), (20, 18, 16)])
def test_a_blob_is_learned(shape):
    support = support_of([shape, shape], patch=shape)
    segmenter = Finetune(steps=60, width=8).adapt(support)
    assert segmenter.record["trained"]
    assert segmenter.record["stopped_by"] == "steps"
    assert segmenter.record["steps"] == 60
    assert segmenter.record["restarts"] == 0
    image, label = example(shape, seed=50)
    assert dice(segmenter(image[None]), label) > 0.8


def test_several_structures_are_told_apart():
    support = support_of([(30, 24)] * 3, labels=2, patch=(30, 24))
    segmenter = Finetune(steps=60, width=8).adapt(support)
    image, label = example((30, 24), labels=2, seed=50)
    logits = segmenter(image[None])
    assert min(dice(logits, label, 1), dice(logits, label, 2)) > 0.7


def test_a_trained_start_is_ahead_of_a_random_one():
    trained = Finetune(steps=40, width=8).adapt(FLAT).network
    image, label = example((24, 24), seed=50)
    ahead = Finetune(steps=2, width=8, start=trained).adapt(FLAT)
    behind = Finetune(steps=2, width=8).adapt(FLAT)
    assert dice(ahead(image[None]), label) > dice(behind(image[None]), label)
    assert ahead.record["steps"] == 2


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_is_made(steps):
    told = []
    progress = Progress(lambda event: told.append((event.done, event.total)))
    record = Finetune(steps=steps, width=4, progress=progress).adapt(FLAT).record
    assert told == [(i + 1, steps) for i in range(steps)]
    assert record["steps"] == steps


def test_a_budget_ends_adaptation(monkeypatch):
    """Learning rates fall to 0 within the budget, so a few of its steps may be left over."""
    record = Finetune(steps=100_000, width=4, budget_seconds=4.0, progress=slow_steps(monkeypatch)).adapt(FLAT).record
    assert record["stopped_by"] == "budget"
    assert 36 <= record["steps"] <= 40


def test_a_budget_of_nothing_still_makes_a_step():
    record = Finetune(steps=50, width=4, budget_seconds=0.0).adapt(FLAT).record
    assert record["stopped_by"] == "budget"
    assert record["steps"] == 1


def test_an_ample_budget_changes_nothing():
    image, _ = example((24, 24), seed=50)
    limited = Finetune(steps=8, width=4, budget_seconds=3600).adapt(FLAT)
    assert limited.record["stopped_by"] == "steps"
    assert torch.equal(limited(image[None]), Finetune(steps=8, width=4).adapt(FLAT)(image[None]))


def test_after_a_collapse_it_starts_again():
    """A rate that is far too high; a later attempt, at a quarter or a sixteenth of it, is what comes back."""
    segmenter = Finetune(steps=60, width=8, learning_rate=1.0).adapt(FLAT)
    assert segmenter.record["restarts"] >= 1
    assert segmenter.record["trained"]
    assert segmenter.record["steps"] == 60
    image, label = example((24, 24), seed=50)
    assert dice(segmenter(image[None]), label) > 0.8


def test_when_nothing_helps_the_record_says_so():
    """It restarts, lower and lower, and says how that ended; the segmenter still answers with finite numbers."""
    segmenter = Finetune(steps=16, width=4, learning_rate=1e6).adapt(FLAT)
    assert segmenter.record["trained"] is False
    assert segmenter.record["restarts"] == MAX_RESTARTS
    image, _ = example((24, 24), seed=50)
    assert torch.isfinite(segmenter(image[None])).all()


def test_meta_training_needs_a_start():
    with pytest.raises(InputError, match="learner finetune: has no start from build_start"):
        Finetune().meta_loss(episode_of((24, 24)))
    with pytest.raises(InputError, match="has no start from build_start"):
        Finetune(start=backbone_for((24, 24))).meta_loss(episode_of((24, 24)))


def test_a_start_keeps_its_own_width():
    start = UNet(2, 1, 2, 6, choose_strides((24, 24), (1.0, 1.0)))
    assert Finetune(steps=1, width=4, start=start).adapt(FLAT).network.config == start.config


def test_a_network_with_another_number_of_classes_is_refused():
    support = support_of([(12, 10)], labels=2)
    network = UNet(2, 1, 5, 4, choose_strides(support.patch_size, support.spacing))
    with pytest.raises(InputError, match="5 classes"):
        Finetune(steps=1, start=network).adapt(support)


@pytest.mark.parametrize(("shots", "from_scratch", "rises"), [(1, False, False), (2, False, True), (1, True, True)])
def test_a_start_learns_gently_from_one_support(shots, from_scratch, rises):
    learner = Finetune(steps=121, width=4, start=backbone_for((24, 24)), random_start=from_scratch)
    rate = learner.adapt(support_of([(24, 24)] * shots, labels=1)).record["learning_rate"]
    assert rate > 8e-3 if rises else rate == pytest.approx(8e-3 / 1.1, abs=1e-5)
