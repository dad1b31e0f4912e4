"""Copies of labelled scans with the contrast of the scans to segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from torch import Tensor

from medfewshot.settings import AdaptSettings
from medfewshot.types import MAX_WHOLE_VALUES, Support, Volume
from medfewshot.workflow import adapt, read_cohort, read_supports
from medfewshot.workflow.contrast import COMPARED, FIRST, brightness_changes, contrast_warning, with_contrast_of
from medfewshot.workflow.volumes import find_cases

SIZE = (30, 28, 26)


def box(low: int, high: int) -> Tensor:
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[low:high, low:high, low:high] = True
    return inside


ORGAN, OTHER = box(5, 13), box(16, 23)
LABEL = ORGAN.long() + 2 * OTHER.long()


def body(*, organ: float, other: float = 1.5, seed: int = 0) -> Tensor:
    """A scan ``(1, *S)`` with two organs in a body of intensity 0, in air of -2."""
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) / 20
    return (-2.0 + 2 * box(2, 26) + organ * ORGAN + other * OTHER + noise)[None]


@pytest.mark.parametrize(
    ("organ", "change"),
    [
        (3.0, 2.0),  # brighter
        (-1.0, -2.0),  # darker than the body around it
        (1.5, 0.0),  # less than three times the smallest deviation
        (0.1, 0.0),  # no edge is left: registration has missed it
    ],
)
def test_a_change_is_measured_where_it_is_clear_and_an_edge_is_left(organ, change):
    found = brightness_changes(body(organ=1.0), body(organ=organ, seed=1), LABEL, 4)
    assert found.shape == (3, 1)
    assert found[0, 0] == pytest.approx(change, abs=0.05)
    assert found[1:].eq(0).all()  # the other organ is the same, and nothing has the third label


def test_a_large_deviation_hides_a_change_and_channels_are_measured_apart():
    wide = body(organ=1.0) + ORGAN * torch.randn(SIZE, generator=torch.Generator().manual_seed(2))
    assert brightness_changes(wide, body(organ=3.0), LABEL, 3).eq(0).all()
    two = [torch.cat([body(organ=1.0), body(organ=organ)]) for organ in (1.0, 4.0)]
    assert brightness_changes(*two, LABEL, 3)[0].tolist() == pytest.approx([0, 3], abs=0.05)


def counted(scans: list[Tensor], read: list[int]) -> Iterator[Tensor]:
    for number, scan in enumerate(scans):
        read.append(number)
        yield scan


@pytest.fixture
def support() -> Support:
    return Support((body(organ=1.0),), (LABEL,), classes=3, patch_size=(16, 16, 16), spacing_mm=(3.0, 3.0, 3.0))


def test_copies_have_the_brightness_of_most_scans(support):
    scans = [body(organ=organ, seed=seed) for seed, organ in enumerate((3.0, 1.0, 4.0), start=1)]
    found, classes, compared = with_contrast_of(scans, support)
    assert (classes, compared) == ((1,), 3)
    assert (found.shots, found.derived) == (3, 2)  # the second scan is like the support
    for copy, expected in zip(found.images[1:], (3.0, 4.0), strict=True):
        assert float(copy[0, ORGAN].median()) == pytest.approx(expected, abs=0.3)
        assert torch.equal(copy[0, ~ORGAN], support.images[0][0, ~ORGAN])
    assert all(torch.equal(label, LABEL) for label in found.labels)
    assert found.of([0]).derived == 0


def test_a_structure_that_differs_in_few_scans_stays(support):
    scans = [body(organ=organ, seed=seed) for seed, organ in enumerate((3.0, 1.0), start=1)]
    assert with_contrast_of(scans, support) == (support, (), 2)


def test_scans_alike_change_nothing_and_few_are_read(support):
    read: list[int] = []
    alike = [body(organ=1.0, seed=seed) for seed in range(1, 9)]
    assert with_contrast_of(counted(alike, read), support) == (support, (), FIRST)
    assert read == list(range(FIRST))
    different = [body(organ=3.0, seed=seed) for seed in range(1, 9)]
    read.clear()
    found, *_ = with_contrast_of(counted(different, read), support)
    assert len(read) == found.derived == COMPARED
    assert with_contrast_of([], support) == (support, (), 0)


def test_each_scan_is_compared_with_one_support_in_turn(support):
    bright = body(organ=3.0)
    both = replace(support, images=(*support.images, bright), labels=(LABEL, LABEL))
    scans = [body(organ=3.0, seed=seed) for seed in range(1, 5)]
    # Half of the comparisons are with the bright support, so the contrast is known already.
    assert with_contrast_of(scans, both) == (both, (), 4)


def test_scans_beyond_the_limit_of_registration_are_not_compared(support):
    many = replace(support, classes=MAX_WHOLE_VALUES // LABEL.numel() + 1)
    assert with_contrast_of([body(organ=3.0)], many) == (many, (), 0)


def volume(image: Tensor, data_type: type = np.float32) -> Volume:
    return Volume((image.numpy() * 100).astype(data_type), np.diag([-3.0, -3.0, 3.0, 1.0]))


@pytest.mark.parametrize(("takes", "quality", "organ", "copies"), [
    (True, "standard", 2.5, 2), (True, "standard", 1.0, 0), (True, "draft", 2.5, None),
    (False, "standard", 2.5, None),
])  # fmt: skip
def test_adaptation_says_what_it_imitates(takes, quality, organ, copies):
    label = Volume(LABEL[None].numpy().astype(np.int16), np.diag([-3.0, -3.0, 3.0, 1.0]))
    flat = Volume(np.zeros((1, 4, 4), np.float32), np.eye(4))  # of another kind
    plain = volume(torch.zeros(1, *SIZE))  # no structure has an edge in it
    cohort = [volume(body(organ=organ, seed=1)), flat, volume(body(organ=organ, seed=2)), plain]
    settings = AdaptSettings(
        learner="toy", device="cpu", quality=quality, modality="MR", labels={1: "liver", 2: "knee"}
    )
    learners = {"toy": replace(toys.TOY, derived=takes)}
    scans = read_supports([(volume(body(organ=1.0)), label)])
    record = adapt(scans, settings, cohort=cohort, learners=learners).record
    assert record["learner"].get("contrast_copies") == copies
    assert record["learner"].get("scans_compared") == (None if copies is None else 3)
    told = [text for text in record["warnings"] if "brighter or darker" in text]
    assert [text.startswith("liver") for text in told] == [True] * bool(copies)
    unfit = "array: of another kind than the labelled scans; it cannot be segmented"
    assert (unfit in record["warnings"]) == (copies is not None)


def test_the_warning_names_the_structures():
    assert contrast_warning([]) == ()
    assert contrast_warning(["liver", "spleen"])[0].startswith("liver, spleen: much brighter or darker")


def test_a_cohort_is_read_scan_by_scan_without_those_that_cannot_be_read(tmp_path):
    for seed in range(3):
        toys.save_nifti(tmp_path / f"{seed}.nii.gz", toys.make_scan(seed)[0])
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    cases = find_cases([tmp_path])
    assert len(cases) == 4
    skipped: list[str] = []
    assert sorted(scan.path.name for scan in read_cohort(cases, skipped=skipped)) == [
        "0.nii.gz",
        "1.nii.gz",
        "2.nii.gz",
    ]
    assert skipped == ["broken"]
