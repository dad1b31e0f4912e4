"""Starts: pretraining learns, adaptation begins from it, and the disk gives back what it was given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from blobs import dice, example, support_of

from medfewshot.backbones import build_backbone, choose_strides, fold_blocks
from medfewshot.errors import InputError
from medfewshot.learners import (
    LEARNERS,
    Finetune,
    Start,
    build_start,
    load_start,
    read_seen,
    save_start,
)
from medfewshot.learners.linear_head import LinearHead, class_frequencies
from medfewshot.learners.patches import fit_strides
from medfewshot.learners.weights import PACKAGE_WEIGHTS, check_adaptation, find_weights
from medfewshot.types import Episode, Query

SHAPE = (16, 16, 8)


def fresh(dims: int = 3, width: int = 4):
    torch.manual_seed(3)
    return build_start("finetune", build_backbone(dims=dims, width=width, levels=3))


def episode(seed: int, shape=SHAPE) -> Episode:
    image, label = example(shape, seed=seed + 100)
    return Episode(support_of([shape] * 2, patch=shape, seed=seed), Query(image[None], label[None]))


def pretrained(steps: int = 25):
    start = fresh()
    learner = Finetune(start=start)
    optimizer = torch.optim.AdamW(start.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        loss = learner.meta_loss(episode(3 * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return start, losses


def test_pretraining_lowers_the_loss_and_a_pretrained_start_is_ahead():
    start, losses = pretrained()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(p.grad is not None for p in start.parameters())
    support = support_of([SHAPE] * 2, patch=SHAPE, seed=900)
    image, label = example(SHAPE, seed=950)
    ahead = Finetune(steps=2, width=4, start=start).adapt(support)
    behind = Finetune(steps=2, width=4).adapt(support)
    assert dice(ahead(image[None]), label) > max(0.6, dice(behind(image[None]), label))


def test_adaptation_leaves_the_start_alone():
    start = fresh()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    Finetune(steps=2, start=start).adapt(support_of([SHAPE], patch=SHAPE))
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert start.backbone.config["classes"] == 0


TRAINABLE = [spec.name for spec in LEARNERS.values() if spec.build_start is not None]


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_start_is_trained_kept_and_fitted_to_another_plan(name, tmp_path):
    torch.manual_seed(3)
    start = build_start(name, LEARNERS[name].build_backbone(dims=3, width=4, levels=3))
    task = episode(0)
    fit_strides(start.backbone, task.support)
    LEARNERS[name].learner(start=start).meta_loss(task).backward()
    untrained = [n for n, p in start.named_parameters() if p.requires_grad and p.grad is None]
    assert not untrained
    save_start(Start(name, start), tmp_path)
    again = load_start(tmp_path).module
    trained_with = again.backbone.config["strides"]

    thick = support_of([(72, 24, 8)], labels=2, patch=(64, 24, 8))
    thick = replace(thick, spacing_mm=(1.0, 1.0, 5.0))
    segmenter = LEARNERS[name].learner(start=again, steps=1 if name == "finetune" else 0).adapt(thick)
    # One reads the whole field of view, 72 voxels on 64; its stem always folds. The others read windows of 64.
    whole = name == "in_context"
    spacing = (72 / 64, 1.0, 5.0) if whole else (1.0, 1.0, 5.0)
    wanted = choose_strides((64, 24, 8), spacing, 3, (2, 2, 2) if whole else None)
    assert segmenter.network.config["strides"] == wanted != trained_with
    assert again.backbone.config["strides"] == trained_with
    logits = segmenter(thick.images[0][None])
    assert logits.shape == (1, 3, 72, 24, 8)
    assert logits.isfinite().all()


def test_weights_of_another_kind_are_refused():
    with pytest.raises(InputError, match="2D images of 1 channel"):
        Finetune(steps=1, start=fresh(dims=2)).adapt(support_of([SHAPE], patch=SHAPE))
    two = build_start("finetune", build_backbone(dims=3, width=4, levels=3, in_channels=2))
    with pytest.raises(InputError, match="3D with 3"):
        Finetune(steps=1, start=two).adapt(support_of([SHAPE], channels=3, patch=SHAPE))
    with pytest.raises(InputError, match="another kind of learner"):
        build_start("finetune", LEARNERS["in_context"].build_backbone(dims=2))
    with pytest.raises(InputError, match="another kind of learner"):
        build_start("in_context", build_backbone(dims=2))


def test_the_closed_form_head_is_weighted_ridge_regression():
    """Against the normal equations written out voxel by voxel."""
    net = build_backbone(dims=2, width=4, levels=2)
    net.set_strides([[2, 1], [2, 2]])
    labels = torch.randint(0, 3, (2, 8, 6), generator=torch.Generator().manual_seed(0))
    phi = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    head = LinearHead(net, 3, class_frequencies([labels], 3))
    head.add(phi[:1], labels[:1])
    head.add(phi[1:], labels[1:])
    weight, bias = head.solve(0.1)
    assert weight.shape == (6, 4)
    rows = torch.cat([phi.movedim(1, -1).flatten(0, 2), torch.ones(48, 1)], 1)
    blocks = fold_blocks(labels[:, None].float(), (2, 1)).movedim(1, -1).flatten(0, 2).long()  # (48, 2)
    share = class_frequencies([labels], 3) / labels.numel()
    importance = share.rsqrt()[blocks].mean(1)
    importance = importance / importance.sum()
    energy = (importance[:, None] * rows[:, :4].square()).sum(0).mean()
    ridge = torch.diag(torch.tensor([0.1 * energy + 1e-6] * 4 + [2e-6]))
    for klass in range(3):
        for voxel in range(2):
            target = (blocks[:, voxel] == klass).float() - 1 / 3
            gram = rows.T @ (importance[:, None] * rows) + ridge
            expected = torch.linalg.solve(gram, rows.T @ (importance * target))
            torch.testing.assert_close(weight[2 * klass + voxel], expected[:4], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(bias[2 * klass + voxel], expected[4], atol=1e-4, rtol=1e-3)


def test_a_start_comes_back_from_disk(tmp_path):
    start = fresh()
    record = {"steps": 3, "seen": {"blobs": {"subjects": ["s1"]}}}
    save_start(Start("finetune", start, {}, record), tmp_path)
    state = torch.get_rng_state()
    again = load_start(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.learner == "finetune"
    assert again.record == record
    assert read_seen(tmp_path) == record["seen"]
    for name, value in start.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    assert again.backbone.config == start.backbone.config


def of_anil():
    torch.manual_seed(3)
    return Start("maml", build_start("maml", build_backbone(dims=2, width=4, levels=2)), adaptation={"variant": "anil"})


def test_how_to_adapt_comes_back_from_disk_and_older_files_say_nothing(tmp_path):
    save_start(of_anil(), tmp_path)
    assert load_start(tmp_path).adaptation == {"variant": "anil"}
    path = tmp_path / "start.json"
    older = json.loads(path.read_text())
    del older["adaptation"]
    path.write_text(json.dumps(older))
    assert load_start(tmp_path).adaptation == {}


@pytest.mark.parametrize(
    ("adaptation", "told"),
    [
        ({"inner_stpes": 2}, "adaptation 'inner_stpes': is unknown for learner maml; known are variant, inner_steps"),
        ({"a\nb": 2}, "unknown"),
        ({"start": 1}, "unknown"),
        ({"variant": "mamal"}, "adaptation variant: 'mamal' is not a value"),
        ({"inner_steps": -1}, "not a value"),
        ({"inner_steps": True}, "not a value"),
        ({"batch_size": 0}, "not a value"),
        ({"variant": ["anil"]}, "damaged"),
        ("anil", "damaged"),
    ],
)
def test_unknown_ways_to_adapt_are_refused_in_one_line(tmp_path, adaptation, told):
    save_start(of_anil(), tmp_path)
    path = tmp_path / "start.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"adaptation": adaptation}))
    with pytest.raises(InputError) as error:
        load_start(tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_adaptation_shares_with_training_is_a_setting_of_the_learner():
    for name, spec in LEARNERS.items():
        check_adaptation(name, {setting: vars(spec.learner())[setting] for setting in spec.shared_settings}, "")


@pytest.mark.parametrize("name", TRAINABLE)
def test_start_options_are_the_defaults_of_a_start(name):
    spec = LEARNERS[name]
    backbone = spec.build_backbone(dims=2, width=4, levels=2)
    starts = []
    for options in ({}, spec.start_options):
        torch.manual_seed(0)
        starts.append(spec.build_start(backbone, **options).state_dict())
    assert all(torch.equal(value, starts[1][key]) for key, value in starts[0].items())


@pytest.mark.parametrize("damage", ["missing", "json", "weights", "version", "learner"])
def test_damaged_weights_are_refused_in_one_line(tmp_path, damage):
    folder = tmp_path / "w"
    save_start(Start("finetune", fresh()), folder)
    path = folder / "start.json"
    if damage == "missing":
        path.unlink()
    elif damage == "json":
        path.write_text("{")
    elif damage == "weights":
        (folder / "start.safetensors").write_bytes(b"12")
    else:
        content = json.loads(path.read_text())
        content[{"version": "format_version", "learner": "learner"}[damage]] = 77 if damage == "version" else "oracle"
        path.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        load_start(folder)
    assert "\n" not in str(error.value)


def test_a_learner_without_meta_parameters_is_refused():
    with pytest.raises(InputError, match="choose finetune"):
        build_start("nonsense", build_backbone(dims=2))
    with pytest.raises(InputError, match="its start has no option depth"):
        build_start("finetune", build_backbone(dims=2), {"depth": 3})


def test_half_precision_halves_the_file_and_little_else(tmp_path):
    start = fresh()
    for name, half in (("whole", False), ("half", True)):
        save_start(Start("finetune", start), tmp_path / name, half=half)
    sizes = [(tmp_path / name / "start.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.75 * sizes[0]
    again = load_start(tmp_path / "half").module.state_dict()
    for name, value in start.state_dict().items():
        assert again[name].dtype == value.dtype
        torch.testing.assert_close(again[name], value, rtol=2e-3, atol=1e-6)


def test_no_steps_leave_the_closed_form_head():
    start, _ = pretrained()
    support = support_of([SHAPE] * 2, patch=SHAPE, seed=900)
    image, label = example(SHAPE, seed=950)
    segmenter = Finetune(steps=0, start=start).adapt(support)
    assert segmenter.record["steps"] == 0
    assert segmenter.record["final_loss"] is None
    assert dice(segmenter(image[None]), label) > 0.6
    trunk = {k: v for k, v in segmenter.network.state_dict().items() if not k.startswith("head.")}
    assert all(torch.equal(value, start.backbone.state_dict()[key]) for key, value in trunk.items())
    with pytest.raises(InputError, match="0 steps"):
        Finetune(steps=0).adapt(support)


def test_weights_of_the_package_come_before_a_folder_of_that_name(tmp_path, monkeypatch):
    save_start(Start("finetune", fresh()), tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert find_weights("default") == PACKAGE_WEIGHTS / "default"
    assert find_weights("./default").resolve() != PACKAGE_WEIGHTS / "default"
