"""Drawing tools on shapes whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
from workbench_toys import ball

from medfewshot.errors import InputError
from medfewshot.workbench.tools import OUTSIDE, click, fill_between, grow, otsu_threshold, similar_range

SHAPE = (20, 22, 18)
MM = (1.0, 1.0, 1.0)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_two_squares_make_a_box(plane):
    labels = np.zeros(SHAPE, np.uint8)
    stack = np.moveaxis(labels, plane, 0)
    stack[3, 5:10, 5:12] = stack[9, 5:10, 5:12] = 4
    stack[6, 5:7, 5] = 2  # another structure stays
    filled = np.moveaxis(fill_between(labels, value=4, plane=plane), plane, 0)
    assert (filled == 4).sum() == 7 * 35 - 2
    assert (filled[6, 5:7, 5] == 2).all()
    assert not filled[:3].any()
    assert not filled[10:].any()


def test_a_small_and_a_large_square_meet_in_the_middle():
    labels = np.zeros((9, 9, 3), np.uint8)
    labels[1:8, 1:8, 0] = 1
    labels[3:6, 3:6, 2] = 1
    assert (fill_between(labels, value=1, plane=2)[..., 1] == 1).sum() == 25


def test_filling_needs_two_slices():
    labels = np.zeros(SHAPE, np.uint8)
    labels[5, 5, 5] = 1
    with pytest.raises(InputError, match="two"):
        fill_between(labels, value=1, plane=2)


def test_marks_grow_to_the_edge():
    inside = ball(SHAPE, radius=6)
    marks = np.zeros(SHAPE, np.uint8)
    marks[10, 11, 7:12] = 3
    marks[1, :, 9] = OUTSIDE
    grown = grow(100 + 300.0 * inside, marks, spacing_mm=MM)
    assert np.array_equal(grown, 3 * inside)


def test_growing_needs_two_kinds_of_marks():
    marks = np.zeros(SHAPE, np.uint8)
    marks[0] = 1
    with pytest.raises(InputError, match="inside and outside"):
        grow(np.zeros(SHAPE), marks, spacing_mm=MM)


def test_a_click_takes_what_is_connected_and_near():
    image = np.zeros(SHAPE)
    image[2:6, 2:6, 2:6] = image[12:15, 2:6, 2:6] = 100
    found = click(image, (3, 3, 3), low=50, high=150, reach_mm=30, spacing_mm=MM)
    assert found.sum() == 64
    assert click(image, (3, 3, 3), low=50, high=150, reach_mm=30, spacing_mm=MM, plane=2).sum() == 16
    assert click(image, (3, 3, 3), low=50, high=150, reach_mm=1, spacing_mm=MM).sum() == 7
    assert click(image, (3, 3, 3), low=50, high=150, reach_mm=1, spacing_mm=(1, 1, 5)).sum() == 5
    with pytest.raises(InputError, match="range"):
        click(image, (0, 0, 0), low=50, high=150, reach_mm=5, spacing_mm=MM)


def test_similar_intensities_enclose_the_clicked_one():
    image = np.where(ball(SHAPE, radius=6), 100.0, 0.0) + np.random.default_rng(0).normal(0, 2, SHAPE)
    low, high = similar_range(image, (10, 11, 9))
    assert 80 < low < 100 < high < 120


def test_otsu_divides_two_peaks():
    bright = ball(SHAPE, radius=6)
    image = np.where(bright, 100.0, 0.0) + np.random.default_rng(0).normal(0, 5, SHAPE)
    assert ((image > otsu_threshold(image)) == bright).mean() > 0.999
