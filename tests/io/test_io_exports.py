"""Every format that is written on request returns the same voxels and names, and states colours and coded terms."""

from __future__ import annotations

import sys
from pathlib import Path

import corpus_dicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import OBLIQUE, affine_of, itk_points, points_of, ramp, rotation, write_nifti, write_picture
from pydicom.dataset import Dataset

from medfewshot.io import EXPORTS, in_frame_of, read_image, read_label
from medfewshot.io.terminology import Term, side_of, term_of

NAMES = {205: "left kidney", 420: "Something New", 3: "missing"}
COLOURS = {205: (1.0, 0.0, 0.2), 420: (0.0, 0.6, 1.0)}
SHAPE = (8, 7, 6)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(-3.1, 3.1)] * 3), st.tuples(*[st.floats(0.5, 5.0)] * 3))
def test_a_slicer_segmentation_of_any_scan_returns(
    tmp_path_factory: pytest.TempPathFactory, seed: int, angles: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    folder = tmp_path_factory.mktemp("slicer")
    volume = read_image(write_nifti(folder / "a.nii", ramp(SHAPE), affine_of(rotation(angles), spacing)))
    labels = np.random.default_rng(seed).choice([0, 0, 205, 420], SHAPE)
    file = folder / EXPORTS["seg_nrrd"].file_of("a")
    assert EXPORTS["seg_nrrd"].write(file, labels, NAMES, volume, COLOURS) == ()
    found = in_frame_of(volume, read_label(file))
    assert np.array_equal(found.data[0], labels)
    assert found.names == dict(sorted(NAMES.items()))
    np.testing.assert_allclose(itk_points(file), points_of(volume.affine, SHAPE), atol=1e-3)


def test_a_slicer_segmentation_states_colours_and_terms(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii", ramp(SHAPE)))
    EXPORTS["seg_nrrd"].write(tmp_path / "a.seg.nrrd", np.zeros(SHAPE, np.uint8), NAMES, volume, COLOURS)
    image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "left kidney"
    assert image.GetMetaData("Segment0_Color") == "1 0 0.2"
    assert image.GetMetaData("Segment0_LabelValue") == "205"
    assert "~SCT^64033007^Kidney~SCT^7771000^Left~" in image.GetMetaData("Segment0_Tags")
    assert "~99MEDFEWSHOT^420^Something New~^^~" in image.GetMetaData("Segment1_Tags")
    assert not image.HasMetaDataKey("Segment2_Color")


@pytest.mark.parametrize("name", EXPORTS)
def test_all_formats_agree(tmp_path: Path, name: str) -> None:
    export, volume = EXPORTS[name], read_image(corpus_dicom.series(tmp_path))
    labels = np.random.default_rng(0).choice([0, 205, 420], volume.spatial_shape)
    assert export.refusal(volume) is None
    export.write(tmp_path / "out" / export.file_of("a"), labels, NAMES, volume, COLOURS)
    found = in_frame_of(volume, read_label(tmp_path / "out" / export.file_of("a"), image=volume))
    assert np.array_equal(found.data[0], labels)
    assert found.names == dict(sorted(NAMES.items()))
    for value, colour in COLOURS.items():
        assert found.colours[value] == pytest.approx(colour, abs=0.01)


LONG = "clinical target volume " * 3
ODD_NAMES = {
    "accents": {1: "wątroba", 2: "Leber"},
    "other scripts": {1: "肝臓", 2: "腎臓"},
    "backslash": {1: "L/R \\ duct", 2: "L/R / duct"},
    "long": {1: LONG + "primary", 2: LONG + "nodes"},
}


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "", None])
@pytest.mark.parametrize("kind", ODD_NAMES)
@pytest.mark.parametrize("name", ["dicom_seg", "rtstruct"])
def test_dicom_keeps_names_apart_and_the_patient(tmp_path: Path, name: str, kind: str, charset: str | None) -> None:
    patient = "Müller^Anna" if charset else "Miller^Anna"
    other = Dataset()
    other.PatientID = patient
    tags: dict[str, object] = {"PatientName": patient, "StudyDescription": patient, "OtherPatientIDsSequence": [other]}
    tags |= {"SpecificCharacterSet": charset} if charset is not None else {}
    volume, names = read_image(corpus_dicom.series(tmp_path, data=ramp(SHAPE), **tags)), ODD_NAMES[kind]
    EXPORTS[name].write(tmp_path / "a.dcm", ramp(SHAPE) % 3, names, volume, {})
    found = read_label(tmp_path / "a.dcm", image=volume).names
    if kind in ("accents", "other scripts"):
        assert found == names
    else:
        assert found[1] == names[1].replace("\\", "/")[:64]
        assert found[2] == f"{found[1][:58]} 2"
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.PatientName == patient
    assert dataset.get("StudyDescription", patient) == patient
    assert dataset.get("OtherPatientIDsSequence", [other])[0].PatientID == patient


@pytest.mark.parametrize("name", EXPORTS)
def test_what_cannot_be_written_has_a_reason(tmp_path: Path, name: str) -> None:
    picture = read_image(write_picture(tmp_path / "a.png", ramp((4, 5)).astype(np.uint8)))
    assert EXPORTS[name].refusal(picture)
    scan = read_image(write_nifti(tmp_path / "a.nii", ramp(SHAPE), OBLIQUE))
    assert bool(EXPORTS[name].refusal(scan)) == EXPORTS[name].needs_series


@pytest.mark.parametrize(
    ("name", "term", "side"),
    [
        ("Liver", "10200004", None),
        ("kidney_right", "64033007", "Right"),
        ("l adrenal gland", "23451007", "Left"),
        ("Something New", "7", None),
    ],
)
def test_terms(name: str, term: str, side: str | None) -> None:
    assert term_of(7, name).value == term
    found = side_of(name)
    assert (found.meaning if isinstance(found, Term) else None) == side


def test_slicer_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii", ramp(SHAPE)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    EXPORTS["seg_nrrd"].check_available()
    EXPORTS["seg_nrrd"].write(tmp_path / "a.seg.nrrd", np.ones(SHAPE, np.uint8), {1: "liver"}, volume, {})
    assert read_label(tmp_path / "a.seg.nrrd").names == {1: "liver"}
