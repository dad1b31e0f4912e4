"""From labelled volumes to a segmenter, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from medfewshot.adaptation import (
    STEPS_FROM_WEIGHTS,
    adapt_volumes,
    cases_from_pairs,
    choose,
    make_learner,
    make_support,
    read_cases,
)
from medfewshot.errors import InputError
from medfewshot.inference import segment_volume
from medfewshot.learners import LEARNERS, read_seen
from medfewshot.planning import make_plan
from medfewshot.settings import AdaptSettings
from medfewshot.types import Case, Volume


def volumes(count: int = 2) -> tuple[list[Volume], list[Volume]]:
    scans = [toys.make_scan(number) for number in range(count)]
    return (
        [Volume(image[None].astype(np.float32), toys.AFFINE) for image, _ in scans],
        [Volume(label[None], toys.AFFINE) for _, label in scans],
    )


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toys.install(monkeypatch)


def test_adapted_knows_how_it_came_about(tmp_path):
    root = toys.make_folders(tmp_path, queries=0)
    pairs = [(root / f"annotated/images/s{k}.nii.gz", root / f"annotated/labels/s{k}.nii.gz") for k in (0, 1)]
    images, labels = read_cases(cases_from_pairs(pairs))
    adapted = adapt_volumes(images, labels, AdaptSettings(learner="toy", seed=3), {205: "block"})
    assert adapted.plan.labels == {205: "block", 420: "label 420"}
    record = adapted.record
    assert set(record) == {
        "seed", "supports", "settings", "device", "learner", "keeps_supports", "weights_have_seen", "seconds",
        "warnings", "profile",
    }  # fmt: skip
    assert record["weights_have_seen"] == {}
    assert record["keeps_supports"] is False
    assert record["seed"] == 3
    assert record["supports"] == [{"image": str(image), "label": str(label)} for image, label in pairs]
    assert record["learner"]["learner"] == "toy"
    assert set(record["seconds"]) == {"plan", "adapt"}
    assert record["warnings"] == []


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"steps": 9, "training_dice": [0.9, 0.31]}, []),
        ({"steps": 9, "training_dice": [0.9, 0.1]}, ["label 420: hardly learned", "more --steps"]),
        ({"steps": 9, "training_dice": [0.1, 0.1], "network_trust": [0, 0]}, ["block, label 420: ", "matching alone)"]),
        ({"steps": 0, "training_dice": [0.0, 0.0]}, []),
        ({"steps": 9, "training_dice": [0.0, 0.0], "trained": False}, ["adaptation did not learn", "more --steps"]),
    ],
)
def test_structures_that_were_not_learned_are_named(record, told, monkeypatch):
    def adapt(self, support, found=toys.ToyLearner.adapt):
        segmenter = found(self, support)
        segmenter.record = record
        return segmenter

    monkeypatch.setattr(toys.ToyLearner, "adapt", adapt)
    warnings = adapt_volumes(*volumes(), AdaptSettings(learner="toy"), {205: "block"}).warnings
    assert len(warnings) == bool(told)
    assert all(text in warnings[0] for text in told)


def test_the_support_holds_planned_tensors():
    images, labels = volumes()
    plan = make_plan(images, labels)
    support = make_support(images, labels, plan)
    assert (support.shots, support.classes, support.patch_size) == (2, 3, plan.patch_size)
    for image, label, given in zip(support.images, support.labels, labels, strict=True):
        assert image.dtype == torch.float32
        assert label.dtype == torch.int64
        assert image.shape[1:] == label.shape
        # The plan is on the native grid here, so classes 1 and 2 have as many voxels as 205 and 420.
        assert torch.bincount(label.flatten()).tolist()[1:] == [int((given.data == v).sum()) for v in toys.VALUES]


def test_the_modality_of_a_dataset_reaches_the_plan(tmp_path):
    image, label = toys.make_scan(0)
    paths = toys.save_nifti(tmp_path / "i.nii.gz", image), toys.save_nifti(tmp_path / "l.nii.gz", label)
    images, labels = read_cases([Case("i", "i", "CT", (paths[0],), paths[1])])
    assert images[0].modality == "CT"
    adapted = adapt_volumes(images, labels, AdaptSettings(learner="toy"))
    assert adapted.plan.normalization[0].kind == "window"


def test_a_case_without_label_is_no_support():
    with pytest.raises(InputError, match=r"a\.nii\.gz: has no label"):
        read_cases([Case("a", "a", None, (Path("a.nii.gz"),))])


def test_an_empty_label_is_refused():
    images, labels = volumes()
    labels[1] = replace(labels[1], data=labels[1].data * 0)
    with pytest.raises(InputError, match="no structure is marked"):
        adapt_volumes(images, labels, AdaptSettings(learner="toy"))


def test_settings_that_a_learner_does_not_have():
    with pytest.raises(InputError, match=r"learner oracle: unknown; choose finetune or prototype"):
        make_learner(AdaptSettings(learner="oracle"))
    with pytest.raises(InputError, match="learner toy: has no setting width, learning_rate"):
        make_learner(AdaptSettings(learner="toy", width=8, learning_rate=0.1))


@pytest.mark.parametrize("name", ["finetune", "prototype", "maml", "protomaml"])
def test_fast_is_a_quarter_of_the_steps(name):
    usual, fast = (make_learner(AdaptSettings(learner=name, device="cpu", fast=fast)) for fast in (False, True))
    assert fast.steps == usual.steps // 4
    assert make_learner(AdaptSettings(learner=name, device="cpu", fast=True, steps=9)).steps == 9


@pytest.mark.parametrize(
    ("told", "warning"),
    [
        ({"restarts": 2}, "restarted 2 time"),
        ({"trained": False}, "do not use this segmenter"),
        ({"stopped_by": "budget", "steps": 31}, "after 31 steps"),
    ],
)
def test_warnings_of_the_learner(monkeypatch, told, warning):
    class Troubled(toys.ToyLearner):
        def adapt(self, support):
            segmenter = super().adapt(support)
            segmenter.record = told
            return segmenter

    monkeypatch.setitem(LEARNERS, "toy", Troubled)
    adapted = adapt_volumes(*volumes(), AdaptSettings(learner="toy"))
    assert warning in " ".join(adapted.warnings)


def test_warnings_name_the_file():
    images, labels = volumes()
    images[0] = replace(images[0], path=Path("a.nii.gz"), warnings=("odd",))
    assert "a.nii.gz: odd" in adapt_volumes(images, labels, AdaptSettings(learner="toy")).warnings


def test_the_packages_weights_are_taken_where_they_fit():
    images, _ = volumes(1)
    flat = [replace(images[0], data=images[0].data[:, :, :, 0])]
    two = [replace(images[0], data=np.concatenate([images[0].data] * 2))]

    def chosen(given, **settings):
        return choose(AdaptSettings(**settings), given).weights

    assert chosen(images) == "default"
    assert chosen(images, learner="finetune") == "default"
    assert chosen(images, weights="novel") == "novel"
    for given, settings in (
        (flat, {}),
        (two, {}),
        (images, {"width": 8}),
        (images, {"learner": "atlas"}),
        (images, {"weights": "none"}),
        (images, {"weights": None}),
    ):
        assert chosen(given, **settings) is None


def test_auto_is_the_hybrid_in_3d_and_the_network_in_2d():
    images, labels = volumes(1)
    assert choose(AdaptSettings(), images).learner == "hybrid"
    assert choose(AdaptSettings(), [replace(images[0], data=images[0].data[..., 0])]).learner == "finetune"
    assert choose(AdaptSettings(learner="atlas"), images).learner == "atlas"
    adapted = adapt_volumes(images, labels, AdaptSettings(steps=1, device="cpu"))
    assert adapted.record["learner"]["learner"] == adapted.settings.learner == "hybrid"
    assert adapted.record["keeps_supports"] is True


@pytest.mark.parametrize("weights", ["default", "novel"])
def test_shipped_weights_can_be_started_from(weights):
    learner = make_learner(AdaptSettings(weights=weights, device="cpu"))
    assert learner.steps == STEPS_FROM_WEIGHTS["hybrid"]
    assert make_learner(AdaptSettings(weights=weights, device="cpu", fast=True)).steps == learner.steps // 4
    assert all(bool(value.isfinite().all()) for value in learner.start.state_dict().values())
    assert make_learner(AdaptSettings(learner="ridge", weights=weights, device="cpu")).start is not None
    seen = read_seen(weights)["abd-ct-sabs"]
    assert len(seen["subjects"]) == 15
    assert (set(seen["labels"]) & {"1", "2", "3", "6"} == set()) == (weights == "novel")


def test_slices_are_read_in_context_without_a_step():
    """The package's 2D weights, which have seen made-up slices alone, find another disc than the one they are shown."""
    images, labels = zip(*(disc(centre) for centre in ((30, 40), (44, 52))), strict=True)
    settings = choose(AdaptSettings(learner="in_context", device="cpu"), images[:1])
    assert settings.weights == "in-context-2d"
    assert read_seen("in-context-2d") == {}
    adapted = adapt_volumes(images[:1], labels[:1], settings)
    assert adapted.learner_record["steps"] == 0
    found = segment_volume(images[1], adapted.plan, adapted.segmenter).labels > 0
    truth = labels[1].data[0] > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    assert choose(AdaptSettings(learner="in_context"), volumes(1)[0]).weights is None
    with pytest.raises(InputError, match="another kind of learner"):
        make_learner(AdaptSettings(learner="finetune", weights="in-context-2d", device="cpu"))


