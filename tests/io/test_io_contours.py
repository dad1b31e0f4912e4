"""Contours of masks and back: every pixel returns, holes and islands included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medfewshot.io.contours import filled, outlines

SHAPE = (9, 8)


def box(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """The union of index ranges, both ends included."""
    result = np.zeros(SHAPE, bool)
    for x0, x1, y0, y1 in boxes:
        result[x0 : x1 + 1, y0 : y1 + 1] = True
    return result


@given(arrays(bool, SHAPE))
def test_every_mask_returns(given_mask: np.ndarray) -> None:
    found, have_crossed = filled(outlines(given_mask), SHAPE)
    assert np.array_equal(found, given_mask)
    assert not have_crossed


@pytest.mark.parametrize(
    ("contours", "expected"),
    [
        ([box(1.5, 5.5, 2.5, 6.5)], mask((2, 5, 3, 6))),
        # A hole, an island in the hole, and a piece beside them.
        ([box(0.5, 6.5, 0.5, 6.5), box(1.5, 5.5, 1.5, 5.5)], mask((1, 6, 1, 6)) & ~mask((2, 5, 2, 5))),
        (
            [box(2.5, 4.5, 2.5, 4.5), box(0.5, 6.5, 0.5, 6.5), box(1.5, 5.5, 1.5, 5.5)],
            (mask((1, 6, 1, 6)) & ~mask((2, 5, 2, 5))) | mask((3, 4, 3, 4)),
        ),
        ([box(-0.5, 1.5, -0.5, 1.5), box(4.5, 6.5, 3.5, 5.5)], mask((0, 1, 0, 1), (5, 6, 4, 5))),
        # A keyhole: one contour runs to the hole and back on the same line.
        (
            [np.array([(0.5, 0.5), (6.5, 0.5), (6.5, 6.5), (0.5, 6.5), (0.5, 3.5), (2.5, 3.5), (2.5, 4.5), (4.5, 4.5),
                       (4.5, 2.5), (2.5, 2.5), (2.5, 3.5), (0.5, 3.5)])],
            mask((1, 6, 1, 6)) & ~mask((3, 4, 3, 4)),
        ),
        # Drawn from centre to centre (OpenCV, rt-utils): the pixels on the contour belong to the structure.
        ([box(2, 5, 3, 6)], mask((2, 5, 3, 6))),
        ([box(1, 6, 1, 6), box(2, 5, 2, 5)], mask((1, 6, 1, 6)) & ~mask((3, 4, 3, 4))),
        ([np.array([(2.0, 1.0), (5.0, 4.0)])], np.eye(*SHAPE, k=-1, dtype=bool) & mask((2, 5, 1, 4))),
        ([np.array([(3.0, 4.0)])], mask((3, 3, 4, 4))),
        # The same contour twice is no hole. One that leaves the picture is cut.
        ([box(1.5, 5.5, 2.5, 6.5)] * 2, mask((2, 5, 3, 6))),
        ([box(6.5, 30.0, -20.0, 2.5)], mask((7, 8, 0, 2))),
        ([box(20.0, 30.0, 20.0, 30.0)], mask()),
    ],
    ids=[
        "a contour", "a hole", "an island", "two pieces", "a keyhole", "from centre to centre", "a hole likewise",
        "a line", "a point", "the same contour twice", "partly outside", "outside",
    ],
)  # fmt: skip
def test_pixels_inside(contours: list[np.ndarray], expected: np.ndarray) -> None:
    found, have_crossed = filled(contours, SHAPE)
    assert np.array_equal(found, expected)
    assert not have_crossed


def test_contours_that_cross_are_joined() -> None:
    found, have_crossed = filled([box(0.5, 4.5, 0.5, 4.5), box(3.5, 6.5, 3.5, 6.5)], SHAPE)
    assert np.array_equal(found, mask((1, 4, 1, 4), (4, 6, 4, 6)))
    assert have_crossed


@given(st.floats(0, 2 * np.pi), st.floats(1.0, 3.0))
def test_a_round_contour_keeps_the_pixels_nearer_than_its_radius(angle: float, radius: float) -> None:
    turns = angle + np.linspace(0, 2 * np.pi, 720, endpoint=False)
    found, _ = filled([np.column_stack([4 + radius * np.cos(turns), 4 + radius * np.sin(turns)])], SHAPE)
    x, y = np.indices(SHAPE)
    distance = np.hypot(x - 4, y - 4)
    sure = np.abs(distance - radius) > 0.02
    assert np.array_equal(found[sure], (distance < radius)[sure])
