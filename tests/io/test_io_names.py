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


def named(names: dict[int, str]) -> Volume:
    """The truth, of which some values have names."""
    return Volume(TRUTH[None].astype(np.int16), np.eye(4), names=names)


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
    with pytest.raises(InputError, match="label 2 is 'liver', but 'spleen' in the data set"):
        match_names([volume((2, 1, 3))], {1: "liver", 2: "spleen", 3: "cyst"})
    with pytest.raises(InputError, match="label 2 is 'liver', but 'spleen' in array, and array has no names"):
        match_names([volume((1, 2, 3)), volume((2, 1, 3)), volume((1, 2, 3), names=False)])
    with pytest.raises(InputError, match="label 2 is 'cyst', but 'spleen' in the data set"):
        match_names([named({1: "liver", 2: "cyst"})], {1: "liver", 2: "spleen"})


def test_a_value_without_a_name_never_joins_a_named_structure_of_another_file() -> None:
    """A new value for a name avoids the values without names, and a value that another file names is an error."""
    first, second = named({1: "liver"}), named({1: "spleen"})
    assert match_names([first, second])[1].names == {4: "spleen"}, "2 and 3 are in the first file, without a name"
    assert set(np.unique(match_names([first, second])[1].data)) == {0, 2, 3, 4}
    for files in ([named({1: "liver"}), named({3: "cyst"})], [named({3: "cyst"}), named({1: "liver"})]):
        with pytest.raises(InputError, match="has no name, and"):
            match_names(files)


def test_a_file_without_names_is_told_that_its_values_are_those_of_a_named_one() -> None:
    plain, other = match_names([volume((1, 2, 3), names=False), volume((1, 2, 3))])
    assert plain.warnings == (
        "has no names; its values are taken to be those of array: 1 'liver', 2 'spleen', 3 'cyst'",
    )
    assert other.warnings == ()
    assert match_names([volume((1, 2, 3), names=False)], dict(enumerate(NAMES, 1)))[0].warnings == ()


def test_evaluation_matches_by_name(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.seg.nrrd", (1, 2, 3)), write(tmp_path / "b.seg.nrrd", (2, 1, 3))
    evaluation = evaluate_pairs([("x", second, first), ("y", first, second), ("z", second, second)])
    assert [(score.label_name, score.values["dice"]) for score in evaluation.scores] == [(n, 1.0) for n in NAMES] * 3


def test_evaluation_by_value_is_warned_of_and_by_the_names_of_a_run_is_right(tmp_path: Path) -> None:
    reference, plain = write(tmp_path / "b.seg.nrrd", (2, 1, 3)), tmp_path / "p.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(volume((1, 2, 3)).data[0].T.astype(np.uint8)), str(plain))
    (warning,) = evaluate_pairs([("x", plain, reference)]).warnings
    assert "p.nrrd: has no names" in warning
    assert "1 'spleen', 2 'liver', 3 'cyst'" in warning
    names = dict(enumerate(NAMES, 1))
    told = evaluate_pairs([("x", plain, reference)], names=names)
    assert ([score.dice for score in told.scores], told.warnings) == ([1.0] * 3, ())
    with pytest.raises(InputError, match=r"label 1 is 'spleen', but 'liver' in the data set, and .* has no names"):
        evaluate_pairs([("x", reference, reference), ("y", plain, reference)], reference_names=names)
    with pytest.raises(InputError, match="label 2 is 'liver', but 'kidney' in the run"):
        evaluate_pairs([("x", plain, reference)], names={2: "kidney"})


def test_the_data_set_and_the_run_are_matched_by_name(tmp_path: Path) -> None:
    names, swapped = {1: "liver", 2: "spleen", 3: "cyst"}, {1: "spleen", 2: "liver", 3: "cyst"}
    files = {name: tmp_path / f"{name}.nrrd" for name in ("run", "set")}
    for name, values in (("run", (1, 2, 3)), ("set", (2, 1, 3))):
        sitk.WriteImage(sitk.GetImageFromArray(volume(values).data[0].T.astype(np.uint8)), str(files[name]))
    pair = ("x", files["run"], files["set"])
    assert [score.dice for score in evaluate_pairs([pair], names=names, reference_names=swapped).scores] == [1.0] * 3
    assert [score.dice for score in evaluate_pairs([pair], names=names, reference_names=names).scores] == [0, 0, 1]
