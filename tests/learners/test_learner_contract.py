"""What every learner in LEARNERS, and every segmenter it hands back, keeps to. A new learner passes these as it is."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from blobs import example, has, small, support_of

from medfewshot.backbones import UNet, choose_strides
from medfewshot.learners import LEARNERS
from medfewshot.types import Progress

pytestmark = pytest.mark.parametrize("name", LEARNERS)

SUPPORTS = {
    "2D": support_of([(12, 10)]),
    "3D": support_of([(10, 9, 8)]),
    "K=3, shapes differ": support_of([(12, 10, 8), (10, 12, 9), (14, 8, 7)], patch=(8, 8, 8)),
    "two channels": support_of([(12, 10)], channels=2),
    "three structures": support_of([(18, 10), (16, 12)], labels=3),
    "patch larger than the volume": support_of([(9, 9, 5)], patch=(12, 12, 5)),
    "single slice": support_of([(12, 12, 5)], patch=(12, 12, 1)),
}


def start_for(name, support) -> torch.nn.Module:
    """A bare network of the learner's own class."""
    if LEARNERS[name].network is not UNet:
        return LEARNERS[name].build_backbone(dims=support.spatial_dims, in_channels=support.channels, width=4)
    torch.manual_seed(5)
    strides = choose_strides(support.patch_size, support.spacing)
    return UNet(support.spatial_dims, support.channels, support.classes, 4, strides)


def query_for(support) -> torch.Tensor:
    shape = (11, 9, 7)[: support.spatial_dims]
    return torch.randn(2, support.images[0].shape[0], *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", SUPPORTS)
def test_a_segmenter_gives_logits_for_any_shape(name, kind):
    support = SUPPORTS[kind]
    segmenter = small(name).adapt(support)
    query = query_for(support)
    before = query.clone()
    logits = segmenter(query)
    assert logits.shape == (2, support.classes, *query.shape[2:])
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert not logits.requires_grad
    assert torch.equal(query, before)
    torch.testing.assert_close(segmenter(query[1:]), logits[1:])  # each sample by itself


def test_background_comes_first(name):
    """After a little training channel 0 wins where the support says background, channel 1 where it says structure."""
    support = support_of([(24, 24)], seed=3)
    logits = small(name, steps=40, width=8).adapt(support)(support.images[0][None])
    for index in (0, 1):
        assert float((logits.argmax(1)[0] == index)[support.labels[0] == index].float().mean()) > 0.8


@pytest.mark.parametrize("kind", ["2D", "K=3, shapes differ"])
def test_a_seed_decides_everything(name, kind):
    support = SUPPORTS[kind]
    torch.manual_seed(11)
    first = small(name, seed=7).adapt(support)(query_for(support))
    torch.manual_seed(12)
    again = small(name, seed=7).adapt(support)(query_for(support))
    other = small(name, seed=8).adapt(support)(query_for(support))
    assert torch.equal(first, again)
    assert torch.equal(first, other) != has(name, "seed")  # where nothing is left to chance there is no seed either


def test_the_global_random_state_is_left_alone(name):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    small(name).adapt(SUPPORTS["2D"])(query_for(SUPPORTS["2D"]))
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_stay_switched_as_they_were(name):
    small(name).adapt(SUPPORTS["2D"])
    assert torch.is_grad_enabled()


def test_a_seed_decides_the_head_that_a_network_without_one_gets(name):
    if LEARNERS[name].network is not UNet or not has(name, "start"):
        pytest.skip("starts from no U-Net")
    support, logits = SUPPORTS["3D"], []
    start = start_for(name, support).with_classes(0)
    for state in (11, 12):
        torch.manual_seed(state)
        logits.append(small(name, seed=7, start=start).adapt(support)(query_for(support)))
    assert logits[0].shape == (2, support.classes, 11, 9, 7)
    assert torch.equal(*logits)


def test_adapting_changes_neither_learner_nor_support(name):
    support = support_of([(12, 10), (10, 14)], patch=(8, 8))
    tensors = [t.clone() for t in (*support.images, *support.labels)]
    start = start_for(name, support).train()
    weights, layout = copy.deepcopy(start.state_dict()), [p.stride() for p in start.parameters()]
    learner = small(name, start=start)
    settings = dict(vars(learner))

    segmenter = learner.adapt(support)
    segmenter(query_for(support))

    assert vars(learner) == settings
    assert all(torch.equal(value, weights[key]) for key, value in start.state_dict().items())
    assert [p.stride() for p in start.parameters()] == layout
    assert start.training
    assert all(p.grad is None and p.requires_grad for p in start.parameters())
    if has(name, "start"):
        assert not {id(p) for p in segmenter.network.parameters()} & {id(p) for p in start.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(tensors, (*support.images, *support.labels), strict=True))


def test_one_learner_serves_many_supports(name):
    """Adapting to a second support leaves the first segmenter, and the next adaptation, as they were."""
    learner, support = small(name), SUPPORTS["2D"]
    query = query_for(support)
    first = learner.adapt(support)
    before = first(query)
    learner.adapt(support_of([(16, 16)], seed=9))
    assert torch.equal(first(query), before)
    assert torch.equal(learner.adapt(support)(query), before)


def test_progress_is_told(name):
    told = []
    small(name, progress=Progress(lambda event: told.append((event.stage, event.done, event.total)))).adapt(
        SUPPORTS["2D"]
    )
    assert told
    assert told[-1][1] == told[-1][2]
    for stage in {stage for stage, *_ in told}:
        done = [count for name_of, count, _ in told if name_of == stage]
        assert done == sorted(done)


def test_the_record_is_json(name):
    record = small(name).adapt(SUPPORTS["2D"]).record
    assert record["learner"] == name
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize("kind", ["2D", "three structures", "K=3, shapes differ"])
def test_a_segmenter_can_be_written_down(name, kind):
    """``config`` as JSON and ``state_dict`` bring back exactly the same logits."""
    support = SUPPORTS[kind]
    segmenter = small(name).adapt(support)
    config = json.loads(json.dumps(segmenter.config(), allow_nan=False))
    tensors = {key: value.clone() for key, value in segmenter.state_dict().items()}
    restored = LEARNERS[name].segmenter.from_config(config)
    restored.load_state_dict(tensors)
    query = query_for(support)
    assert torch.equal(restored(query), segmenter(query))
    assert restored.config() == segmenter.config()


def test_a_segmenter_can_be_moved(name):
    """``copy_to`` gives a second segmenter, which shares nothing with the first."""
    support = SUPPORTS["2D"]
    segmenter = small(name).adapt(support)
    query = query_for(support)
    before = segmenter(query)
    moved = segmenter.copy_to(torch.device("cpu"))
    assert torch.equal(moved(query), before)
    assert moved.record == segmenter.record
    with torch.no_grad():
        for tensor in moved.state_dict().values():
            tensor.zero_()
    assert torch.equal(segmenter(query), before)


def test_a_structure_that_one_support_lacks(name):
    support = support_of([(18, 12), (18, 12)], labels=2, patch=(12, 12))
    support.labels[1][support.labels[1] == 2] = 0
    logits = small(name).adapt(support)(query_for(support))
    assert torch.isfinite(logits).all()


def test_an_empty_support_label_does_not_crash(name):
    image, label = example((12, 12))
    support = support_of([(12, 12)])
    empty = type(support)((image, image), (label, torch.zeros_like(label)), 2, (12, 12), (1.0, 1.0))
    assert torch.isfinite(small(name).adapt(empty)(image[None])).all()
