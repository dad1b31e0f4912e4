"""Meta-gradients of MAML and its relatives against finite differences and against each other; learning to learn."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from blobs import dice, example, slow_steps, support_of
from meta import FLAT, SOLID, along, episode_of, gradient_of, make_smooth, random_direction, slope, tiny_unet

from medfewshot.errors import InputError
from medfewshot.learners import Finetune, Maml
from medfewshot.learners.finetune import NetworkSegmenter
from medfewshot.learners.inner_loop import MamlStart, forward
from medfewshot.learners.maml import VARIANTS, step_shares
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.types import Progress, Query


def meta_learner(variant: str, dims: int = 2, dtype: torch.dtype = torch.float64, **options) -> Maml:
    """With a start whose rates are not all alike."""
    learner = Maml(variant=variant, **{"inner_steps": 2, "inner_rate": 0.3} | options)
    start = learner.build_start(tiny_unet(dims)).to(dtype).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for rate in start.rates.values():
            rate.mul_(0.5 + torch.rand(rate.shape, generator=generator).to(dtype))
    return replace(learner, start=start)


# Meta-gradients


@pytest.mark.parametrize("shape", [FLAT, SOLID])
@pytest.mark.parametrize("variant", ["maml", "anil", "meta-sgd", "maml++"])
def test_the_meta_gradient_is_that_of_the_loss(variant, shape, monkeypatch):
    """Second order, against central differences along random directions in all meta-parameters."""
    make_smooth(monkeypatch)
    learner = meta_learner(variant, len(shape), annealing_episodes=0)
    episode = episode_of(shape, labels=2, shots=2, queries=2, dtype=torch.float64)
    gradient = gradient_of(learner.meta_loss(episode), learner.start)
    assert set(gradient) == {name for name, _ in learner.start.named_parameters()} or variant == "anil"
    for seed in range(2):
        direction = random_direction(gradient, seed)
        expected = slope(lambda: learner.meta_loss(episode), learner.start, direction)
        assert along(gradient, direction) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_first_order_leaves_out_the_hessian_and_nothing_else():
    """One step: d L_q(theta') / d theta = (I - alpha H) g; FOMAML gives g = grad L_q at theta'."""
    second, first = (meta_learner(v, inner_steps=1) for v in ("maml", "fomaml"))
    episode = episode_of(labels=2, dtype=torch.float64)
    start, image = second.start, episode.support.images[0][None]
    label = episode.support.labels[0][None]
    weights = {name: value.detach().requires_grad_() for name, value in start.weights(3).items()}
    values = list(weights.values())
    support_loss = dice_cross_entropy(forward(start.backbone, weights, image), label)
    gradients = torch.autograd.grad(support_loss, values, create_graph=True)
    moved = {name: (w - 0.3 * g).detach().requires_grad_() for (name, w), g in zip(weights.items(), gradients)}  # noqa: B905
    query_loss = dice_cross_entropy(forward(start.backbone, moved, episode.query.image), episode.query.label)
    at_query = torch.autograd.grad(query_loss, list(moved.values()))
    hessian_part = torch.autograd.grad(gradients, values, at_query)
    rows = start.weights(3)  # how the start's two rows become three: transposed by autograd

    def to_start(per_weight):
        return gradient_of(sum((a * b).sum() for a, b in zip(rows.values(), per_weight, strict=True)), start)

    with_hessian = to_start([g - 0.3 * h for g, h in zip(at_query, hessian_part, strict=True)])
    torch.testing.assert_close(gradient_of(first.meta_loss(episode), first.start), to_start(at_query))
    torch.testing.assert_close(gradient_of(second.meta_loss(episode), start), with_hessian)
    assert float(first.meta_loss(episode).detach()) == float(second.meta_loss(episode).detach())
    assert max(float(h.abs().max()) for h in hessian_part) > 1e-3


def test_reptile_pulls_towards_the_adapted_weights():
    learner = meta_learner("reptile", inner_steps=3)
    episode = episode_of(dtype=torch.float64)
    start, weights = learner.start, learner.start.weights(2)
    # By hand: support, query, support, each a step of plain descent.
    pairs = [(episode.support.images[0][None], episode.support.labels[0][None]), (episode.query.image, episode.query.label)]  # fmt: skip  # noqa: E501
    for image, label in (pairs[0], pairs[1], pairs[0]):
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        loss = dice_cross_entropy(forward(start.backbone, weights, image), label)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        weights = {name: w - 0.3 * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    loss = learner.meta_loss(episode)
    expected = {f"backbone.{n}": (v - weights[n]).detach() for n, v in start.backbone.named_parameters()}
    torch.testing.assert_close(gradient_of(loss, start), expected)
    query_loss = dice_cross_entropy(forward(start.backbone, weights, episode.query.image), episode.query.label)
    torch.testing.assert_close(loss.detach(), query_loss.detach())


def test_a_step_of_rate_one_makes_reptiles_start_the_adapted_one():
    learner = meta_learner("reptile")
    episode = episode_of(dtype=torch.float64)
    final = learner.inner_path(learner.start, _both(episode), second_order=False)[-1]
    optimizer = torch.optim.SGD(learner.start.parameters(), lr=1.0)
    learner.meta_loss(episode).backward()
    optimizer.step()
    for name, value in learner.start.backbone.named_parameters():
        torch.testing.assert_close(value, final[name])


def _both(episode):
    support = episode.support
    return replace(
        support,
        images=(*support.images, *episode.query.image),
        labels=(*support.labels, *episode.query.label),
    )


def test_anil_moves_the_head_alone():
    learner = meta_learner("anil", inner_steps=3)
    episode = episode_of(dtype=torch.float64)
    before = learner.start.weights(2)
    after = learner.inner_path(learner.start, episode.support, second_order=True)[-1]
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"head.weight", "head.bias"}
    gradient = gradient_of(learner.meta_loss(episode), learner.start)  # yet meta-training moves all of it
    assert all(float(gradient[f"backbone.{name}"].abs().max()) > 0 for name in before if "bias" not in name)


def test_anil_adapts_the_head_alone():
    """With the rule alone (steps=0) the features are the start's."""
    learner = meta_learner("anil", dtype=torch.float32, steps=0)
    network = learner.adapt(support_of([FLAT])).network
    start = learner.start.weights(2)
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, start[name])}
    assert changed == {"head.weight", "head.bias"}


