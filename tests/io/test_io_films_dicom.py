"""Films as DICOM: time points of a series, enhanced objects with temporal positions, ultrasound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import OBLIQUE, ramp, write_dicom
from test_io_dicom_frames import write_enhanced

from medfewshot.errors import InputError
from medfewshot.io import open_film, write_label_film


def write_cine(
    folder: Path, times: tuple[str, ...], tag: str = "0018|1060", skip: tuple[int, int] | None = None
) -> Path:
    """Write one file per slice and time point, the names in no useful order; every time point adds 1 to the ramp."""
    for number, time in enumerate(times):
        keep = [index for index in range(6) if (number, index) != skip]
        names = [f"{index}{len(times) - number}.dcm" for index in keep]
        write_dicom(folder, data=ramp() + np.int16(number), keep=keep, names=names, tags={tag: time})
    return folder


@pytest.mark.parametrize("tag", ["0018|1060", "0020|0100"], ids=["trigger time", "temporal position"])
def test_time_points_of_a_series_are_frames(tmp_path, tag):
    film = open_film(write_cine(tmp_path / "cine", ("5", "100", "12.5"), tag))
    values = [volume.data[0] - ramp() for volume in film.frames()]
    assert [(value.min(), value.max()) for value in values] == [(0, 0), (2, 2), (1, 1)]
    np.testing.assert_allclose(film.first.affine, OBLIQUE, atol=1e-5)
    assert film.times_s == pytest.approx((0, 0.0075, 0.095) if tag == "0018|1060" else ())
    write_label_film(tmp_path / "labels.nii.gz", np.zeros((3, 4, 5, 6), np.uint8), film.first)
    written = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    assert written.GetSize() == (4, 5, 6, 3)
    assert written.GetSpacing()[3] == pytest.approx(0.0075 if film.times_s else 1)


def test_a_gated_series_with_a_missing_phase_is_refused(tmp_path):
    with pytest.raises(InputError, match="1 of 6 slice positions lack time points: they have 1 or more of 2"):
        open_film(write_cine(tmp_path, ("5", "100"), skip=(1, 3)))


def test_echoes_are_no_time_points(tmp_path):
    for number, echo in enumerate(("1", "2")):
        names = [f"{number}{i}.dcm" for i in range(6)]
        write_dicom(tmp_path, names=names, tags={"0018|0081": echo, "0018|1060": echo})
    assert open_film(tmp_path) is None


def test_temporal_positions_of_an_enhanced_object_are_frames(tmp_path):
    film = open_film(write_enhanced(tmp_path / "a.dcm", repeats=2))
    assert [float(volume.data[0, 1, 1, 1] - ramp()[1, 1, 1]) for volume in film.frames()] == [0, 1]
    np.testing.assert_allclose(film.first.affine, OBLIQUE, atol=1e-4)


def test_ultrasound_is_a_film_in_2d(tmp_path):
    data = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(3, 4, 5)  # frames, rows, columns
    image = sitk.GetImageFromArray(data)
    for tag, value in {
        "0008|0016": "1.2.840.10008.5.1.4.1.1.3.1", "0008|0060": "US", "0018|1063": "25", "0020|000e": "1.2.3",
    }.items():  # fmt: skip
        image.SetMetaData(tag, value)
    sitk.WriteImage(image, str(tmp_path / "us.dcm"))
    film = open_film(tmp_path / "us.dcm")
    assert film.count == 3
    assert np.array_equal(film.frame(2).data[0], data[2].T)
    assert film.times_s == pytest.approx((0, 0.025, 0.05))