def disc(centre):
    """A bright disc in noise, and its label: 2D, one channel."""
    x, y = np.mgrid[:80, :96]
    inside = np.hypot(x - centre[0], y - centre[1]) < 12
    image = np.random.default_rng(sum(centre)).normal(size=inside.shape) + 4 * inside
    return Volume(image[None].astype(np.float32), np.eye(4)), Volume(inside[None].astype(np.uint8), np.eye(4))


def test_weights_help_from_the_first_step():
    """A scan of other blocks than any seen: after two steps the package's weights are ahead of random ones."""
    images, labels = volumes(2)
    plan = make_plan(images, labels)
    support = make_support(images[:1], labels[:1], plan)
    query = make_support(images[1:], labels[1:], plan)

    def score(weights):
        settings = AdaptSettings(learner="finetune", weights=weights, steps=2, device="cpu")
        segmenter = make_learner(settings).adapt(support)
        found = segmenter(query.images[0][None])[0].argmax(0) > 0
        truth = query.labels[0] > 0
        return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))

    assert score("default") > score(None) + 0.1


def test_a_mask_without_millimetres_fits_its_scan(tmp_path):
    """A slice of 0.2 mm pixels with a mask drawn as PNG, which knows no millimetres."""
    label = np.zeros((40, 30), dtype=np.uint8)
    label[10:20, 10:16] = 1
    scan = toys.save_nifti(tmp_path / "i.nii.gz", label.astype(np.float32), np.diag([0.2, 0.2, 1, 1]))
    Image.fromarray(label.T).save(tmp_path / "m.png")
    images, labels = read_cases([Case("i", "i", None, (scan,), tmp_path / "m.png")])
    support = make_support(images, labels, make_plan(images, labels))
    assert support.images[0].shape[1:] == support.labels[0].shape
    with pytest.raises(InputError, match="do not fit"):
        make_support(images, [replace(labels[0], affine=np.eye(4))], make_plan(images, labels))


