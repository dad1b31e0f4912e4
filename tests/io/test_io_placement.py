"""A label on the grid of its image with other axes is turned, without loss."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from io_samples import OBLIQUE, ramp, signed_permutations, write_nifti

from medfewshot.errors import GridMismatchError
from medfewshot.evaluation import evaluate_pairs
from medfewshot.io import in_frame_of, read_label
from medfewshot.types import Volume

DATA = ramp((4, 5, 6)) % 5


def turned(axes: np.ndarray) -> nib.Nifti1Image:
    """The same label with its voxel axes in another order and direction."""
    image = nib.Nifti1Image(DATA.astype(np.int16), OBLIQUE)
    orientation = np.stack([np.abs(axes).argmax(axis=0), axes.sum(axis=0)], axis=1)
    return image.as_reoriented(orientation)


@pytest.mark.parametrize("axes", signed_permutations(), ids=str)
def test_flipped_and_swapped_axes_are_turned_back(axes: np.ndarray) -> None:
    other = turned(axes)
    label = Volume(np.asarray(other.dataobj)[None], other.affine)
    found = in_frame_of(Volume(DATA[None].astype(np.float32), OBLIQUE), label)
    assert np.array_equal(found.data[0], DATA)
    assert np.array_equal(found.affine, OBLIQUE)


def test_another_place_or_spacing_is_still_refused() -> None:
    image = Volume(DATA[None].astype(np.float32), OBLIQUE)
    moved, coarse = OBLIQUE.copy(), OBLIQUE @ np.diag([2.0, 1, 1, 1])
    moved[:3, 3] += OBLIQUE[:3, 0]
    for affine in (moved, coarse, OBLIQUE @ np.diag([-1.0, 1, 1, 1])):
        with pytest.raises(GridMismatchError, match="different grids"):
            in_frame_of(image, Volume(DATA[None], affine))


def test_a_planar_label_is_turned_too() -> None:
    image = Volume(DATA[None, :, :, 0].astype(np.float32), np.diag([2.0, 3, 1, 1]))
    flipped = np.array([[-2.0, 0, 0, 6], [0, 3, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    found = in_frame_of(image, Volume(DATA[None, ::-1, :, 0], flipped))
    assert np.array_equal(found.data[0], DATA[:, :, 0])


def test_evaluation_turns_the_prediction(tmp_path: Path) -> None:
    reference = write_nifti(tmp_path / "r.nii.gz", DATA.astype(np.int16))
    nib.save(turned(signed_permutations()[13]), tmp_path / "p.nii.gz")
    assert {score.dice for score in evaluate_pairs([("x", tmp_path / "p.nii.gz", reference)]).scores} == {1.0}
    assert read_label(reference).spatial_shape != read_label(tmp_path / "p.nii.gz").spatial_shape
