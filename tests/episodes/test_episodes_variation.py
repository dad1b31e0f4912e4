"""Variation of training episodes: where patches lie, their spacing, contrast and orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfewshot.episodes import EpisodeSampler, Example, LabelledTask
from medfewshot.episodes.patches import draw_centre, index_examples, random_curve, repaint


def slices() -> LabelledTask:
    """Slices of a large structure, 1, and of a small one, 2: both brighter than the ground."""
    examples = []
    for subject in range(3):
        label = torch.zeros((48, 48), dtype=torch.uint8)
        label[2:32, 2:32] = 1
        label[37:43, 37:43] = 2
        noise = torch.randn((48, 48), generator=torch.Generator().manual_seed(subject))
        examples.append(Example(f"s{subject}", ((label > 0) + 0.05 * noise)[None], label, (1.0, 1.0)))
    return LabelledTask("flat", tuple(examples), (1, 2), names={1: "large", 2: "small"})


def blocks() -> LabelledTask:
    """Volumes with a bright block."""
    examples = []
    for subject in range(4):
        label = torch.zeros((20, 22, 16), dtype=torch.uint8)
        label[5 + subject : 13 + subject, 6:14, 4:12] = 1
        noise = torch.randn(label.shape, generator=torch.Generator().manual_seed(subject))
        examples.append(Example(f"s{subject}", (2.0 * label + 0.3 * noise)[None], label, (1.2, 1.2, 1.2)))
    return LabelledTask("blocks", tuple(examples))


SLICES, BLOCKS = slices(), blocks()


def sampler(task: LabelledTask, *labels: int, **changes) -> EpisodeSampler:
    patches = (12,) * task.examples[0].label.ndim
    task = LabelledTask(task.name, task.examples, labels or task.labels, names=task.names)
    return EpisodeSampler([task], **{"patches": patches, "augment": True, **changes})


def test_labels_lie_where_the_image_shows_them():
    """However a patch is warped and zoomed, the block is brighter than the ground."""
    drawn = sampler(BLOCKS, shots=(1, 2), zoom=(0.7, 1.5))
    for seed in range(5):
        support = drawn.sample(seed).support
        image, label = torch.stack(support.images)[:, 0], torch.stack(support.labels)
        assert float(image[label == 1].median()) > float(image[label == 0].median()) + 0.5


@pytest.mark.parametrize(("progress", "exponent"), [(0.0, 1.0), (0.5, 0.35), (1.0, -0.3)])
def test_the_curriculum_goes_from_large_classes_to_small_ones(progress, exponent):
    """900 and 36 voxels: the small one has 0.04 ** (exponent / 2) of the large one's weight."""
    drawn = sampler(SLICES, large_first=1.0, small_last=-0.3, augment=False)
    found = [drawn.sample(seed, progress=progress).task == "flat[large]" for seed in range(150)]
    assert sum(found) / len(found) == pytest.approx(1 / (1 + 0.04 ** (exponent / 2)), abs=0.1)


@pytest.mark.parametrize(("absent", "shown"), [(0.0, 1.0), (1.0, 0.11)])
def test_a_query_patch_may_lie_anywhere(absent, shown):
    """Then a patch of 12 meets the structure of 6 in a third of the places along each axis."""
    drawn = sampler(SLICES, 2, absent=absent)
    episodes = [drawn.sample(seed) for seed in range(60)]
    assert all(bool(episode.support.labels[0].any()) for episode in episodes)
    assert sum(bool(e.query.label.any()) for e in episodes) / 60 == pytest.approx(shown, abs=0.1 * absent)