def test_chosen_structures_leave_the_others_to_the_background():
    label = np.ones((1, 12, 12), dtype=np.uint8)
    label[0, :6] = 2
    image = Volume(label.astype(np.float32), np.eye(4))
    with pytest.raises(InputError, match="covers the whole image"):
        adapt_volumes([image], [Volume(label, np.eye(4))], AdaptSettings(learner="toy"))
    settings = AdaptSettings(learner="toy", labels=[1])
    assert adapt_volumes([image], [Volume(label, np.eye(4))], settings).plan.label_values == (1,)


@pytest.mark.parametrize("shape", [(1, 12, 14), (14, 12, 1), (2, 9, 9)])
def test_the_default_takes_volumes_of_a_slice_or_two(shape):
    label = np.zeros((1, *shape), dtype=np.uint8)
    label[:, :, 3:8, :8] = 1
    image = Volume(10 * label + np.random.default_rng(0).normal(size=label.shape).astype(np.float32), np.eye(4))
    settings = AdaptSettings(steps=1, width=4, weights=None)
    adapted = adapt_volumes([image] * 2, [Volume(label, np.eye(4))] * 2, settings, learners=LEARNERS)
    assert segment_volume(image, adapted.plan, adapted.segmenter).labels.shape == shape


def test_weights_have_a_width_of_their_own():
    with pytest.raises(InputError, match="--weights default: have a width of their own"):
        make_learner(AdaptSettings(learner="finetune", weights="default", width=64), learners=LEARNERS)


def test_a_learner_without_a_start_takes_no_weights():
    with pytest.raises(InputError, match="learner atlas takes none"):
        make_learner(AdaptSettings(learner="atlas", weights="default"), learners=LEARNERS)


def test_supports_of_different_worlds_are_told():
    images, labels = volumes(3)
    images[2] = replace(images[2], affine=images[2].affine @ np.diag([3.0, 3.0, 3.0, 1.0]))
    labels[2] = replace(labels[2], affine=images[2].affine)
    told = [w for w in adapt_volumes(images, labels, AdaptSettings(learner="toy")).warnings if "one kind" in w]
    assert len(told) == 2
    assert "voxels are coarse" in told[0]
    assert "field of view is large" in told[1]
