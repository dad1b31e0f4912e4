"""Several acquisitions in one DICOM series: refused with what tells them apart, or read with a warning."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from io_samples import OBLIQUE, place, ramp, write_dicom

from medfewshot.errors import InputError
from medfewshot.io import read_image


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("0020|0100", r"they differ in temporal position: 1 \(6 slices\), 2 \(6 slices\)"),
        ("0018|0081", r"they differ in echo time: 1 \(6 slices\), 2 \(6 slices\)"),
        ("0010|4000", "several time points, echoes or b-values"),
    ],
    ids=["time points", "echoes", "nothing stated"],
)
def test_several_volumes_in_one_series(tmp_path: Path, tag: str, reason: str) -> None:
    for number in (1, 2):
        names = [f"{number}{i}.dcm" for i in range(6)]
        write_dicom(tmp_path / "dce", data=ramp() + np.int16(number), names=names, tags={tag: str(number)})
    with pytest.raises(InputError, match=f"dce: 12 slices lie at only 6 positions .{reason}"):
        read_image(tmp_path / "dce")


def test_a_slice_sent_twice_is_read_once(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    shutil.copy(tmp_path / "002.dcm", tmp_path / "again.dcm")
    volume = read_image(tmp_path)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ("1 slice(s) were sent twice and are read once: again.dcm as 002.dcm",)


@pytest.mark.parametrize(
    "tag",
    ["0018|0081", "0018|1210", "0020|0012", "0020|0052"],
    ids=["echo time", "kernel", "acquisition number", "frame of reference"],
)
def test_two_acquisitions_between_each_other_are_refused(tmp_path: Path, tag: str) -> None:
    for number, shift in ((1, 0.0), (2, 0.5)):
        for index in range(4):
            tags = {**place(OBLIQUE, index + shift), tag: str(number)}
            write_dicom(tmp_path / "ct", keep=[index], names=[f"{number}{index}.dcm"], tags=tags)
    with pytest.raises(InputError, match=r"ct: the series mixes 2 acquisitions.*1 \(4 slices\), 2 \(4 slices\)"):
        read_image(tmp_path / "ct")


@pytest.mark.parametrize("tag", ["0018|0081", "0018|1210", "0018|9087"], ids=["echo time", "kernel", "b-value"])
@pytest.mark.parametrize("values", [[1, 1, 1, 2, 1, 1], [1, 2]], ids=["one slice", "two slices"])
def test_one_slice_of_another_acquisition_is_refused(tmp_path: Path, tag: str, values: list[int]) -> None:
    for index, value in enumerate(values):
        write_dicom(tmp_path, keep=[index], names=[f"{index}.dcm"], tags={tag: str(value)})
    with pytest.raises(InputError, match=r"the series mixes 2 acquisitions, which differ in .*, 2 \(1 slice\)"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("0018|1210", ["B30", "B30", "B30", "", "B30", "B30"]),
        ("0018|0081", ["2.5", "2.50", "2.5", "2.5", "2.5", "2.5"]),
        ("0020|0100", list("123456")),
        ("0020|0052", [f"1.2.3.{index}" for index in range(6)]),
    ],
    ids=["missing once", "written in two ways", "counted slices", "new identifiers"],
)
def test_harmless_differences_are_read(tmp_path: Path, tag: str, values: list[str]) -> None:
    for index, value in enumerate(values):
        write_dicom(tmp_path, keep=[index], names=[f"{index}.dcm"], tags={tag: value})
    volume = read_image(tmp_path)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ()


def test_acquisitions_one_above_the_other_are_one_volume_with_a_warning(tmp_path: Path) -> None:
    for index in range(6):
        write_dicom(tmp_path, keep=[index], names=[f"{index}.dcm"], tags={"0020|0012": str(index // 3)})
    volume = read_image(tmp_path)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ("its slices come from 2 acquisitions (0 (3 slices), 1 (3 slices)), read as one volume",)