# Learned rates


@pytest.mark.parametrize("variant", ["meta-sgd", "maml++"])
@pytest.mark.parametrize("second_order", [True, False])
def test_rates_are_learned(variant, second_order, monkeypatch):
    monkeypatch.setitem(VARIANTS, variant, replace(VARIANTS[variant], second_order=second_order))
    learner = meta_learner(variant, annealing_episodes=0)
    gradient = gradient_of(learner.meta_loss(episode_of(dtype=torch.float64)), learner.start)
    rates = {name: value for name, value in gradient.items() if name.startswith("rates.")}
    assert len(rates) == len(list(learner.start.backbone.parameters()))
    if variant == "maml++":
        assert all(bool((value != 0).all()) for name, value in rates.items() if name.startswith("rates.head"))
        assert {value.shape for value in rates.values()} == {(2,)}


@pytest.mark.parametrize(("variant", "kind"), [("meta-sgd", "element"), ("maml++", "step")])
def test_a_variant_that_learns_rates_does_not_train_a_start_without(variant, kind):
    learner = Maml(variant=variant, start=MamlStart(tiny_unet()))
    with pytest.raises(InputError, match=f"learns rates of the kind {kind}, its start has fixed"):
        learner.meta_loss(episode_of())


def test_a_rate_of_nothing_is_a_step_not_taken():
    """MAML++ with its second step's rates at 0 is MAML of one step; with the first's at 0 it is not that of two."""
    episode = episode_of(dtype=torch.float64)
    learner = meta_learner("maml++", annealing_episodes=0)
    one = replace(meta_learner("maml", inner_steps=1), start=learner.start)
    with torch.no_grad():
        for rate in learner.start.rates.values():
            rate[1] = 0
    torch.testing.assert_close(learner.meta_loss(episode), one.meta_loss(episode))
    with torch.no_grad():
        for rate in learner.start.rates.values():
            rate[1] = 1
    assert float(learner.meta_loss(episode).detach()) != pytest.approx(float(one.meta_loss(episode).detach()), abs=1e-4)


