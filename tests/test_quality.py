"""What a volume is flagged for, and a predicted Dice that is right where the probabilities are."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import grids
import numpy as np
import pytest
import torch
import toys

from medfewshot import quality
from medfewshot.inference import segment_volume
from medfewshot.learners.base import Segmenter
from medfewshot.quality import (
    NO_CONTRAST,
    Flag,
    image_flags,
    predicted_dice,
    reasons_to_review,
    size_flags,
    support_distance,
    support_profile,
)
from medfewshot.settings import InferenceSettings
from medfewshot.types import Normalization

ZSCORE = (Normalization("zscore"),)
PLAN = grids.plan_of((1.0, 1, 1), labels={3: "ball"}, normalization=ZSCORE)


def scan(seed: int, shape=(24, 22, 20), spacing=(1.0, 1.0, 1.0), skew: float = 1.0, modality=None, radius_mm=6.0):
    """A textured body in air with a ball in it, and the ball's label."""
    rng = np.random.default_rng(seed)
    affine = grids.affine_of(spacing)
    data = 100 * rng.random(shape) ** skew + 40
    distance = grids.distance_mm(affine, shape)
    data[distance > 0.48 * min(np.array(shape) * spacing)] = rng.random() * 2
    image = grids.volume_of(data.astype(np.float32), affine, modality=modality)
    return image, grids.volume_of((distance < radius_mm).astype(np.int16) * 3, affine)


@pytest.fixture(scope="module")
def profile():
    supports = [scan(seed) for seed in range(3)]
    found = support_profile(*zip(*supports, strict=True), PLAN)
    return json.loads(json.dumps(found))  # as a saved segmenter gives it back


def test_a_like_volume_is_not_flagged(profile):
    assert image_flags(scan(9)[0], PLAN, profile) == ()
    brighter = scan(9)[0]
    brighter = dataclasses.replace(brighter, data=brighter.data * 1000 + 5)
    assert image_flags(brighter, PLAN, profile) == (), "MR has no unit"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"spacing": (1.0, 1.0, 2.5), "shape": (24, 22, 8)},
            "voxels are coarser than in the labelled scans: 2.5 mm along axis 3 (there 1)",
        ),
        (
            {"spacing": (0.4, 1.0, 1.0), "shape": (60, 22, 20)},
            "voxels are finer than in the labelled scans: 0.4 mm along axis 1",
        ),
        ({"shape": (24, 50, 20)}, "field of view is larger than in the labelled scans: 50 mm along axis 2 (there 22)"),
        ({"shape": (12, 22, 20)}, "field of view is smaller than in the labelled scans: 12 mm along axis 1"),
        ({"skew": 12.0}, "gray values differ by"),
    ],
)
def test_what_sets_a_volume_apart(profile, changes, told):
    flags = image_flags(scan(9, **changes)[0], PLAN, profile)
    assert any(told in flag.text for flag in flags), flags
    assert all(flag.label is None and len(flag.reason.split()) <= 6 for flag in flags)


def test_the_distance_is_to_the_nearest_support():
    # A window from -1000 to 1000 HU with mean 0 and std 100: a shift of 30 HU is 0.3 standard deviations.
    plan = dataclasses.replace(PLAN, normalization=(Normalization("window", -1000.0, 1000.0, 0.0, 100.0),))
    image, label = scan(0)
    far = dataclasses.replace(image, data=image.data + 500)
    profile = support_profile([image, far], [label, label], plan)
    assert support_distance(image, plan, profile) == 0
    shifted = dataclasses.replace(image, data=image.data + 30)
    assert support_distance(shifted, plan, profile) == pytest.approx(0.3, abs=1e-3)
    assert support_distance(shifted, plan, {}) == 0


def test_an_image_without_contrast_is_flagged(profile):
    volume = scan(9)[0]
    constant = dataclasses.replace(volume, data=np.full_like(volume.data, 7))
    for known in (profile, {}):
        assert [flag.text for flag in image_flags(constant, PLAN, known)] == ["every voxel has the same value"]
    two = dataclasses.replace(volume, data=np.concatenate([volume.data, constant.data]))
    assert image_flags(two, PLAN, {})[0].text == "every voxel of channel 2 has the same value"


def test_axes_are_those_of_the_plan(profile):
    turned = grids.reoriented(scan(9)[0], grids.ALL_ORIENTATIONS[37])
    assert image_flags(turned, PLAN, profile) == ()


def test_another_modality_is_told():
    supports = [scan(seed, modality="MR") for seed in range(2)]
    profile = support_profile(*zip(*supports, strict=True), PLAN)
    (flag,) = image_flags(scan(5, modality="CT")[0], PLAN, profile)
    assert flag.text == "its header says CT, those of the labelled scans MR"
    assert image_flags(scan(5)[0], PLAN, profile) == ()


