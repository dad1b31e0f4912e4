"""Splits: subjects are on one side each, and the published draws stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from medfewshot.episodes import FIXED_SPLITS, draw_support, fixed_split
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