def test_adaptation_takes_the_learned_rates():
    support = support_of([FLAT])
    learner = meta_learner("maml++", dtype=torch.float32, steps=0)
    with torch.no_grad():
        for name, rate in learner.start.rates.items():
            rate.fill_(0.0 if name.startswith("encoder") else 1.0)
    network = learner.adapt(support).network
    initial = learner.start.weights(2)
    moved = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(value, initial[name])}
    assert moved == {"stem", "lift", "decoder", "head"}


@pytest.mark.parametrize(
    ("progress", "shares"), [(0, [0.25] * 4), (0.5, [0.125, 0.125, 0.125, 0.625]), (1, [0, 0, 0, 1])]
)
def test_shares_of_the_steps_losses(progress, shares):
    assert step_shares(4, progress) == shares


def test_mamlpp_anneals():
    """At first the mean of all steps' query losses at first order, in the end MAML's loss and gradient."""
    episode = episode_of(dtype=torch.float64)
    learner = meta_learner("maml++", annealing_episodes=2)
    start = learner.start
    path = learner.inner_path(start, episode.support, second_order=False)
    query = [dice_cross_entropy(forward(start.backbone, w, episode.query.image), episode.query.label) for w in path]
    mean = torch.stack(query).mean()
    first = learner.meta_loss(episode)
    torch.testing.assert_close(first, mean)
    torch.testing.assert_close(gradient_of(first, start), gradient_of(mean, start))
    assert int(start.episodes) == 1
    torch.testing.assert_close(learner.meta_loss(episode), query[0] / 4 + query[1] * 3 / 4)
    last, plain = learner.meta_loss(episode), replace(learner, annealing_episodes=0).meta_loss(episode)
    torch.testing.assert_close(gradient_of(last, start), gradient_of(plain, start))


def test_episodes_are_counted_in_training_only():
    learner = meta_learner("maml++")
    learner.start.eval()
    learner.meta_loss(episode_of(dtype=torch.float64))
    assert int(learner.start.episodes) == 0


# Learning to learn


@pytest.mark.parametrize("variant", VARIANTS)
def test_meta_training_makes_adaptation_better(variant):
    """The query's loss after the inner loop falls on blobs that were never seen."""
    learner = Maml(variant=variant, inner_steps=2, annealing_episodes=10)
    learner = replace(learner, start=learner.build_start(tiny_unet(width=4)))
    trial = Maml(variant="maml", inner_steps=2)

    def unseen() -> float:
        start = copy.deepcopy(learner.start).eval()
        measure = replace(learner if variant == "anil" else trial, start=start)
        losses = [float(measure.meta_loss(episode_of((16, 16), seed=5000 + i)).detach()) for i in range(4)]
        return sum(losses) / len(losses)

    before = unseen()
    rate = 0.3 if variant == "reptile" else 0.01
    optimizer = (torch.optim.SGD if variant == "reptile" else torch.optim.Adam)(learner.start.parameters(), lr=rate)
    for i in range(20):
        optimizer.zero_grad()
        learner.meta_loss(episode_of((16, 16), seed=10 * i)).backward()
        optimizer.step()
    assert unseen() < 0.8 * before


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_meta_loss_takes_any_number_of_classes_and_shots(variant, labels):
    learner = meta_learner(variant, dtype=torch.float32)
    loss = learner.meta_loss(episode_of((18, 10), labels=labels, shots=3, queries=2))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert loss.requires_grad


def test_no_inner_steps_is_plain_training():
    learner = meta_learner("maml", inner_steps=0)
    episode = episode_of(dtype=torch.float64)
    expected = dice_cross_entropy(learner.start.backbone(episode.query.image), episode.query.label)
    torch.testing.assert_close(learner.meta_loss(episode), expected)


