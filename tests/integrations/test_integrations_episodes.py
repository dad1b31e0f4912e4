"""Episodes through MONAI's loaders and caches, and MONAI's datasets as the source of episodes."""

from __future__ import annotations

import pytest
import torch
import toys
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, RandFlipd
from monai_toys import meta_scan, support

import medfewshot
from medfewshot.episodes import EpisodeSampler, LabelledTask
from medfewshot.errors import InputError
from medfewshot.integrations import EpisodeDataset, ToPland, examples_of, to_episode
from medfewshot.learners import Finetune

PATCH = (8, 8, 8)


@pytest.fixture(scope="module")
def examples():
    with pytest.MonkeyPatch.context() as patch:
        toys.install(patch)
        plan = medfewshot.adapt(support(), learner="toy", device="cpu").plan
    items = [dict(zip(("image", "label"), meta_scan(seed), strict=True), subject=f"s{seed}") for seed in range(4)]
    grid = ToPland(["image", "label"], plan, label=[False, True])
    return examples_of(CacheDataset(items, Compose([grid]), num_workers=1, progress=False))


@pytest.fixture
def sampler(examples):
    return EpisodeSampler([LabelledTask("blocks", tuple(examples))], ways=2, shots=2, queries=2, patches=PATCH)


def test_examples_of_a_dataset(examples):
    assert [example.subject_id for example in examples] == ["s0", "s1", "s2", "s3"]
    for example in examples:
        assert example.image.shape[1:] == example.label.shape
        assert set(example.label.unique().tolist()) == {0, 1, 2}
        assert example.spacing_mm == pytest.approx((1.25, 1.5, 2.0), rel=0.3)
    with pytest.raises(InputError, match="item 0: has no subject"):
        examples_of(Dataset([{"image": torch.zeros(1, 2, 2), "label": torch.zeros(1, 2, 2)}]))


def test_items(sampler):
    episodes = EpisodeDataset(sampler, 5, seed=3)
    assert len(episodes) == 5
    item = episodes[2]
    assert item["support_image"].shape == (2, 1, *PATCH)
    assert item["support_label"].shape == (2, 1, *PATCH)
    assert item["image"].shape == (2, 1, *PATCH)
    assert item["classes"] == 3
    assert torch.equal(item["image"], episodes[2]["image"])
    assert torch.equal(episodes[-3]["image"], item["image"])
    assert not torch.equal(item["image"], episodes[1]["image"])
    episodes.set_epoch(1)
    assert not torch.equal(item["image"], episodes[2]["image"])
    with pytest.raises(IndexError):
        episodes[5]
    with pytest.raises(InputError, match="length 0"):
        EpisodeDataset(sampler, 0)


def test_a_loader_gives_the_same_episodes_however_many_workers(sampler):
    episodes = EpisodeDataset(sampler, 4)
    alone = list(DataLoader(episodes, batch_size=2, num_workers=0))
    helped = list(DataLoader(episodes, batch_size=2, num_workers=1))
    assert alone[1]["support_image"].shape == (2, 2, 1, *PATCH)
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert one["task"] == other["task"]


def test_a_cache_of_episodes_with_a_random_transform(sampler):
    flip = RandFlipd(["image", "label"], prob=1.0, spatial_axis=1)
    cached = CacheDataset(EpisodeDataset(sampler, 3), Compose([flip]), num_workers=1, progress=False)
    plain = EpisodeDataset(sampler, 3)[1]
    assert torch.equal(cached[1]["image"].as_tensor(), plain["image"].flip(2))


def test_an_episode_comes_back(sampler):
    batch = next(iter(DataLoader(EpisodeDataset(sampler, 2), batch_size=2)))
    episode = to_episode(batch, 1)
    single = to_episode(EpisodeDataset(sampler, 2)[1])
    assert episode.support.classes == 3
    assert episode.support.shots == 2
    assert episode.task == single.task
    for one, other in zip(episode.support.labels, single.support.labels, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == torch.int64
    logits = Finetune(steps=1, width=4).adapt(episode.support)(episode.query.image)
    assert logits.shape == (2, 3, *PATCH)
    assert episode.query.label.shape == (2, *PATCH)


def test_supports_of_several_shapes_are_refused(examples):
    from dataclasses import replace

    cut = [replace(e, image=e.image[..., : 7 + i], label=e.label[..., : 7 + i]) for i, e in enumerate(examples)]
    sampler = EpisodeSampler([LabelledTask("blocks", tuple(cut))], shots=2)
    with pytest.raises(InputError, match="give the sampler a patch size"):
        EpisodeDataset(sampler, 1)[0]
