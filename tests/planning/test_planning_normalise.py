"""Hounsfield units are recognised and windowed; everything else is standardised by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grids import volume_of

from medfewshot.planning import make_plan, plan_from_dict, plan_to_dict
from medfewshot.planning.normalise import MIN_STD, SOFT_TISSUE_HU, choose_normalization, normalise
from medfewshot.settings import PlanSettings
from medfewshot.types import Normalization

RNG = np.random.default_rng(0)
CT = np.concatenate([np.full(4000, -1000.0), RNG.normal(40, 60, 4000), [1200.0] * 192]).reshape(16, 16, 32)
MR = RNG.gamma(2.0, 100.0, (16, 16, 32))
NOWHERE = np.zeros(CT.shape, dtype=bool)


def chosen(*data: np.ndarray, modality: str | None = None, header: str | None = None, mask=NOWHERE) -> Normalization:
    volumes = [volume_of(d, modality=header) for d in data]
    return choose_normalization(volumes, [mask] * len(data), 0, modality)


def test_hounsfield_units_are_recognised():
    assert chosen(CT).kind == "window"
    assert "Hounsfield" in chosen(CT).reason


@pytest.mark.parametrize("data", [MR, MR - 50, np.zeros_like(MR), MR / MR.max()])
def test_everything_else_counts_as_mr(data):
    assert chosen(data).kind == "zscore"


def test_one_scan_without_air_makes_the_support_no_ct():
    assert chosen(CT, MR).kind == "zscore"


def test_what_is_stated_wins():
    assert chosen(CT, modality="MR").kind == "zscore"
    assert chosen(MR, modality="ct").kind == "window"
    assert chosen(CT, header="MR").kind == "zscore"
    assert chosen(MR, header="CT").kind == "window"
    assert chosen(MR, header="CT", modality="MR").kind == "zscore"


@pytest.mark.parametrize(
    ("data", "header", "modality", "doubted"),
    [
        (CT, "Computed Tomography", None, True), (CT, "MR", None, True), (CT, "MR", "MR", False),
        (CT, "CT", None, False), (CT, None, None, False), (MR, "T1", None, False),
    ],
)  # fmt: skip
def test_a_file_that_calls_ct_something_else_is_doubted(data, header, modality, doubted):
    label = np.zeros(data.shape)
    label[4:8, 4:8, 4:8] = 1
    image = volume_of(data, modality=header)
    notes = make_plan([image], [volume_of(label)], settings=PlanSettings(modality=modality)).notes
    assert any(f"the modality is {header}" in note for note in notes) is doubted


@pytest.mark.parametrize(("data", "warned"), [(CT, False), (CT + 1000, True), (np.clip(CT, 0, 255), True)])
def test_ct_without_a_value_below_0_is_doubted(data, warned):
    label = np.zeros(data.shape)
    label[4:8, 4:8, 4:8] = 1
    notes = make_plan([volume_of(data)], [volume_of(label)], settings=PlanSettings(modality="CT")).notes
    assert any("no gray value is below 0" in note for note in notes) is warned


@pytest.mark.parametrize(("gray", "extremes"), [(300.0, True), (20.0, True), (110.0, False)])
def test_a_small_structure_brighter_or_darker_than_all_else_keeps_its_contrast(gray, extremes):
    """Without this, it had the gray value of the brightest half per cent of the scan."""
    label = np.zeros((1, 24, 24, 24), np.int16)
    label[0, 4:8, 4:8, 4:8], label[0, 12:20, 12:20, 12:20] = 7, 300
    data = np.where(label == 7, gray, RNG.normal(100, 5, label.shape))
    image = volume_of(data[0].astype(np.float32))
    plan = make_plan([image], [volume_of(label[0])])
    assert plan.normalization[0].extremes == plan_from_dict(plan_to_dict(plan)).normalization[0].extremes == extremes
    planned = normalise(torch.from_numpy(image.data), plan.normalization)[0]
    assert abs(float(planned[label[0] == 7].mean())) == pytest.approx(10 if extremes else 2, abs=0.5)
    assert abs(planned[label[0] != 7]).max() < 6


def test_the_window_widens_for_a_small_structure_beside_a_large_one():
    label = np.zeros(CT.shape, np.int16)
    label[8:] = 1
    label[9, 9, 9:12] = 2
    image, mask = volume_of(np.where(label == 2, 900, np.clip(CT, -1000, 200)), modality="CT"), volume_of(label)
    alone, both = (
        make_plan([image], [mask], settings=PlanSettings(labels=one)).normalization[0] for one in ((1,), (1, 2))
    )
    assert (alone.high, both.high) == (250, 950)
    assert both.low == pytest.approx(alone.low, abs=0.1)


def test_the_window_is_soft_tissue():
    window = chosen(CT)
    assert (window.low, window.high) == SOFT_TISSUE_HU
    inside = CT[np.clip(CT, window.low, window.high) == CT]
    assert window.mean == pytest.approx(inside.mean(), rel=0.05)
    assert window.std == pytest.approx(inside.std(), rel=0.05)


def test_the_window_widens_to_hold_the_structure():
    bone, lung = CT > 1000, CT == -1000
    assert chosen(CT, mask=bone).high == pytest.approx(1250)
    assert chosen(CT, mask=bone).low == SOFT_TISSUE_HU[0]
    assert chosen(CT, mask=lung).low == pytest.approx(-1050)


def test_a_window_clips_and_scales():
    image = torch.tensor([[[-1000.0, -100.0, 0.0, 50.0, 3000.0]]])
    got = normalise(image, [Normalization("window", -100, 100, 20, 40)])
    torch.testing.assert_close(got, torch.tensor([[[-3.0, -3.0, -0.5, 0.75, 2.0]]]))


def test_zscore_stands_on_the_body():
    """Air takes no part in mean and deviation, and a scale or an offset of the scanner changes nothing."""
    body = torch.from_numpy(RNG.normal(300, 30, 4096).astype(np.float32))
    image = torch.cat([torch.zeros(4096), body]).view(1, 16, 16, 32)
    got = normalise(image, [Normalization("zscore")])
    inside = got.flatten()[4096:]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-4)
    assert float(inside.std()) == pytest.approx(1, abs=1e-3)
    again = normalise(image * 7 + 11, [Normalization("zscore")])
    torch.testing.assert_close(again, got, atol=1e-3, rtol=1e-3)


def test_zscore_resists_outliers():
    image = torch.from_numpy(RNG.normal(100, 10, (1, 20, 20, 20)).astype(np.float32))
    spiked = image.clone()
    spiked[0, 0, 0, 0] = 1e6
    got = normalise(spiked, [Normalization("zscore")])
    assert float(got.abs().max()) < 5


@pytest.mark.parametrize("kind", ["zscore", "window"])
def test_constant_images_stay_finite(kind):
    how = chosen(np.full((4, 4, 4), 7.0), modality="CT" if kind == "window" else "MR", mask=np.ones((4, 4, 4), bool))
    got = normalise(torch.full((1, 4, 4, 4), 7.0), [how])
    assert how.kind == kind
    assert torch.isfinite(got).all()


def test_channels_are_normalised_apart():
    image = torch.from_numpy(RNG.normal(100, 10, (2, 8, 8, 8)).astype(np.float32))
    image[1] *= 50
    got = normalise(image, [Normalization("zscore")] * 2)
    torch.testing.assert_close(got[:1], normalise(image[:1], [Normalization("zscore")]))
    assert float(got[1].std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("share", [0.001, 0.5])
def test_an_image_of_two_values_stays_apart_and_small(share):
    image = torch.zeros(1, 10, 10, 100)
    image.flatten()[: int(share * image.numel())] = 255
    found = normalise(image, (Normalization("zscore"),))
    assert found.unique().numel() == 2
    assert found.isfinite().all()
    assert found.abs().max() <= 1 / MIN_STD