def test_meta_loss_is_the_same_every_time():
    learner = meta_learner("maml", dtype=torch.float32)
    episode = episode_of(labels=2, shots=2)
    first, again = (gradient_of(learner.meta_loss(episode), learner.start) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


# Adaptation


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_steps_count_the_inner_ones(steps):
    told = []
    progress = Progress(lambda event: told.append((event.stage, event.done, event.total)))
    record = Maml(steps=steps, inner_steps=3, width=4, progress=progress).adapt(support_of([FLAT])).record
    tuned = max(0, steps - 3)
    assert told == [
        *(("inner steps", i + 1, 3) for i in range(3)),
        *(("training the network", i + 1, tuned) for i in range(tuned)),
    ]
    assert record["steps"] == 3 + tuned
    assert record["inner_steps"] == 3
    assert record["stopped_by"] == "steps"
    assert record["trained"]


def test_the_rule_alone_is_descent_on_the_supports_patches():
    learner = Maml(steps=0, inner_steps=4, width=4)
    support = support_of([(24, 24)])
    initial = replace(learner, inner_steps=0).adapt(support)
    adapted = learner.adapt(support)
    image, label = support.images[0][None], support.labels[0][None]
    losses = [float(dice_cross_entropy(segmenter(image), label)) for segmenter in (initial, adapted)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("learner", ["maml", "finetune"])
def test_as_good_as_fine_tuning_without_a_start(learner):
    support = support_of([(30, 24)] * 3, labels=2, patch=(30, 24))
    segmenter = (Maml if learner == "maml" else Finetune)(steps=60, width=8).adapt(support)
    image, label = example((30, 24), labels=2, seed=50)
    assert min(dice(segmenter(image[None]), label, index) for index in (1, 2)) > 0.7


def test_a_budget_ends_adaptation(monkeypatch):
    options = {"width": 4, "budget_seconds": 4.0, "progress": slow_steps(monkeypatch)}
    record = Maml(steps=100_000, **options).adapt(support_of([FLAT])).record
    assert record["stopped_by"] == "budget"
    assert 36 <= record["steps"] <= 40
    record = Maml(steps=100, **(options | {"budget_seconds": 0.0})).adapt(support_of([FLAT])).record
    assert record["stopped_by"] == "budget"
    assert record["steps"] == 1


def test_a_rule_that_diverges_is_left_in_time():
    segmenter = Maml(steps=10, width=4, inner_rate=1e30).adapt(support_of([FLAT]))
    assert segmenter.record["inner_diverged"]
    assert torch.isfinite(segmenter(example(FLAT)[0][None])).all()


def test_a_bare_network_is_a_start():
    network = tiny_unet(width=8)
    trained = Finetune(steps=40, start=network).adapt(support_of([(24, 24)], patch=(24, 24))).network
    segmenter = Maml(steps=0, inner_steps=1, start=trained).adapt(support_of([(24, 24)], seed=30))
    assert isinstance(segmenter, NetworkSegmenter)
    image, label = example((24, 24), seed=50)
    assert dice(segmenter(image[None]), label) > 0.5


def test_refusals():
    with pytest.raises(InputError, match="variant mamal: unknown; choose maml or fomaml"):
        Maml(variant="mamal")
    with pytest.raises(InputError, match=r"learner maml: has no start from build_start"):
        Maml().meta_loss(episode_of())
    with pytest.raises(InputError, match="has no start from build_start"):
        Maml(start=torch.nn.Linear(1, 1)).adapt(support_of([FLAT]))
    blind = episode_of()
    with pytest.raises(InputError, match="has no label"):
        Maml(start=MamlStart(tiny_unet())).meta_loss(replace(blind, query=Query(blind.query.image)))
    with pytest.raises(InputError, match="are for 2D images"):
        Maml(start=MamlStart(tiny_unet())).adapt(support_of([SOLID]))
