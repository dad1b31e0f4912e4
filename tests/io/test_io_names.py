"""Segments of 3D Slicer are matched by name, whatever value each file gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from medfewshot.errors import InputError
from medfewshot.evaluation import evaluate_pairs
from medfewshot.io import match_names, read_label
from medfewshot.types import Volume
from medfewshot.workflow.supports import read_supports

NAMES = ("liver", "spleen", "cyst")
TRUTH = np.arange(4, dtype=np.uint8).repeat(9).reshape(4, 3, 3)
"""1 liver, 2 spleen, 3 cyst."""


def volume(values: tuple[int, ...], names: bool = True) -> Volume:
    """The truth with other values."""
    named = dict(zip(values, NAMES, strict=True)) if names else {}
    return Volume(np.array([0, *values])[TRUTH][None].astype(np.int16), np.eye(4), names=named)


def write(path: Path, values: tuple[int, ...]) -> Path:
    image = sitk.GetImageFromArray(volume(values).data[0].T.astype(np.uint8))
    for number, (value, name) in enumerate(zip(values, NAMES, strict=True)):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
    sitk.WriteImage(image, str(path))
    return path


@given(st.lists(st.permutations(range(1, 6)).map(lambda values: tuple(values[:3])), min_size=1, max_size=4))
def test_each_name_has_one_value(numberings: list[tuple[int, ...]]) -> None:
    for label in match_names([volume(values) for values in numberings]):
        assert np.array_equal(label.data, volume(numberings[0]).data)
        assert label.names == volume(numberings[0]).names


def test_supports_of_slicer(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.seg.nrrd", (1, 2, 3)), write(tmp_path / "b.seg.nrrd", (2, 1, 3))
    assert read_label(second).names == {1: "spleen", 2: "liver", 3: "cyst"}
    scan = Volume(np.zeros((1, *TRUTH.shape), np.float32), read_label(first).affine)
    scans = read_supports([(scan, first), (scan, second)])
    assert [np.array_equal(label.data[0], TRUTH) for label in scans.labels] == [True, True]
    assert scans.names == {1: "liver", 2: "spleen", 3: "cyst"}


def test_a_structure_that_the_others_lack_gets_a_value_of_its_own() -> None:
    other = Volume(volume((1, 2, 3)).data, np.eye(4), names={1: "kidney", 2: "spleen", 3: "cyst"})
    matched = match_names([volume((1, 2, 3)), other])[1]
    assert matched.names == {4: "kidney", 2: "spleen", 3: "cyst"}
    assert np.array_equal(matched.data[0], np.array([0, 4, 2, 3])[TRUTH])


def test_contradictions_name_both() -> None:
    with pytest.raises(InputError, match="label 2 is 'liver', but it is 'spleen' in the data set"):
        match_names([volume((2, 1, 3))], {1: "liver", 2: "spleen", 3: "cyst"})
    with pytest.raises(InputError, match="label 2 is 'liver', but it is without a name in array"):
        match_names([volume((1, 2, 3)), volume((2, 1, 3)), volume((1, 2, 3), names=False)])


def test_evaluation_matches_and_refuses(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.seg.nrrd", (1, 2, 3)), write(tmp_path / "b.seg.nrrd", (2, 1, 3))
    assert [score.values["dice"] for score in evaluate_pairs([("x", second, first)]).scores] == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match=r"b\.seg\.nrrd: label 1 is 'spleen', but 'liver' in .*a\.seg\.nrrd"):
        evaluate_pairs([("x", first, first), ("y", second, second)])
