"""Splits: subjects and classes are on one side each, and the published draws stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfewshot.episodes import FIXED_SPLITS, Example, LabelledTask, draw_support, fixed_split, split_task
from medfewshot.errors import InputError


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


def task() -> LabelledTask:
    label = torch.tensor([[0, 1], [2, 3]])
    return LabelledTask("toy", tuple(Example(f"s{i}", label[None].float(), label) for i in range(4)))


def test_a_split_separates_labels_and_subjects():
    train, test = split_task(task(), novel=[2], test_subjects=["s1", "s3"])
    assert (train.labels, test.labels) == ((1, 3), (2,))
    assert [example.subject_id for example in train.examples] == ["s0", "s2"]
    assert [example.subject_id for example in test.examples] == ["s1", "s3"]


@pytest.mark.parametrize(
    ("novel", "subjects", "told"),
    [
        ([9], ["s1"], r"labels \[9\] are unknown"),
        ([1], ["x"], r"subjects \['x'\] are unknown"),
        ([], ["s1"], "all labels are on one side"),
        ([1, 2, 3], ["s1"], "all labels are on one side"),
        ([1], ["s0", "s1", "s2", "s3"], "all subjects are on one side"),
    ],
)
def test_impossible_splits(novel, subjects, told):
    with pytest.raises(InputError, match=told):
        split_task(task(), novel=novel, test_subjects=subjects)
