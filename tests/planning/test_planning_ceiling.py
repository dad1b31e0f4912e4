"""The best Dice that a grid allows, and a grid that is refined until thin structures survive it."""

from __future__ import annotations

import numpy as np
import pytest
from grids import affine_of, volume_of

from medfewshot.planning import ceilings, make_plan, plan_from_dict, plan_to_dict
from medfewshot.settings import PlanSettings
from medfewshot.types import Plan, Volume


def label_with(shape, box, spacing=(1, 1, 1)) -> Volume:
    data = np.zeros(shape, dtype=np.uint8)
    data[box] = 1
    return volume_of(data, affine_of(spacing))


def plan_at(label: Volume, spacing_mm: float) -> Plan:
    image = volume_of(np.random.default_rng(0).uniform(0, 500, label.spatial_shape), label.affine)
    return make_plan([image], [label], settings=PlanSettings(spacing_mm=spacing_mm))


def test_the_original_grid_loses_nothing():
    label = label_with((20, 20, 20), np.s_[4:9, 7:8, 3:15])
    assert plan_at(label, 1.0).ceilings == {1: 1.0}


def test_a_cube_on_half_the_grid_loses_its_corners():
    # Interpolation gives 0.75 along each axis at the faces of the cube: 0.75³ < 0.5 at its 8 corners, 0.75² elsewhere.
    label = label_with((32, 32, 32), np.s_[8:16, 8:16, 8:16])
    assert plan_at(label, 2.0).ceilings[1] == pytest.approx(2 * 504 / (504 + 512))


def test_a_plane_between_planned_voxels_is_lost():
    label = label_with((32, 32, 32), np.s_[4:28, 4:28, 9:10])
    assert plan_at(label, 4.0).ceilings[1] < 0.5


def test_an_oblique_scan_loses_nothing_on_its_own_grid():
    label = label_with((24, 28, 20), np.s_[5:13, 6:20, 4:12])
    other = Volume(label.data, affine_of((1, 1, 1), (10, 20, 30)))
    assert plan_at(other, 1.0).ceilings == pytest.approx({1: 1.0})


def test_ceilings_are_a_mean_over_the_labels_that_contain_the_structure():
    with_it, without = label_with((20, 20, 20), np.s_[4:16, 4:16, 4:16]), label_with((20, 20, 20), np.s_[0:0])
    plan = plan_at(with_it, 2.0)
    assert ceilings([with_it, without], plan) == ceilings([with_it], plan)


def tubes(shape, width) -> np.ndarray:
    """Straight tubes in three directions, ``width`` voxels thick."""
    data = np.zeros(shape, dtype=np.uint8)
    for start in range(20, shape[0] - 20, 40):
        data[start : start + width, 10:-10, 5 : 5 + width] = 1
        data[10:-10, start : start + width, 5 : 5 + width] = 1
    return data


def test_thin_structures_in_3d_refine_the_grid_and_a_finer_one_is_named():
    label = volume_of(tubes((256, 256, 12), 2), affine_of((0.5, 0.5, 2)))
    image = volume_of(np.random.default_rng(0).uniform(0, 500, label.spatial_shape), label.affine)
    draft, plan, best = (
        make_plan([image], [label], settings=PlanSettings(quality=quality)) for quality in ("draft", "standard", "best")
    )
    assert plan.spacing_mm[0] == pytest.approx(max(0.5, 0.64 * draft.spacing_mm[0] / 1.7))
    assert plan.ceilings[1] > draft.ceilings[1] + 0.2
    (note,) = plan.notes
    assert "a spacing of 0.5 mm allows 1.00" in note
    (note,) = draft.notes
    assert f"quality best ({best.spacing_mm[0]:.3g} mm) allows {best.ceilings[1]:.2f}" in note


@pytest.mark.parametrize("planar", [np.s_[:, :], np.s_[:, :, None]], ids=["2D", "(X, Y, 1)"])
def test_vessels_of_two_pixels_are_planned_on_their_own_grid(planar):
    data = tubes((584, 565, 12), 2)[:, :, 5][planar]
    label = volume_of(data, np.eye(4))
    image = volume_of(np.random.default_rng(0).uniform(0, 255, data.shape), np.eye(4))
    plan = make_plan([image], [label])
    assert max(plan.spacing_mm[:2]) < 1.5
    assert plan.ceilings[1] >= 0.9


def test_a_volume_of_one_slice_in_3d_has_the_grid_of_a_2d_image():
    disc = np.hypot(*np.indices((400, 400)) - 200) < 120
    plans = []
    for planar in (np.s_[:, :], np.s_[:, :, None]):
        label = volume_of(disc.astype(np.uint8)[planar], np.eye(4))
        plans.append(
            make_plan([volume_of(np.random.default_rng(0).uniform(0, 255, label.spatial_shape), np.eye(4))], [label])
        )
    flat, slab = plans
    assert slab.spacing_mm[:2] == flat.spacing_mm
    assert slab.patch_size == (*flat.patch_size, 1)


def test_a_spacing_that_the_user_fixed_stays_and_the_limit_is_named():
    label = volume_of(tubes((96, 96, 12), 2), affine_of((0.5, 0.5, 2)))
    image = volume_of(np.random.default_rng(0).uniform(0, 500, label.spatial_shape), label.affine)
    plan = make_plan([image], [label], settings=PlanSettings(spacing_mm=2.0))
    assert plan.spacing_mm[:2] == (2.0, 2.0)
    (note,) = plan.notes
    assert f"Dice {plan.ceilings[1]:.2f} at most" in note
    assert "0.5 mm allows 1.00" in note


def test_ceilings_are_saved_and_older_plans_have_none():
    plan = plan_at(label_with((20, 20, 20), np.s_[4:16, 4:16, 4:16]), 2.0)
    saved = plan_to_dict(plan)
    assert plan_from_dict(saved) == plan
    del saved["ceilings"]
    assert plan_from_dict(saved).ceilings == {}
    with pytest.raises(ValueError, match="ceilings"):
        plan_from_dict({**saved, "ceilings": {"1": 1.5}})


def test_thin_structures_among_thick_ones_refine_the_grid_of_best_only():
    data = 9 * tubes((256, 256, 12), 2)
    for value in range(1, 6):  # five thick ones: the mean over the structures is high enough for the usual quality
        data[10:246, 48 * value - 38 : 48 * value - 2] = value
    label = volume_of(data, affine_of((0.5, 0.5, 2)))
    image = volume_of(np.random.default_rng(0).uniform(0, 500, label.spatial_shape), label.affine)
    draft, plan, best = (
        make_plan([image], [label], settings=PlanSettings(quality=quality)) for quality in ("draft", "standard", "best")
    )
    assert plan.ceilings[9] < 0.9 < np.mean(list(plan.ceilings.values()))
    assert best.spacing_mm[0] < plan.spacing_mm[0] == pytest.approx(max(0.5, draft.spacing_mm[0] / 1.7))