@pytest.mark.parametrize(
    ("curve", "free", "kinds"),
    [(0.0, 0.0, {"none"}), (1.0, 0.0, {"up", "down"}), (1.0, 1.0, {"free"}), (0.5, 0.5, {"none", "up", "free"})],
)
def test_an_episode_has_one_curve_as_often_as_set(curve, free, kinds):
    """The same episode without a curve shows which curve it has: of one kind in support and query."""
    ramp = torch.linspace(0, 1, 144).view(1, 12, 12)
    label = torch.ones((12, 12), dtype=torch.uint8)
    task = LabelledTask("ramp", tuple(Example(f"s{i}", ramp, label, (1.0, 1.0)) for i in range(2)))
    plain, curved = (sampler(task, curve=c, free_curve=free, augment=False) for c in (0.0, curve))
    found = []
    for seed in range(24):
        before, after = (
            torch.cat([e.support.images[0].flatten(), e.query.image.flatten()])
            for e in (drawn.sample(seed) for drawn in (plain, curved))
        )
        steps = after[before.argsort()].diff()
        slopes = {"none": torch.equal(before, after), "up": bool((steps >= -1e-5).all())}
        slopes |= {"down": bool((steps <= 1e-5).all()), "free": True}
        found.append(next(name for name, fits in slopes.items() if fits))
    assert kinds <= set(found) <= (kinds | {"down"} if curve else kinds)
    if kinds == {"up", "down"}:
        assert found.count("down") / 24 == pytest.approx(0.25, abs=0.2)


def test_curves_are_monotone_and_shared():
    images = torch.linspace(-2, 3, 400).view(2, 1, 20, 10)
    signs = set()
    for seed in range(12):
        curved = random_curve(images, np.random.default_rng(seed)).flatten()
        steps = curved.diff()
        signs.add(bool((steps <= 1e-5).all()))
        assert bool((steps >= -1e-5).all()) or bool((steps <= 1e-5).all())
        assert float(curved.mean()) == pytest.approx(0, abs=1e-4)
        assert float(curved.std()) == pytest.approx(1, abs=1e-3)
    assert signs == {True, False}


def test_a_free_curve_is_shared_and_turns_back():
    images = torch.linspace(-2, 3, 400).view(2, 1, 20, 10)
    curved = random_curve(images, np.random.default_rng(0), monotone=False).flatten()
    assert {-1.0, 1.0} <= set(curved.diff().sign().tolist())
    twice = random_curve(images[[0, 0]], np.random.default_rng(0), monotone=False)
    assert torch.equal(twice[0], twice[1])


def test_few_slices_are_thick_ones():
    thick = sampler(BLOCKS, patches=(12, 12, 4), thick=(0.9, 1.1))
    for seed in range(6):
        x, _, z = thick.sample(seed).support.spacing_mm
        assert 2.6 < z / x < 3.4  # a cube: 12 / 4, within a tenth
    assert sampler(BLOCKS).sample(0).support.spacing_mm == pytest.approx((1.2, 1.2, 1.2))


def test_mirrored_episodes_and_repainted_structures():
    plain, mirrored, painted = (sampler(BLOCKS, **change) for change in ({}, {"mirror": 1.0}, {"repaint": 1.0}))
    a, b, c = (drawn.sample(4) for drawn in (plain, mirrored, painted))
    assert torch.equal(b.query.label, a.query.label.flip((1, 2, 3)))
    assert torch.equal(b.support.images[0], a.support.images[0].flip((1, 2, 3)))
    assert c.query.label.shape == a.query.label.shape
    assert not torch.equal(c.query.image, a.query.image)


def test_paint_changes_structures_alone():
    image, label = torch.zeros((1, 9, 9)), torch.zeros((9, 9), dtype=torch.long)
    label[3:8, 3:8] = 2
    table = torch.zeros(256)
    table[2] = 0.5
    painted = repaint(image, label, table)[0]
    assert float(painted[5, 5]) == 0.5
    assert float(painted[0, 0]) == 0
    assert 0 < float(painted[3, 5]) < 0.5  # a soft border


def test_patches_stay_inside_the_volume():
    indexed = index_examples(BLOCKS.examples[:1], (1,))[0]
    whole = torch.tensor(indexed.example.label.shape).float()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centre = draw_centre(indexed, (1,), [0, None][seed % 2], torch.full((3,), 8.0), rng)
        assert bool((centre >= 3.5).all())
        assert bool((centre <= whole - 4.5).all())
    assert torch.equal(draw_centre(indexed, (1,), 0, 4 * whole, rng), (whole - 1) / 2)
