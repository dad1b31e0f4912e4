"""Choice of the learner and of its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toys
from blobs import backbone_for

from medfewshot.errors import InputError
from medfewshot.inference import segment_volume
from medfewshot.learners import LEARNERS, make_learner, read_seen, resolve_auto, start_of
from medfewshot.learners.finetune import NetworkSegmenter
from medfewshot.planning import make_plan, make_support
from medfewshot.settings import QUALITY_LEVELS, AdaptSettings
from medfewshot.types import Volume
from medfewshot.workflow import LabelledScans, adapt


def volumes(count: int = 2) -> tuple[list[Volume], list[Volume]]:
    scans = [toys.make_scan(number) for number in range(count)]
    return (
        [Volume(image[None].astype(np.float32), toys.AFFINE) for image, _ in scans],
        [Volume(label[None], toys.AFFINE) for _, label in scans],
    )


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toys.install(monkeypatch)


def test_settings_that_a_learner_does_not_have():
    with pytest.raises(InputError, match=r"learner oracle: unknown; choose hybrid or finetune"):
        make_learner(AdaptSettings(learner="oracle"))
    with pytest.raises(InputError, match="learner toy: has no setting width, learning_rate"):
        make_learner(AdaptSettings(learner="toy", width=8, learning_rate=0.1))


@pytest.mark.parametrize("name", ["finetune", "prototype", "maml", "protomaml"])
def test_quality_sets_steps_and_time(name):
    draft, usual, best = (
        make_learner(AdaptSettings(learner=name, device="cpu", quality=quality)) for quality in QUALITY_LEVELS
    )
    assert (draft.steps, best.steps) == (usual.steps // 4, 4 * usual.steps)
    assert (draft.budget_seconds, usual.budget_seconds, best.budget_seconds) == (60, 240, None)
    assert make_learner(AdaptSettings(learner=name, device="cpu", quality="draft", steps=9)).steps == 9


def test_a_lifted_draft_makes_the_missing_steps():
    network = start_of(NetworkSegmenter(backbone_for((8, 8))), "finetune", same_classes=True)
    steps = [
        make_learner(AdaptSettings(learner="finetune", device="cpu"), network=network, steps_done=done).steps
        for done in (None, 100, 390)
    ]
    assert steps == [150, 300, 150]
    random = AdaptSettings(learner="finetune", device="cpu", weights=None)
    again = make_learner(random, network=network, steps_done=250)
    assert (again.steps, again.random_start) == (750, True)


def test_the_packages_weights_are_taken_where_they_fit():
    images, _ = volumes(1)
    flat = [replace(images[0], data=images[0].data[:, :, :, 0])]
    two = [replace(images[0], data=np.concatenate([images[0].data] * 2))]

    def chosen(given, **settings):
        return resolve_auto(AdaptSettings(**settings), given).weights

    assert chosen(images) == "default"
    assert chosen(images, learner="finetune") == "default"
    assert chosen(images, weights="novel") == "novel"
    assert chosen(two) == "default", "weights for one channel serve several"
    assert chosen(flat) == "default", "weights for 3D serve 2D"
    for given, settings in (
        (images, {"width": 8}),
        (images, {"learner": "atlas"}),
        (images, {"weights": "none"}),
        (images, {"weights": None}),
    ):
        assert chosen(given, **settings) is None


def test_auto_is_the_hybrid_in_3d_and_the_network_in_2d():
    images, labels = volumes(1)
    assert resolve_auto(AdaptSettings(), images).learner == "hybrid"
    flat = resolve_auto(AdaptSettings(), [replace(images[0], data=images[0].data[..., 0])])
    assert (flat.learner, flat.weights) == ("finetune", "default")
    assert resolve_auto(AdaptSettings(learner="atlas"), images).learner == "atlas"
    assert resolve_auto(AdaptSettings(quality="draft"), images).learner == "finetune"
    assert resolve_auto(AdaptSettings(quality="draft"), images).weights == "default"
    adapted = adapt(LabelledScans(images, labels), AdaptSettings(steps=1, device="cpu"))
    assert adapted.record["learner"]["learner"] == adapted.record["settings"]["learner"] == "hybrid"
    assert adapted.record["keeps_supports"] is True


@pytest.mark.parametrize("weights", ["default", "novel", "open"])
def test_shipped_weights_can_be_started_from(weights):
    learner = make_learner(AdaptSettings(weights=weights, device="cpu"))
    draft = make_learner(AdaptSettings(weights=weights, device="cpu", quality="draft"))
    assert learner.finetune.steps == LEARNERS["hybrid"].steps_from_weights
    assert draft.steps == learner.finetune.steps // 4
    two = make_learner(AdaptSettings(weights=weights, device="cpu"), shots=2)
    assert two.finetune.steps == 1.5 * learner.finetune.steps  # several supports are learned longer
    for quality in ("standard", "best"):
        film = make_learner(AdaptSettings(weights=weights, device="cpu", quality=quality), tracked=True)
        assert film.finetune.steps == learner.finetune.steps / 4
    assert all(bool(value.isfinite().all()) for value in learner.finetune.start.state_dict().values())
    assert make_learner(AdaptSettings(learner="ridge", weights=weights, device="cpu")).start is not None
    seen = read_seen(weights).get("abd-ct-sabs", {"subjects": [], "labels": []})
    assert len(seen["subjects"]) == (0 if weights == "open" else 15)
    assert (set(seen["labels"]) & {"1", "2", "3", "6"} == set()) == (weights != "default")


def test_slices_are_read_in_context_without_a_step():
    """The package's 2D weights, which have seen made-up slices alone, find another disc than the one they are shown."""
    images, labels = zip(*(disc(centre) for centre in ((30, 40), (44, 52))), strict=True)
    settings = resolve_auto(AdaptSettings(learner="in_context", device="cpu"), images[:1])
    assert settings.weights == "in-context-2d"
    assert read_seen("in-context-2d") == {}
    adapted = adapt(LabelledScans(images[:1], labels[:1]), settings)
    assert adapted.record["learner"]["steps"] == 0
    found = segment_volume(images[1], adapted.plan, adapted.segmenter).labels > 0
    truth = labels[1].data[0] > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    assert resolve_auto(AdaptSettings(learner="in_context"), volumes(1)[0]).weights is None
    with pytest.raises(InputError, match="were trained for learner in_context"):
        make_learner(AdaptSettings(learner="finetune", weights="in-context-2d", device="cpu"))


def disc(centre):
    """A bright disc in noise, and its label: 2D, one channel."""
    x, y = np.mgrid[:80, :96]
    inside = np.hypot(x - centre[0], y - centre[1]) < 12
    image = np.random.default_rng(sum(centre)).normal(size=inside.shape) + 4 * inside
    return Volume(image[None].astype(np.float32), np.eye(4)), Volume(inside[None].astype(np.uint8), np.eye(4))


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_help_from_the_first_step(dims):
    """A scan of other blocks than any seen: after two steps the package's weights are ahead of random ones."""
    images, labels = volumes(2)
    if dims == 2:
        cut = int((labels[0].data[0] > 0).sum((0, 1)).argmax())
        images, labels = ([replace(one, data=one.data[..., cut]) for one in some] for some in (images, labels))
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


def test_weights_have_a_width_of_their_own():
    with pytest.raises(InputError, match="weights default: have a width of their own"):
        make_learner(AdaptSettings(learner="finetune", weights="default", width=64))


def test_a_learner_without_a_start_takes_no_weights():
    with pytest.raises(InputError, match="learner atlas: takes no weights"):
        make_learner(AdaptSettings(learner="atlas", weights="default"))
