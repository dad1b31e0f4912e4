"""Splits: subjects and classes are on one side each, and the published draws stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfewshot.episodes import FIXED_SPLITS, Split, draw_support, fixed_split, split_task
from medfewshot.errors import InputError
from medfewshot.types import Case, Task


def task(count: int = 6, labels: int = 3) -> Task:
    cases = tuple(Case(f"c{i}", f"s{i}", "CT", (Path(f"c{i:02d}.nii.gz"),)) for i in reversed(range(count)))
    return Task("toy", {value: f"organ {value}" for value in range(1, labels + 1)}, cases, "CT")


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
