"""Nothing leaks from query to support or from novel to base, and a seed gives the same episode again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfewshot.episodes import EpisodeSampler, EpisodeSettings, Example, LabelledTask, Mixture, episode_seed
from medfewshot.errors import InputError


def example(subject: str, values: list[int], shape: tuple[int, ...] = (12, 6, 6)) -> Example:
    """Label value v fills slab v of the first axis; the image repeats the label, so both can be compared."""
    label = torch.zeros(shape, dtype=torch.int64)
    for value in values:
        label[(slice(2 * value, 2 * value + 2), *[slice(2, 4)] * (len(shape) - 1))] = value
    return Example(subject, label[None].float(), label, spacing_mm=(1.0, 1.0, 2.0)[: len(shape)])


def cohort(count: int = 8) -> tuple[Example, ...]:
    return tuple(example(f"s{i}", [1, 2, 3] if i % 2 else [1, 3, 4]) for i in range(count))


def sampler_of(*examples: Example, labels: tuple[int, ...] | None = None, **changes) -> EpisodeSampler:
    return EpisodeSampler([LabelledTask("toy", examples, labels)], **changes)


def test_single_settings_win_over_given_ones():
    task = LabelledTask("toy", cohort())
    assert EpisodeSampler([task], EpisodeSettings(ways=2), shots=3).sample(0).support.shots == 3


def test_patches_of_other_axes_and_negative_labels_are_refused():
    with pytest.raises(InputError, match="toy: is 3D, but a patch has 2 axes"):
        sampler_of(*cohort(), patches=(8, 8))
    with pytest.raises(InputError, match="s1: has negative labels"):
        Example("s1", torch.zeros(1, 4, 4), torch.full((4, 4), -1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 9.0), (1.0, 1.0), None])
def test_examples_of_a_task_have_one_spacing(spacing):
    other = replace(example("x", [1]), spacing_mm=spacing)
    with pytest.raises(InputError, match="toy: its examples differ in spacing"):
        LabelledTask("toy", (*cohort(), other))


def test_labels_above_255_are_repainted_too():
    examples = [Example(e.subject_id, e.image, e.label * 300, e.spacing_mm) for e in cohort()]
    sampler = sampler_of(*examples, patches=(12, 4, 4), repaint=1.0)
    assert set(classes_of(sampler.sample(0))) <= {300, 600, 900, 1200}


def classes_of(episode) -> list[int]:
    return [int(value) for value in episode.task.partition("[")[2].rstrip("]").split(",")]


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
    sampler = sampler_of(
        *cohort(), labels=(1, 2, 3), ways=ways, shots=shots, queries=queries, absent=absent, patches=patch
    )
    episode = sampler.sample(seed)
    classes = classes_of(episode)
    support, query = episode.support, episode.query
    size = patch or (12, 6, 6)
    assert support.patch_size == patch
    assert support.spacing_mm == (1.0, 1.0, 2.0)
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
        shown = image[0].round()
        torch.testing.assert_close(image[0], shown, atol=1e-3, rtol=0)  # voxels are read, not blurred
        for number, value in enumerate(classes, start=1):
            assert torch.equal(label == number, shown == value)


def draw_many(count: int = 6, **changes):
    tasks = [LabelledTask("a", cohort()), LabelledTask("b", cohort(5))]
    sampler = EpisodeSampler(tasks, ways=(1, 2), shots=(1, 3), **changes)
    return [sampler.sample(seed) for seed in range(count)]


def test_a_seed_gives_the_same_episode_whatever_the_global_state():
    torch.manual_seed(0)
    first = draw_many(patches=(12, 4, 4), absent=0.5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = draw_many(patches=(12, 4, 4), absent=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first, second, strict=True):
        assert (a.task, a.support_subjects, a.query_subjects) == (b.task, b.support_subjects, b.query_subjects)
        assert torch.equal(a.query.image, b.query.image)
        assert all(torch.equal(x, y) for x, y in zip(a.support.labels, b.support.labels, strict=True))


def test_episodes_vary():
    drawn = draw_many(60)
    assert {episode.task[0] for episode in drawn} == {"a", "b"}
    assert {episode.support.shots for episode in drawn} == {1, 2, 3}
    assert {episode.support.classes for episode in drawn} == {2, 3}
    orders = [classes_of(episode) for episode in drawn if episode.support.classes == 3]
    assert any(a > b for a, b in orders)
    assert any(a < b for a, b in orders)


def test_novel_classes_never_enter_base_episodes():
    sampler = sampler_of(*cohort(), labels=(1, 3), ways=2)
    assert all(set(classes_of(sampler.sample(seed))) == {1, 3} for seed in range(25))


def test_names_stand_in_the_task():
    task = LabelledTask("toy", cohort(), (2,), names={2: "spleen"})
    assert EpisodeSampler([task]).sample(0).task == "toy[spleen]"


def test_queries_show_a_class_unless_they_are_absent():
    for absent in (0.0, 1.0):
        sampler = sampler_of(*cohort(), labels=(2,), absent=absent)
        for seed in range(5):
            episode = sampler.sample(seed)
            assert bool(episode.query.label.any()) is not bool(absent)
            assert int(episode.query_subjects[0][1:]) % 2 != absent
    anything = sampler_of(*cohort(), labels=(2,), query_shows_class=False)
    assert {bool(anything.sample(seed).query.label.any()) for seed in range(12)} == {True, False}


def test_several_slices_of_a_subject_stay_on_one_side():
    slices = [example(f"s{i // 5}", [1], (8, 8)) for i in range(15)]
    episode = sampler_of(*slices, shots=2, queries=4).sample(0)
    assert len(set(episode.support_subjects)) == 2
    assert set(episode.query_subjects).isdisjoint(episode.support_subjects)
    assert len(episode.query_subjects) == 4


def test_whole_queries_of_different_size_are_padded():
    examples = [example(f"s{i}", [1], (8 + i, 6, 9 - i)) for i in range(4)]
    episode = sampler_of(*examples, queries=3).sample(1)
    extents = [(8 + int(name[1:]), 9 - int(name[1:])) for name in episode.query_subjects]
    assert episode.query.image.shape[2:] == (max(x for x, _ in extents), 6, max(z for _, z in extents))
    assert (episode.query.label > 0).sum((1, 2, 3)).tolist() == [8, 8, 8]  # nothing is cut off


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ways": 5}, "5 labels"),
        ({"shots": 8}, "9 subjects"),
        ({"ways": 0}, "ways"),
        ({"shots": (3, 2)}, "shots"),
        ({"queries": 0}, "queries"),
        ({"absent": 2}, "absent"),
        ({"zoom": (2.0, 1.0)}, "zoom"),
        ({"mirror": 0.5}, "whole volumes"),
        ({"labels": (9,)}, "0 labels"),
    ],
)
def test_impossible_samplers(changes, told):
    with pytest.raises(InputError, match=told):
        sampler_of(*cohort(), **changes)


def test_impossible_episode_says_so():
    examples = [example("a", [1]), example("b", [2]), example("c", [1])]
    with pytest.raises(InputError, match="no episode with 2 ways, 1 shots"):
        sampler_of(*examples, ways=2).sample(0)


def test_supports_that_show_several_classes_are_found():
    """Only one example of many shows both classes."""
    examples = [example(f"s{i}", [1 + i % 2]) for i in range(60)]
    sampler = sampler_of(*examples, example("both", [1, 2]), ways=2)
    assert {sampler.sample(seed).support_subjects for seed in range(4)} == {("both",)}


def test_a_task_that_is_too_small_is_ignored():
    sampler = EpisodeSampler([LabelledTask("toy", cohort()), LabelledTask("tiny", (example("x", [1]),))])
    assert {sampler.sample(seed).task.partition("[")[0] for seed in range(4)} == {"toy"}


def test_shapes_of_an_example_are_checked():
    with pytest.raises(InputError, match="s0"):
        Example("s0", torch.zeros(1, 4, 4), torch.zeros(4, 5))


def test_sources_are_drawn_by_weight():
    sources = {name: sampler_of(*cohort(), patches=(size,) * 3) for name, size in (("a", 4), ("b", 5))}
    mixture = Mixture(sources, {"a": 3.0, "b": 1.0})
    sizes = [mixture.sample(seed).query.label.shape[1] for seed in range(100)]
    assert 0.62 < sizes.count(4) / 100 < 0.88
    with pytest.raises(InputError, match="no tasks"):
        Mixture(sources, {"a": 0.0, "b": 0.0})


def test_streams_share_no_seed():
    seeds = [episode_seed(3, stream, number) for stream in (0, 1) for number in range(200)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_settings_object_does_what_keywords_do():
    one = sampler_of(*cohort(), ways=2, patches=(4, 4, 4)).sample(3)
    given = EpisodeSettings(ways=(2, 2), patches=((4, 4, 4),))
    other = EpisodeSampler([LabelledTask("toy", cohort())], given).sample(3)
    assert torch.equal(one.query.image, other.query.image)
