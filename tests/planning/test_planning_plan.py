"""What a plan takes from its support: labels, spacing, patch, which structures are in one piece, and what it notes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from grids import affine_of, volume_of
from hypothesis import given
from hypothesis import strategies as st

from medfewshot.errors import InputError
from medfewshot.io.geometry import SPACING_MM, check_affine
from medfewshot.planning import make_plan, plan_from_dict, plan_to_dict
from medfewshot.planning.plan import _patch_size
from medfewshot.settings import QUALITY_LEVELS, PlanSettings
from medfewshot.types import Plan, Volume

Box = tuple[int, tuple[slice, ...]]


def pair(shape, spacing=(1, 1, 1), boxes: list[Box] | None = None, **more) -> tuple[Volume, Volume]:
    """A noise image and a label map of boxes; without boxes, label 1 fills the middle half of each axis."""
    boxes = [(1, tuple(slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in shape))] if boxes is None else boxes
    label = np.zeros(shape, dtype=np.uint16)
    for value, box in boxes:
        label[box] = value
    affine = affine_of((*spacing, 1)[:3])
    image = np.random.default_rng(0).uniform(0, 500, shape)
    return volume_of(image, affine, **more), volume_of(label, affine)


def plan_for(*pairs: tuple[Volume, Volume], names=None, **options) -> Plan:
    images, labels = zip(*pairs, strict=True)
    return make_plan(images, labels, names=names, settings=PlanSettings(**options))


def cube(start: int, size: int, dims: int = 3) -> tuple[slice, ...]:
    return (slice(start, start + size),) * dims


# Labels


def test_labels_keep_their_values_and_names():
    boxes = [(420, cube(2, 8)), (205, cube(12, 8))]
    plan = plan_for(pair((24, 24, 24), boxes=boxes), names={205: "myocardium"})
    assert dict(plan.labels) == {205: "myocardium", 420: "label 420"}
    assert plan.label_values == (205, 420)
    assert plan.classes == 3


def test_labels_can_be_chosen_and_named():
    boxes = [(v, cube(6 * v, 4)) for v in range(3)] + [(3, cube(18, 4))]
    support = pair((24, 24, 24), boxes=boxes)
    assert dict(plan_for(support, labels=[3, 1], names={1: "one"}).labels) == {3: "label 3", 1: "one"}
    assert dict(plan_for(support, labels={2: "mine"}, names={2: "theirs"}).labels) == {2: "mine"}
    assert plan_for(support, labels=None).label_values == (1, 2, 3)
    with pytest.raises(InputError, match="labels"):
        plan_for(support, labels=[])


def test_labels_come_from_all_supports_and_absence_is_noted():
    first, second = (pair((24, 24, 24), boxes=[(v, cube(4, 10))]) for v in (1, 2))
    plan = plan_for(first, second)
    assert plan.label_values == (1, 2)
    assert "label 1 is missing from 1 of 2 labelled scans; label it if it is visible there" in plan.notes
    assert "label 2 is missing from 1 of 2 labelled scans; label it if it is visible there" in plan.notes
    assert (
        "stone (label 2) is missing from 1 of 2 labelled scans; label it if it is visible there"
        in plan_for(first, second, names={2: "stone"}).notes
    )


def test_a_missing_label_is_an_error():
    with pytest.raises(InputError, match=r"label 7, 9: is in none of the labelled scans; they contain 1"):
        plan_for(pair((16, 16, 16)), labels=[1, 7, 9])


def test_no_structure_at_all_names_the_files(tmp_path):
    image, label = pair((8, 8, 8), boxes=[])
    labels = [Volume(label.data, label.affine, path=tmp_path / name) for name in ("a.nii.gz", "b.nii.gz")]
    with pytest.raises(InputError, match=r"a\.nii\.gz, .*b\.nii\.gz: no structure is marked"):
        make_plan([image, image], labels)


def test_supports_must_be_alike():
    solid, flat = pair((12, 12, 12)), pair((12, 12))
    with pytest.raises(InputError, match=r"2D with 1 channel\(s\), but array is 3D with 1"):
        plan_for(solid, flat)
    both = Volume(np.zeros((2, 12, 12, 12), dtype=np.float32), np.eye(4))
    with pytest.raises(InputError, match=r"3D with 2 channel\(s\)"):
        plan_for(solid, (both, solid[1]))
    with pytest.raises(InputError, match="the support is empty"):
        make_plan([], [])


def test_a_support_without_contrast_is_refused():
    image, label = pair((8, 8, 8))
    constant = Volume(np.full_like(image.data, 3), image.affine)
    with pytest.raises(InputError, match="every voxel has the same value"):
        plan_for((image, label), (constant, label))
    # A second channel that is empty in this scan is no reason to refuse it.
    two = [Volume(np.concatenate([one.data, 0 * one.data]), one.affine) for one in (image, image)]
    assert make_plan(two, [label, label]).channels == 2


# Spacing


@given(
    spacing=st.lists(st.floats(0.2, 6.0), min_size=3, max_size=3),
    shape=st.lists(st.integers(6, 24), min_size=3, max_size=3),
    quality=st.sampled_from(sorted(QUALITY_LEVELS)),
)
def test_spacing_is_never_finer_than_native_and_thick_slices_stay(spacing, shape, quality):
    plan = plan_for(pair(shape, spacing), quality=quality)
    original = np.array(spacing)
    got = np.array(plan.spacing_mm)
    assert (got >= original - 1e-9).all()
    thick = original >= 3 * original.min()
    np.testing.assert_allclose(got[thick], original[thick])


def test_a_fine_scan_of_a_large_organ_is_planned_coarser():
    plan = plan_for(pair((200, 200, 20), (0.8, 0.8, 5.0)))
    assert plan.spacing_mm[2] == 5.0
    # 160 mm across: 120 voxels of the field of view, or 60 of the organ's 80 mm, whichever is finer.
    assert plan.spacing_mm[:2] == pytest.approx((4 / 3, 4 / 3))


def test_a_small_structure_keeps_the_grid_fine():
    boxes = [(1, (slice(20, 180), slice(20, 180), slice(2, 18))), (2, (slice(4, 8), slice(4, 8), slice(4, 6)))]
    plan = plan_for(pair((200, 200, 20), (0.8, 0.8, 5.0), boxes))
    diameter = (6 * 32 * 0.8 * 0.8 * 5 / np.pi) ** (1 / 3)
    assert plan.spacing_mm[:2] == pytest.approx((diameter / 6,) * 2)


def test_spacing_can_be_given():
    support = pair((24, 24, 8), (1, 1, 4))
    assert plan_for(support, spacing_mm=2.0).spacing_mm == (2.0, 2.0, 4.0)  # thick slices stay
    assert plan_for(support, spacing_mm=(2.0, 1.5, 5.0)).spacing_mm == (2.0, 1.5, 5.0)


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), (1.0, 1.0), (1.0, 1.0, 0.0)])
def test_an_unusable_spacing_is_an_error(spacing):
    with pytest.raises(InputError, match="spacing"):
        plan_for(pair((16, 16, 16)), spacing_mm=spacing)


def test_fast_is_coarser():
    support = pair((64, 64, 64))
    assert plan_for(support, quality="draft").spacing_mm == pytest.approx((1.7,) * 3)


# Patch


def most_added(size: int) -> int:
    """By how much rounding may have enlarged an axis to ``size``."""
    return 9 if size >= 64 else 8 if size > 32 else 4 if size > 8 else 1


@given(
    shape=st.lists(st.integers(1, 600), min_size=2, max_size=3),
    spacing=st.lists(st.floats(0.2, 8.0), min_size=3, max_size=3),
    budget=st.integers(4_096, 600_000),
)
def test_patches_stay_within_the_budget(shape, spacing, budget):
    """Rounding adds at most 9 voxels to an axis from 64 on, 8 above 32, 4 above 8, 1 below: never more than half of it.

    Before rounding, the patch is within the budget; and a volume within the budget is one patch, give or take the 8
    voxels that rounding may take from a long axis.
    """
    spacing = np.array(spacing[: len(shape)])
    patch = _patch_size(shape, spacing, budget)
    assert np.prod([max(0.0, p - most_added(p)) for p in patch]) < budget
    assert np.prod(patch) <= 1.5 ** len(shape) * budget
    assert all(p % (16 if p >= 64 else 8 if p >= 32 else 4) == 0 for p in patch if p >= 8)
    assert all(p <= n + most_added(p) for p, n in zip(patch, shape, strict=True))
    if np.prod(shape) <= budget:
        assert all(p >= (n - 8 if n > 64 else n) for p, n in zip(patch, shape, strict=True))


def test_a_large_patch_is_nearly_a_cube_in_mm():
    patch = _patch_size((400, 400, 100), np.array([1.0, 1.0, 4.0]), 100_000)
    edges = np.array(patch) * [1.0, 1.0, 4.0]
    assert edges.max() / edges.min() < 1.2


def test_a_small_volume_is_one_patch():
    plan = plan_for(pair((30, 20, 5), (1, 1, 2)))
    assert plan.median_shape == (30, 20, 5)
    assert plan.patch_size == (32, 20, 5)


def test_patch_voxels_can_be_given():
    assert np.prod(plan_for(pair((64, 64, 64)), patch_voxels=10_000).patch_size) <= 24**3


# Pieces and notes


def test_only_what_is_in_one_piece_everywhere_keeps_its_largest():
    whole = [(1, cube(2, 8)), (2, cube(14, 8))]
    broken = [*whole, (2, (slice(2, 10), slice(14, 22), slice(14, 22)))]
    assert plan_for(pair((24, 24, 24), boxes=whole)).keep_largest == (1, 2)
    assert plan_for(pair((24, 24, 24), boxes=whole), pair((24, 24, 24), boxes=broken)).keep_largest == (1,)


def test_specks_do_not_break_a_structure():
    boxes = [(1, cube(2, 12)), (1, cube(20, 1))]
    plan = plan_for(pair((24, 24, 24), boxes=boxes))
    assert plan.keep_largest == (1,)
    assert not plan.notes


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_structures_are_noted(size):
    plan = plan_for(pair((24, 24, 24), boxes=[(5, cube(3, size))]), names={5: "lesion"}, spacing_mm=4.0)
    assert plan.notes[0] == "lesion (label 5) has pieces of 27 voxels or fewer: look for missed ones in every result"


# Frames


def test_the_frame_is_that_of_the_first_support():
    label = np.zeros((12, 12, 12), dtype=np.uint8)
    label[3:9, 3:9, 3:9] = 1
    first = affine_of((1, 1, 1), (10, 20, 30))
    plan = make_plan([volume_of(label, first)], [volume_of(label, first)])
    np.testing.assert_allclose(plan.axes, first[:3, :3])


def test_supports_stored_in_another_order_measure_alike():
    boxes = [(1, (slice(2, 18), slice(2, 14), slice(1, 5)))]
    image, label = pair((24, 20, 6), (1, 1, 4), boxes)
    turned = affine_of((4, 1, 1))
    turned[:3, :3] = np.diag([1, 1, 4])[:, [2, 0, 1]]
    other = volume_of(image.data[0].transpose(2, 0, 1), turned), volume_of(label.data[0].transpose(2, 0, 1), turned)
    assert plan_for((image, label), other).spacing_mm == plan_for((image, label)).spacing_mm
    assert plan_for((image, label), other).median_shape == (24, 20, 6)


def test_planar_images():
    plan = plan_for(pair((300, 200), (0.5, 0.5)))
    assert plan.spatial_dims == 2
    assert len(plan.spacing_mm) == len(plan.patch_size) == 2
    assert plan.spacing_mm == (0.5, 0.5)
    assert np.prod(plan.patch_size) <= 1.5**2 * 65_536


# JSON


def test_a_plan_survives_json():
    ct = np.linspace(-1000, 1000, 24**3).reshape(24, 24, 24)
    boxes = [(205, cube(2, 8)), (420, cube(14, 2))]
    _, label = pair((24, 24, 24), boxes=boxes)
    nearly_constant = np.zeros_like(ct)
    nearly_constant[0, 0, 0] = 1
    for data, modality in ((ct, "CT"), (nearly_constant, None), (nearly_constant, "CT")):
        plan = make_plan([volume_of(data)], [label], settings=PlanSettings(modality=modality))
        text = json.dumps(plan_to_dict(plan), allow_nan=False)
        assert plan_from_dict(json.loads(text)) == plan
        assert list(json.loads(text)["labels"]) == ["205", "420"]


@pytest.mark.parametrize("field", ["axes", "labels", "normalization", "patch_size"])
def test_a_plan_without_a_field_is_refused_in_one_line(field):
    data = plan_to_dict(plan_for(pair((16, 16, 16))))
    del data[field]
    with pytest.raises(ValueError, match=f"^{field} of the plan: .*$"):
        plan_from_dict(data)


def test_an_unknown_normalization_is_refused():
    data = plan_to_dict(plan_for(pair((16, 16, 16))))
    data["normalization"][0]["kind"] = "histogram"
    with pytest.raises(ValueError, match="normalization"):
        plan_from_dict(data)


def test_structures_of_one_name_are_told_apart():
    boxes = [(1, cube(2, 8)), (2, cube(12, 8)), (3, cube(20, 3))]
    plan = plan_for(pair((24, 24, 24), boxes=boxes), names={1: "kidney", 2: "kidney", 3: "cyst"})
    assert plan.labels == {1: "kidney (1)", 2: "kidney (2)", 3: "cyst"}


def test_supports_of_several_modalities_are_refused():
    scans = [pair((16, 16, 16), modality=modality) for modality in ("CT", "MR")]
    with pytest.raises(InputError, match=r"different modalities") as caught:
        plan_for(*scans)
    assert caught.value.settings == ("modality",)
    assert plan_for(*scans, modality="MR").normalization[0].kind == "zscore"


@pytest.mark.parametrize("modality", ["TC", "xray"])
def test_an_unknown_modality(modality):
    with pytest.raises(InputError, match=f"modality {modality}: unknown"):
        plan_for(pair((16, 16, 16)), modality=modality)


@pytest.mark.parametrize("length", SPACING_MM)
def test_whatever_spacing_reading_accepts_can_be_saved(length):
    """From electron microscopes to the length that stands for another unit."""
    plan = plan_for(pair((16, 16, 16), spacing=(length,) * 3))
    check_affine(np.diag([length] * 3 + [1]), "scan")
    assert plan_from_dict(plan_to_dict(plan)) == plan
