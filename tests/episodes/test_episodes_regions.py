"""Regions of scans without labels, and the tasks that they form."""

from __future__ import annotations

import pytest
import torch

from medfewshot.episodes import EpisodeSampler, Example, LabelledTask, find_regions, region_tasks
from medfewshot.errors import InputError
from medfewshot.structures import dice

SPACING = (4.0, 4.0, 4.0)


def body() -> tuple[torch.Tensor, torch.Tensor]:
    """A body of 40 x 40 x 20 voxels in air, with two organs of 10 x 10 x 10 voxels (64 ml)."""
    organs = torch.zeros((48, 48, 24), dtype=torch.uint8)
    organs[8:18, 8:18, 6:16] = 1
    organs[28:38, 26:36, 6:16] = 2
    image = torch.zeros((48, 48, 24))
    image[4:44, 4:44, 2:22] = 1
    image += 1.0 * (organs == 1) + 2.0 * (organs == 2)
    return image[None] + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)), organs


def test_some_region_is_each_organ_and_none_is_air():
    image, organs = body()
    maps = find_regions(image, SPACING)
    assert maps.dtype == torch.uint8
    for organ in (1, 2):
        best = max(dice(one == value, organs == organ) for one in maps for value in one.unique()[1:])
        assert best > 0.85
    outside = torch.ones_like(organs, dtype=torch.bool)
    outside[3:45, 3:45, 1:23] = False
    assert float((maps[:, outside] > 0).float().mean()) < 0.02


def test_regions_keep_to_the_volumes_and_repeat():
    image, _ = body()
    maps = find_regions(image, SPACING, (2.0, 70.0))
    assert torch.equal(maps, find_regions(image, SPACING, (2.0, 70.0)))
    for one in maps:
        sizes = one.flatten().long().bincount()[1:]
        assert float(sizes.min()) * 0.064 >= 2.0
        assert float(sizes.max()) * 0.064 <= 70.0


def test_thin_scans_are_refused():
    with pytest.raises(InputError, match="into regions"):
        find_regions(torch.zeros((1, 30, 30, 4)), SPACING)


def test_an_episode_of_regions_shows_one_scan_twice():
    image, organs = body()
    task = LabelledTask("scans", (Example("a", image, organs, SPACING), Example("b", image, organs.flip(0), SPACING)))
    tasks = region_tasks(task, views=3)
    assert [one.name for one in tasks] == ["scans a map 1", "scans b map 2"]
    assert [one.weight for one in tasks] == [0.5, 0.5]
    sampler = EpisodeSampler(tasks, patches=(24, 24, 16), augment=True, shots=2, ways=(1, 2), query_shows_class=False)
    episode = sampler.sample(0)
    subjects = {*episode.support_subjects, *episode.query_subjects}
    assert len(subjects) == 3
    assert len({subject.split(" ")[0] for subject in subjects}) == 1
    assert not torch.equal(episode.support.images[0], episode.query.image[0])


def test_an_episode_of_carried_regions_has_both_scans_and_only_what_both_show():
    image, organs = body()
    own, carried = Example("a", image, organs, SPACING), Example("b", image, organs * (organs == 2), SPACING)
    tasks = region_tasks(LabelledTask("scans", (own, carried)), views=3, neighbours=1)
    assert [(one.name, one.labels) for one in tasks] == [("scans a map 1", (1, 2)), ("scans a in b map 1", (2,))]
    assert [one.subject_id for one in tasks[1].examples] == ["a view 1", "a view 2", "b view 1", "b view 2"]
    assert sum(one.weight for one in tasks) == 1


def test_the_other_classes_of_an_episode_are_near_the_first():
    """Four blocks in a row, 24 mm apart: with 30 mm a class meets only its neighbours."""
    label = torch.zeros((40, 8, 8), dtype=torch.uint8)
    for value in range(4):
        label[8 * value : 8 * value + 4, 2:6, 2:6] = value + 1
    examples = tuple(Example(f"s{n}", torch.zeros((1, 40, 8, 8)), label, (3.0,) * 3) for n in range(2))
    sampler = EpisodeSampler([LabelledTask("row", examples)], ways=2, near_mm=30)
    drawn = {sampler.sample(seed).task for seed in range(40)}
    pairs = {tuple(sorted(map(int, task[4:-1].split(",")))) for task in drawn}
    assert pairs == {(1, 2), (2, 3), (3, 4)}
