"""The synthetic cohort is reproducible, honest about its geometry, and anatomically in order."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medfewshot.datasets import read_dataset
from medfewshot.inspection import inspect
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.synthetic import CT_LABELS, make_blob_volume, make_ct_cohort
from medfewshot.synthetic.cohort import make_ct_case

SMALL = {"shape": (64, 56, 40), "spacing_mm": 6.0}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_ct_cohort(tmp_path_factory.mktemp("cohort"), 6, seed=1, **SMALL)


def test_cohort_is_a_decathlon_dataset(cohort):
    dataset = read_dataset(cohort)
    assert dataset.modality == "CT"
    assert dict(dataset.labels) == CT_LABELS
    assert len(dataset.labelled) == 6


def test_cohort_passes_inspection(cohort):
    inspection = inspect(read_dataset(cohort))
    assert inspection.errors == ()
    assert inspection.summary["usable_supports"] == 6
    assert not any("changed sides" in problem.text for problem in inspection.problems)
    assert len({case.orientation for case in inspection.cases}) > 2
    assert len({case.shape for case in inspection.cases}) > 2


def test_image_and_label_share_a_grid(cohort):
    for case in read_dataset(cohort).cases:
        check_same_grid(read_image(case.image_path), read_label(case.label_path))


@pytest.mark.parametrize("index", range(4))
def test_anatomy_is_in_order(index):
    image, label, affine = make_ct_case(index, 3, **SMALL)
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    centres = {
        value: affine[:3, :3] @ ndimage.center_of_mass(label == value) + affine[:3, 3]
        for value in CT_LABELS
        if (label == value).any()
    }
    volume = {value: (label == value).sum() * ml for value in CT_LABELS}
    medians = {value: np.median(image[label == value]) for value in centres}
    assert centres[1][0] > 30  # liver to the right
    assert centres[2][0] > 30 > -30 > centres[3][0]  # right and left kidney
    assert centres[4][0] < -50  # spleen to the left
    assert 500 < volume[1] < 2500
    assert all(60 < volume[value] < 400 for value in (2, 3, 4))
    assert 80 < medians[1] < 150
    assert medians[2] > medians[1] + 20
    assert (5 in centres) == (index % 5 != 2)
    if 5 in centres:  # a lesion is large and dark enough to be found with three examples
        assert medians[5] < medians[1] - 40
        assert volume[5] > 4
    assert np.median(image[image < -500]) < -850
    assert image.max() > 350


def test_a_case_depends_on_seed_and_index_only(cohort):
    image, label, affine = make_ct_case(4, 1, **SMALL)
    saved = nib.load(cohort / "imagesTr" / "case_004.nii.gz")
    assert np.array_equal(np.asanyarray(saved.dataobj), image)
    assert np.allclose(saved.affine, affine, atol=1e-4)
    assert make_ct_case(4, 2, **SMALL)[0].sum() != image.sum()
    assert set(np.unique(label)) <= {0, *CT_LABELS}


@pytest.mark.parametrize(("shape", "labels"), [((24, 24, 24), 2), ((24, 20), 3), ((24, 24, 24), 4), ((9, 9, 9), 1)])
def test_blobs(shape, labels):
    for seed in range(20):
        image, label = make_blob_volume(np.random.default_rng(seed), shape, labels)
        assert image.shape == (1, *shape)
        assert image.dtype == np.float32
        assert label.shape == shape
        assert set(np.unique(label)) == set(range(labels + 1))
        assert ndimage.label(label)[1] == labels
        assert image[0][label == labels].mean() > image[0][label == 0].mean() + 1


def test_blobs_need_room():
    with pytest.raises(ValueError, match="no room"):
        make_blob_volume(np.random.default_rng(0), (12, 12), 4)
