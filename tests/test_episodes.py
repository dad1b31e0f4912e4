"""Nothing leaks from query to support or from novel to base, and a seed gives the same episodes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfewshot.episodes import (
    FIXED_SPLITS,
    EpisodeSampler,
    Example,
    Split,
    draw_support,
    fixed_split,
    split_task,
)
from medfewshot.episodes.crops import crop, empty_start, start_around
from medfewshot.errors import InputError
from medfewshot.types import Case, Task


def example(subject: str, values: list[int], shape: tuple[int, ...] = (12, 6, 6)) -> Example:
    """Label value v fills slab v of the first axis; the image repeats the label, so both can be compared."""
    label = torch.zeros(shape, dtype=torch.int64)
    for value in values:
        label[(slice(2 * value, 2 * value + 2), *[slice(2, 4)] * (len(shape) - 1))] = value
    return Example(subject, label[None].float(), label, spacing_mm=(1.0, 1.0, 2.0)[: len(shape)])


def cohort(count: int = 8) -> list[Example]:
    return [example(f"s{i}", [1, 2, 3] if i % 2 else [1, 3, 4]) for i in range(count)]


def task(count: int = 6, labels: int = 3) -> Task:
    cases = tuple(Case(f"c{i}", f"s{i}", "CT", (Path(f"c{i:02d}.nii.gz"),)) for i in reversed(range(count)))
    return Task("toy", {value: f"organ {value}" for value in range(1, labels + 1)}, cases, "CT")


def classes_of(episode) -> list[int]:
    return [int(value) for value in episode.task.partition("[")[2].rstrip("]").split(",")]


# Splits


@pytest.mark.parametrize("name", FIXED_SPLITS)
def test_fixed_splits_are_disjoint(name):
    pool, query = fixed_split(name)
    assert not set(pool) & set(query)


def test_unknown_fixed_split_lists_the_known():
    with pytest.raises(InputError, match="abd-mr-chaos"):
        fixed_split("mine")


@pytest.mark.parametrize("seed", range(3))
def test_draw_support_is_the_published_rule(seed):
    expected = np.random.default_rng(seed).choice(range(3, 18), 5, replace=False).tolist()
    assert draw_support(range(3, 18), 5, seed) == expected


def test_draw_support_needs_enough():
    with pytest.raises(InputError, match="5 supports from a pool of 4"):
        draw_support("abcd", 5, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.floats(0.05, 0.95), st.sets(st.integers(1, 3), max_size=2), st.integers(0, 99))
def test_random_split_is_disjoint_and_complete(count, fraction, novel, seed):
    splits = [
        split_task(task(count), novel=sorted(novel), test_fraction=fraction, generator=np.random.default_rng(seed))
        for _ in range(2)
    ]
    split = splits[0]
    assert splits[1] == split
    assert split.train_subjects
    assert split.test_subjects
    assert not set(split.train_subjects) & set(split.test_subjects)
    assert len(split.train_subjects) + len(split.test_subjects) == count
    assert set(split.base_labels) | set(split.novel_labels) == {1, 2, 3}
    assert not set(split.base_labels) & novel


def test_split_by_index_counts_in_file_name_order():
    split = split_task(task(), novel=[2], pool=range(2), query=range(4, 6))
    assert split == Split((1, 3), (2,), ("s0", "s1"), ("s4", "s5"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"novel": [9], "pool": [0], "query": [1]}, InputError),
        ({"novel": [1], "pool": [0, 1], "query": [1]}, InputError),
        ({"novel": [1], "pool": [0], "query": [6]}, InputError),
        ({"novel": [1], "test_fraction": 1.5, "generator": np.random.default_rng(0)}, InputError),
        ({"novel": [1]}, TypeError),
        ({"novel": [1], "test_fraction": 0.5, "pool": [0], "query": [1]}, TypeError),
    ],
)
def test_impossible_splits(arguments, error):
    with pytest.raises(error):
        split_task(task(), **arguments)


# Episodes


@settings(max_examples=60, deadline=None)
@given(
    ways=st.integers(1, 3),
    shots=st.integers(1, 3),
    queries=st.integers(1, 3),
    absent=st.sampled_from([0.0, 0.5, 1.0]),
    patch=st.sampled_from([None, (12, 4, 4), (14, 8, 8)]),
    seed=st.integers(0, 10_000),
)
def test_an_episode_keeps_its_promises(ways, shots, queries, absent, patch, seed):
    examples = {e.subject_id: e for e in cohort()}
    sampler = EpisodeSampler(
        {"toy": list(examples.values())},
        ways=ways,
        shots=shots,
        queries=queries,
        absent_probability=absent,
        allowed_labels={"toy": [1, 2, 3]},
        patch_size=patch,
    )
    episode = sampler.sample(torch.Generator().manual_seed(seed))
    classes = classes_of(episode)
    support, query = episode.support, episode.query
    size = patch or (12, 6, 6)
    assert not set(episode.support_subjects) & set(episode.query_subjects)
    assert len(set(episode.support_subjects)) == shots == support.shots
    assert set(classes) <= {1, 2, 3}
    assert len(set(classes)) == ways == support.classes - 1
    assert query.image.shape == (queries, 1, *size)
    assert query.label.shape == (queries, *size)
    assert query.image.dtype == torch.float32
    assert query.label.dtype == torch.int64
    assert all(label.any() for label in support.labels)
    assert set(torch.cat([label.unique() for label in support.labels]).tolist()) == set(range(ways + 1))
    pairs = [*zip(support.images, support.labels, strict=True), *zip(query.image, query.label, strict=True)]
    for image, label in pairs:
        for number, value in enumerate(classes, start=1):
            assert torch.equal(label == number, image[0] == value)
        assert not label[(image[0] != 0) & ~torch.isin(image[0], torch.tensor(classes))].any()


def draw_many(seed: int | torch.Generator | np.random.Generator, count: int = 6, **options):
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    sampler = EpisodeSampler({"a": cohort(), "b": cohort(5)}, ways=(1, 2), shots=(1, 3), **options)
    return [sampler.sample(generator) for _ in range(count)]


@pytest.mark.parametrize("make", [lambda: torch.Generator().manual_seed(3), lambda: np.random.default_rng(3)])
def test_a_seed_gives_the_same_episodes_whatever_the_global_state(make):
    torch.manual_seed(0)
    first = draw_many(make(), patch_size=(12, 4, 4), absent_probability=0.5)
    torch.manual_seed(1)
    second = draw_many(make(), patch_size=(12, 4, 4), absent_probability=0.5)
    state = torch.get_rng_state()
    draw_many(make())
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first, second, strict=True):
        assert (a.task, a.support_subjects, a.query_subjects) == (b.task, b.support_subjects, b.query_subjects)
        assert torch.equal(a.query.image, b.query.image)
        assert all(torch.equal(x, y) for x, y in zip(a.support.labels, b.support.labels, strict=True))


def test_episodes_vary():
    drawn = draw_many(0, count=60)
    assert {episode.task[0] for episode in drawn} == {"a", "b"}
    assert {episode.support.shots for episode in drawn} == {1, 2, 3}
    assert {episode.support.classes for episode in drawn} == {2, 3}
    orders = [classes_of(episode) for episode in drawn if episode.support.classes == 3]
    assert any(a > b for a, b in orders)
    assert any(a < b for a, b in orders)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_novel_classes_never_enter_base_episodes(seed):
    sampler = EpisodeSampler({"toy": cohort()}, ways=2, allowed_labels={"toy": [1, 3]})
    assert set(classes_of(sampler.sample(np.random.default_rng(seed)))) == {1, 3}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_strict_exclusion_drops_an_example_with_any_novel_class(seed):
    examples = [*cohort(6), *(example(f"clean{i}", [1, 3]) for i in range(3))]
    sampler = EpisodeSampler(
        {"toy": examples}, ways=2, exclude_examples_with={"toy": [2, 4]}, absent_probability=0.5, patch_size=(12, 6, 6)
    )
    episode = sampler.sample(np.random.default_rng(seed))
    assert all(name.startswith("clean") for name in episode.support_subjects + episode.query_subjects)
    assert not torch.isin(episode.query.image, torch.tensor([2.0, 4.0])).any()


def test_absent_queries_come_from_scans_without_the_structure():
    sampler = EpisodeSampler({"toy": cohort()}, allowed_labels={"toy": [2]}, absent_probability=1.0)
    for seed in range(5):
        episode = sampler.sample(np.random.default_rng(seed))
        assert not episode.query.label.any()
        assert int(episode.query_subjects[0][1:]) % 2 == 0


def test_absent_queries_can_be_windows_beside_the_structure():
    examples = [example(f"s{i}", [1]) for i in range(4)]
    sampler = EpisodeSampler({"toy": examples}, absent_probability=1.0, patch_size=(4, 4, 4))
    for seed in range(5):
        episode = sampler.sample(np.random.default_rng(seed))
        assert not episode.query.label.any()
        assert episode.support.labels[0].any()


def test_several_slices_of_a_subject_stay_on_one_side():
    slices = [example(f"s{i // 5}", [1], (8, 8)) for i in range(15)]
    sampler = EpisodeSampler({"toy": slices}, shots=2, queries=4)
    episode = sampler.sample(np.random.default_rng(0))
    assert len(set(episode.support_subjects)) == 2
    assert set(episode.query_subjects).isdisjoint(episode.support_subjects)
    assert len(episode.query_subjects) == 4


def test_whole_queries_of_different_size_are_padded():
    examples = [example(f"s{i}", [1], (8 + i, 6, 9 - i)) for i in range(4)]
    episode = EpisodeSampler({"toy": examples}, queries=3).sample(np.random.default_rng(1))
    extents = [(8 + int(name[1:]), 9 - int(name[1:])) for name in episode.query_subjects]
    assert episode.query.image.shape[2:] == (max(x for x, _ in extents), 6, max(z for _, z in extents))


@pytest.mark.parametrize(
    "options",
    [
        {"ways": 5},
        {"shots": 8},
        {"ways": 0},
        {"shots": (3, 2)},
        {"queries": 0},
        {"absent_probability": 2},
        {"allowed_labels": {"other": [1]}},
        {"exclude_examples_with": {"toy": [1]}},
    ],
)
def test_impossible_samplers(options):
    with pytest.raises(InputError):
        EpisodeSampler({"toy": cohort()}, **options)


def test_impossible_episode_says_so():
    examples = [example("a", [1]), example("b", [2]), example("c", [1])]
    with pytest.raises(InputError, match="no episode with 2 ways, 1 shots"):
        EpisodeSampler({"toy": examples}, ways=2).sample(np.random.default_rng(0))


def test_a_task_that_is_too_small_is_left_out():
    sampler = EpisodeSampler({"toy": cohort(), "tiny": [example("x", [1])]})
    assert sampler.tasks == ("toy",)


def test_shapes_of_an_example_are_checked():
    with pytest.raises(InputError, match="s0"):
        Example("s0", torch.zeros(1, 4, 4), torch.zeros(4, 5))


# Windows


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(1, 9), st.integers(0, 8)), min_size=2, max_size=3))
def test_window_holds_its_centre_and_has_its_size(axes):
    shape, size, centre = (list(column) for column in zip(*axes, strict=True))
    centre = [min(c, n - 1) for c, n in zip(centre, shape, strict=True)]
    label = torch.zeros(shape, dtype=torch.int64)
    label[tuple(centre)] = 1
    image, window = crop(label[None] + 5.0, label, start_around(centre, shape, size), size)
    assert list(window.shape) == size == list(image.shape[1:])
    assert int(window.sum()) == 1
    assert torch.equal(image[0], window + 5.0)


def test_no_empty_window_where_all_is_labelled():
    assert empty_start(torch.ones(6, 6), (3, 3), np.random.default_rng(0)) is None
