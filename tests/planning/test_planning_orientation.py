"""Like comes to lie on like, whichever of the 48 ways a scan was stored in."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from grids import ALL_ORIENTATIONS, affine_of, axes_of, plan_of, reoriented, volume_of

from medfewshot.planning import to_plan
from medfewshot.planning.grid import direction_cosines, orientation_to, reorient

OBLIQUE = affine_of((0.9, 1.1, 4.0), (20, -35, 50), (-80, 20, 5))


def test_there_are_48_of_them():
    assert len({orientation.tobytes() for orientation in ALL_ORIENTATIONS}) == 48


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -35, 50), (44, 44, 44)])
def test_every_order_and_flip_gives_the_same_array(degrees):
    affine = affine_of((0.9, 1.1, 4.0), degrees, (-80, 20, 5))
    first = volume_of(np.random.default_rng(0).normal(size=(3, 4, 5)), affine)
    axes = direction_cosines(first.affine)
    for orientation in ALL_ORIENTATIONS:
        other = reoriented(first, orientation)
        data, back = reorient(other, orientation_to(other, axes))
        np.testing.assert_array_equal(data, first.data)
        np.testing.assert_allclose(back, first.affine, atol=1e-9)


def test_every_order_and_flip_gives_the_same_planned_image():
    first = volume_of(np.random.default_rng(0).normal(size=(9, 8, 5)), OBLIQUE)
    plan = plan_of((2.0, 1.5, 4.0), axes=axes_of(OBLIQUE))
    expected = to_plan(first, plan)
    for orientation in ALL_ORIENTATIONS:
        planned = to_plan(reoriented(first, orientation), plan)
        np.testing.assert_allclose(planned.image, expected.image, atol=1e-4)
        np.testing.assert_allclose(planned.affine, expected.affine, atol=1e-6)


def short_axis(degrees: float) -> np.ndarray:
    """A stack turned about the long axis of the body; its slice axis points between right and posterior."""
    s, c = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-s, 0, c], [-c, 0, -s], [0, 1, 0]]) @ np.diag([1.2, 1.2, 9.0])
    return affine


def test_oblique_stacks_near_45_degrees_stay_alike():
    """Ten degrees apart, and closest-canonical calls one PSR and the other LSP: RAS would turn one of them around."""
    support, query = short_axis(40), short_axis(50)
    assert nib.aff2axcodes(support) == ("P", "S", "R")
    assert nib.aff2axcodes(query) == ("L", "S", "P")
    data = np.random.default_rng(0).normal(size=(6, 5, 4))
    plan = plan_of((1.2, 1.2, 9.0), axes=axes_of(support))
    np.testing.assert_array_equal(
        to_plan(volume_of(data, query), plan).image, to_plan(volume_of(data, support), plan).image
    )


def test_reordering_copies_nothing():
    volume = volume_of(np.zeros((3, 4, 5), dtype=np.float32))
    data, _ = reorient(volume, orientation_to(volume, np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]])))
    assert data.shape == (1, 5, 3, 4)
    assert np.shares_memory(data, volume.data)


def test_planar_images_stay_as_they_are():
    volume = volume_of(np.arange(6).reshape(2, 3), OBLIQUE)
    data, affine = reorient(volume, orientation_to(volume, np.eye(3)))
    np.testing.assert_array_equal(data, volume.data)
    np.testing.assert_array_equal(affine, OBLIQUE)