def test_a_segmenter_without_a_profile_flags_nothing():
    volume = scan(0, spacing=(9.0, 9, 9))[0]
    assert image_flags(volume, PLAN, {}) == ()
    assert size_flags({3: 10**6}, volume, PLAN, {}) == ()


def test_a_structure_of_micrometres_has_a_size():
    image, label = scan(0, spacing=(5e-4,) * 3, radius_mm=3e-3)
    found = support_profile([image], [label], PLAN)
    assert size_flags({3: int((label.data > 0).sum())}, image, PLAN, found) == ()


def test_sizes_are_shown_against_the_supports(profile):
    volume, label = scan(9)
    usual = int((label.data == 3).sum())
    assert size_flags({3: usual}, volume, PLAN, profile) == ()
    assert size_flags({3: 0}, volume, PLAN, profile) == (), "not found is told elsewhere"
    (flag,) = size_flags({3: 4 * usual}, volume, PLAN, profile)
    assert flag.label == 3
    assert flag.reason == "larger than in labelled scans"
    assert flag.text.startswith("ball (label 3) is larger than in the labelled scans: ")
    assert size_flags({3: usual // 4}, volume, PLAN, profile)[0].reason == "smaller than in labelled scans"


def test_without_millimetres_sizes_are_counted():
    image, label = (dataclasses.replace(one, has_spacing=False) for one in scan(0))
    (flag,) = size_flags({3: 40_000}, image, PLAN, support_profile([image], [label], PLAN))
    assert flag.text.endswith(f"40000 voxels (there {int((label.data == 3).sum())})")


def test_each_structure_has_its_most_serious_reason_to_review():
    flags = (Flag("smaller than in labelled scans", "", 2), Flag("voxels unlike labelled scans", ""))
    voxels, predicted = {1: 0, 2: 5, 3: 5, 4: 5, 5: 5}, {2: 0.1, 3: 0.1, 4: 0.9, 5: 0.9}
    assert reasons_to_review(voxels, predicted, [5], flags) == {
        1: "not found",
        2: "smaller than in labelled scans",
        3: "low confidence",
        4: "voxels unlike labelled scans",
        5: "the model is uncertain",
    }
    assert reasons_to_review({1: 9}, {1: 0.5}, []) == {}
    blank = Flag(NO_CONTRAST, "every voxel has the same value")
    assert reasons_to_review({1: 0, 2: 5}, {2: 0.1}, [2], (*flags, blank)[::-1]) == {1: NO_CONTRAST, 2: NO_CONTRAST}


def test_certain_masks_are_expected_to_be_right():
    assert predicted_dice(500, 500, 500, 0.0) == pytest.approx(1, abs=1e-3)
    assert predicted_dice(0, 0, 12, 0.0) is None
    # 100 voxels at 0.6 each, and nothing elsewhere: 2 * 60 / (100 + 60).
    assert predicted_dice(60, 100, 60, 0.0) == pytest.approx(0.75)


def test_calibration_keeps_the_order():
    values = [predicted_dice(inside, 100, inside + 5) for inside in (20, 50, 80, 99)]
    assert values == sorted(values)
    assert all(0 < value < 1 for value in values)


def test_the_prediction_is_the_mean_dice_of_what_the_probabilities_describe():
    """Truths drawn voxel by voxel from the probabilities have, on average, the Dice that is predicted."""
    rng = np.random.default_rng(0)
    p = np.clip(grids.soft_ball(np.eye(4), (20, 20, 20), 6, 8), 0.001, 0.999)
    volume = grids.volume_of(p)

    class Probabilities(Segmenter):
        calibration = 0.0

        def predict(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.log(1 - image), torch.log(image)], 1)

    segmenter = Probabilities()
    result = segment_volume(volume, grids.plan_of((1.0, 1, 1)), segmenter, InferenceSettings(keep_largest=False))
    mask = result.labels == 1
    drawn = [grids.dice(mask, rng.random(p.shape) < p) for _ in range(30)]
    assert result.predicted_dice[1] == pytest.approx(np.mean(drawn), abs=0.005)
    assert result.voxels == {1: int(mask.sum())}


def test_the_command_line_writes_them_down(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    from medfewshot.cli import main

    toys.make_folders(tmp_path, queries=1)
    odd, _ = toys.make_scan(12, (16, 15, 40))
    toys.save_nifti(tmp_path / "cohort" / "tall.nii.gz", odd)
    words = ["segment", "cohort", "--support-dir", "annotated", "--learner", "toy", "-o", "out"]
    monkeypatch.setattr("sys.argv", ["medfewshot", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main()
    like, unlike = json.loads((tmp_path / "out" / "run.json").read_text())["outputs"]
    assert like["flags"] == []
    assert any("field of view is larger" in flag for flag in unlike["flags"])
    assert {row["review"] for row in like["statistics"]} == {""}
    assert {row["review"] for row in unlike["statistics"]} <= {"field of view unlike labelled scans", "not found"}
    assert any(text.startswith("look closely: its field of view") for text in unlike["warnings"])
    assert set(like["predicted_dice"]) == {"label 205", "label 420"}
    assert all(0 < value <= 1 and math.isfinite(value) for value in like["predicted_dice"].values())
    rows = list(csv.DictReader((tmp_path / "out" / "statistics.csv").open()))
    assert float(rows[0]["predicted_dice"]) == like["predicted_dice"]["label 205"]
    assert rows[0]["flags"] == ""
    assert "field of view is larger" in rows[-1]["flags"]
    pictures = [(tmp_path / "out" / "previews" / f"{name}.png").stat().st_size for name in ("q0", "tall")]
    assert min(pictures) > 10_000
    page = (tmp_path / "out" / "report.html").read_text()
    assert "its field of view is larger" in page
    assert "look closely" not in page  # said once, as a flag
    assert "Confidence" in page or "confidence" in page


def pairs(values):
    """Pairs as a learner's record has them, from (support, from) -> Dice per structure."""
    return [{"support": one, "from": other, "dice": dice} for (one, other), dice in values.items()]


def test_a_support_that_fits_none_of_the_others_is_named():
    good, bad = [0.8, 0.7], [0.02, 0.04]
    found = quality.check_supports(
        pairs({(i, j): bad if 2 in (i, j) else good for i in range(3) for j in range(3) if i != j}),
        ["a", "b", "c"], ["liver", "spleen"],
    )  # fmt: skip
    assert [row["dice"] for row in found] == pytest.approx([0.39, 0.39, 0.03])
    assert [row["message"] for row in found[:2]] == ["", ""]
    assert found[2]["message"] == (
        "check c: its mask fits none of the others (Dice 0.03, the others 0.75); is it the mask of this scan?"
    )


def test_swapped_sides_are_named_by_structure():
    good, swapped = [0.8, 0.7, 0.7], [0.8, 0.0, 0.0]
    found = quality.check_supports(
        pairs({(i, j): swapped if 0 in (i, j) else good for i in range(3) for j in range(3) if i != j}),
        ["a", "b", "c"], ["liver", "right kidney", "left kidney"],
    )  # fmt: skip
    assert found[0]["message"].startswith("check a: right kidney, left kidney of it fit none of the others")
    assert "swapped" in found[0]["message"]


def test_supports_that_do_not_fit_each_other_at_all_name_nobody():
    for values in ({(0, 1): [0.0], (1, 0): [0.0]}, {(i, j): [0.1] for i in range(3) for j in range(3) if i != j}, {}):
        assert all(not row["message"] for row in quality.check_supports(pairs(values), ["a", "b", "c"], ["lesion"]))
    assert quality.check_supports(pairs({(0, 1): [None]}), ["a", "b"], ["lesion"])[0]["dice"] is None


def good_pairs(dice: float, bad: float | None = None):
    """Pairs of three supports; those of the third have Dice ``bad``."""
    return pairs({(i, j): [bad if bad and 2 in (i, j) else dice] for i in range(3) for j in range(3) if i != j})


def named(compared, fits) -> list[bool]:
    return [bool(row["message"]) for row in quality.check_supports(compared, list("abc"), ["liver"], fits)]


def test_a_mask_that_misses_the_edges_of_its_scan_is_named():
    fit, beside, absent = np.array([[2.0, 1.0]]), np.array([[1.0, 1.0]]), np.full((1, 2), np.nan)
    assert named(good_pairs(0.6), [fit, fit * 0.9, fit]) == [False] * 3
    assert named(good_pairs(0.6), [fit, fit, beside]) == [False, False, True]
    assert named(good_pairs(0.6), [fit, absent, absent]) == [False] * 3
    for unlike in (good_pairs(0.2), ()):  # lesions: their edges differ from scan to scan
        assert named(unlike, [fit, fit, beside]) == [False] * 3


def test_small_misfits_count_where_all_others_agree_closely():
    fits = [np.array([[2.0, 1.0]])] * 2 + [np.array([[1.8, 0.9]])]
    assert named(good_pairs(0.82, 0.75), fits) == [False, False, True]
    assert named(good_pairs(0.62, 0.55), fits) == [False] * 3
