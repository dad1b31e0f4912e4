"""DICOM segmentations: ours, read back by pydicom frame for frame, by highdicom and by us; and those of others."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the extra dicom is not installed")

import corpus_dicom
import highdicom as hd
import nibabel as nib
import pydicom
import toys
from test_io_dicom_frames import write_enhanced

from medfewshot.cli import main
from medfewshot.errors import InputError
from medfewshot.io import (
    files_without_image,
    find_images,
    in_frame_of,
    looks_like_label,
    read_image,
    read_label,
    volumes_in,
)
from medfewshot.io.dicom_seg_writer import write_dicom_seg
from medfewshot.io.terminology import check_available
from medfewshot.types import Volume

NAMES = {205: "left kidney", 420: "Something New"}
COLOURS = {205: (1.0, 0.5, 0.0)}


def labels_for(shape: tuple[int, ...]) -> np.ndarray:
    """Two boxes at different depths, unlike along every axis."""
    labels = np.zeros(shape, np.int32)
    labels[2:7, 3:5, 1:4] = 205
    labels[9:13, 8:14, 3:9] = 420
    return labels


def read_back(path: Path, folder: Path) -> np.ndarray:
    """``(X, Y, Z, segment)``, placed by the position of each frame: only pydicom and the standard are trusted."""
    segmentation = pydicom.dcmread(path)
    files = [pydicom.dcmread(file) for file in folder.iterdir() if file.suffix == ".dcm"]
    places = sorted(tuple(round(float(v), 3) for v in file.ImagePositionPatient) for file in files)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    found = np.zeros((segmentation.Columns, segmentation.Rows, len(places), len(segmentation.SegmentSequence)), bool)
    for frame, about in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = tuple(round(float(v), 3) for v in about.PlanePositionSequence[0].ImagePositionPatient)
        segment = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[:, :, places.index(place), segment - 1] = frame.T
    return found


def test_the_same_voxels_come_back(tmp_path):
    folder = corpus_dicom.series(tmp_path)
    volume = read_image(folder)
    labels = labels_for(volume.spatial_shape)
    assert write_dicom_seg(tmp_path / "out" / "seg.dcm", labels, NAMES, volume, COLOURS) == ()
    found = read_back(tmp_path / "out" / "seg.dcm", folder)
    for index, value in enumerate(NAMES):
        assert np.array_equal(found[..., index], labels == value)


def test_it_refers_to_its_source_and_says_what_it_holds(tmp_path):
    folder = corpus_dicom.series(tmp_path, keep=[3, 1, 0, 2, 4, 5])
    volume = read_image(folder)
    labels = labels_for(volume.spatial_shape)
    write_dicom_seg(tmp_path / "seg.dcm", labels, NAMES, volume, COLOURS)
    segmentation = hd.seg.segread(tmp_path / "seg.dcm")
    source = pydicom.dcmread(folder / "000.dcm")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert segmentation[name].value == source[name].value
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    first, second = segmentation.SegmentSequence
    assert (first.SegmentLabel, second.SegmentLabel) == ("left kidney", "Something New")
    assert first.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99MEDFEWSHOT"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    uids = [pydicom.dcmread(folder / f"{n:03}.dcm").SOPInstanceUID for n in range(6)]
    pixels = segmentation.get_pixels_by_source_instance(uids, ignore_spatial_locations=False, combine_segments=True)
    order = [2, 1, 3, 0, 4, 5]  # place in the volume -> file
    for place, file in enumerate(order):
        expected = np.select([labels[:, :, place] == 205, labels[:, :, place] == 420], [1, 2], 0).T
        assert np.array_equal(pixels[file], expected)


def test_nothing_found_is_still_an_object(tmp_path):
    volume = read_image(corpus_dicom.series(tmp_path))
    write_dicom_seg(tmp_path / "seg.dcm", np.zeros(volume.spatial_shape, np.uint8), NAMES, volume, COLOURS)
    assert not read_back(tmp_path / "seg.dcm", tmp_path / "odd").any()


@pytest.mark.parametrize(
    "changes",
    [
        {"SOPInstanceUID": "", "StudyInstanceUID": "", "FrameOfReferenceUID": ""},
        {"SOPClassUID": ""},
        {"PatientName": None, "PatientID": None, "PatientBirthDate": None, "PatientSex": None, "StudyDate": None},
        {"SeriesNumber": None},
    ],
)
def test_an_anonymised_source(tmp_path, changes):
    folder = corpus_dicom.series(tmp_path, **changes)
    volume = read_image(folder)
    labels = labels_for(volume.spatial_shape)
    told = write_dicom_seg(tmp_path / "seg.dcm", labels, NAMES, volume, COLOURS)
    assert bool(told) == any("UID" in name for name in changes)
    assert all(name in told[0] for name in changes if "UID" in name)
    assert np.array_equal(read_back(tmp_path / "seg.dcm", folder)[..., 0], labels == 205)


@pytest.mark.parametrize(
    "changes",
    [
        {"SliceThickness": None},
        {"SliceThickness": ""},
        {"PixelSpacing": None, "ImagerPixelSpacing": [1.5, 1.25]},
        {"PatientSex": "male", "StudyDate": "2020-01-01", "StudyTime": "12:30:11", "PatientBirthDate": "00000000"},
    ],
    ids=["no thickness", "empty thickness", "spacing of the detector", "forms that are not valid"],
)
def test_headers_that_the_standard_forbids(tmp_path, changes):
    volume = read_image(corpus_dicom.series(tmp_path, **changes))
    labels = labels_for(volume.spatial_shape)
    warnings = write_dicom_seg(tmp_path / "seg.dcm", labels, NAMES, volume, {})
    assert np.array_equal(in_image(read_label(tmp_path / "seg.dcm"), volume), labels)
    odd = "PatientBirthDate, PatientSex, StudyDate, StudyTime not valid, so left out"
    assert [odd in text for text in warnings] == ([True] if "PatientSex" in changes else [])


def test_orientations_that_differ_by_rounding(tmp_path):
    for index, plane in enumerate(np.moveaxis(corpus_dicom.scan(), 2, 0)):
        turned = [1, 0, 1e-6 * index, 0, 1, 0]
        corpus_dicom.save(
            corpus_dicom.one_slice(plane, index, ImageOrientationPatient=turned), tmp_path / "odd" / f"{index}.dcm"
        )
    volume = read_image(tmp_path / "odd")
    labels = labels_for(volume.spatial_shape)
    assert write_dicom_seg(tmp_path / "seg.dcm", labels, NAMES, volume, {}) == ()
    assert np.array_equal(in_image(read_label(tmp_path / "seg.dcm"), volume), labels)


def test_without_the_extra(tmp_path, monkeypatch):
    volume = read_image(corpus_dicom.series(tmp_path))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install contourpy highdicom pydicom"):
        check_available("dicom_seg")
    with pytest.raises(InputError, match=r"pip install contourpy highdicom pydicom"):
        write_dicom_seg(tmp_path / "seg.dcm", labels_for(volume.spatial_shape), NAMES, volume, COLOURS)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    toys.install(monkeypatch)
    toys.make_folders(tmp_path, queries=1)
    folder = corpus_dicom.series(tmp_path / "cohort")
    words = ["segment", "cohort", "--support-dir", "annotated", "--learner", "toy", "-o", "out", "--no-previews"]
    monkeypatch.setattr("sys.argv", ["medfewshot", *words, "--dicom-seg", "--rtstruct", "--seg-nrrd"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert stop.value.code == 0, told
    assert "q0.nii.gz: is no folder with a DICOM series" in told
    volume = read_image(folder)
    labels = np.asanyarray(nib.load(tmp_path / "out" / "odd.nii.gz").dataobj)
    found = read_back(tmp_path / "out" / "dicom_seg" / "odd.dcm", folder)
    assert labels.any()
    for index, value in enumerate(toys.VALUES):
        assert np.array_equal(found[..., index], labels == value)
    for name in ("rtstruct/odd.dcm", "seg_nrrd/odd.seg.nrrd"):
        assert np.array_equal(read_label(tmp_path / "out" / name, image=volume).data[0], labels)
    assert np.array_equal(
        read_label(tmp_path / "out" / "seg_nrrd" / "q0.seg.nrrd").data[0],
        np.asanyarray(nib.load(tmp_path / "out" / "q0.nii.gz").dataobj),
    )


@pytest.mark.real
@pytest.mark.parametrize("name", ["t1post", "t2reg"])
def test_a_real_oblique_series(data_root, tmp_path, name):
    folder = data_root / "dicom" / name
    if not folder.is_dir():
        pytest.skip(f"dicom/{name} is not among the real scans")
    volume = read_image(folder)
    labels = np.zeros(volume.spatial_shape, np.uint8)
    labels[40:90, 100:180, 5:9] = 1
    write_dicom_seg(tmp_path / "seg.dcm", labels, {1: "brain"}, volume, {})
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    frames = segmentation.pixel_array
    assert frames.sum() == labels.sum()
    lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    for frame, about in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array([float(v) for v in about.PlanePositionSequence[0].ImagePositionPatient])
        z = round(float(np.linalg.solve(lps[:3, :3], place - lps[:3, 3])[2]))
        assert np.array_equal(frame.T, labels[:, :, z])


def foreign(path: Path, folder: Path, masks: np.ndarray, names: list[str], kind: str = "BINARY") -> Path:
    """As another program writes it: ``masks (X, Y, Z, segment)`` on a series of files in the order of their slices."""
    images = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    segments = [
        hd.seg.SegmentDescription(
            number, name, pydicom.sr.codedict.codes.SCT.Tissue, pydicom.sr.codedict.codes.SCT.Tissue, "MANUAL"
        )
        for number, name in enumerate(names, start=1)
    ]
    pixels = np.moveaxis(masks, (0, 1, 2), (2, 1, 0))
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, len(names) + 1)).max(axis=-1)
    pixels = pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    about = (hd.UID(), 7, hd.UID(), 1, "other", "other", "1", "none")
    hd.seg.Segmentation(images, pixels, kind, segments, *about).save_as(path)
    return path


def boxes(shape: tuple[int, ...]) -> np.ndarray:
    labels = labels_for(shape)
    return np.stack([labels == 205, labels == 420], axis=-1).astype(np.float32)


def in_image(label: Volume, image: Volume) -> np.ndarray:
    """The label map ``(X, Y, Z)`` on the grid of its image, placed by its affine alone."""
    start = np.linalg.solve(image.affine[:3, :3], label.affine[:3, 3] - image.affine[:3, 3])
    assert np.allclose(start, np.rint(start), atol=1e-4)
    assert np.allclose(label.affine[:3, :3], image.affine[:3, :3], atol=1e-6)
    result = np.zeros(image.spatial_shape, int)
    result[tuple(slice(a, a + n) for a, n in zip(np.rint(start).astype(int), label.spatial_shape, strict=True))] = (
        label.data
    )
    return result


def test_our_own_is_read_with_its_values_names_and_colours(tmp_path):
    volume = read_image(corpus_dicom.series(tmp_path, keep=[3, 1, 0, 2, 4, 5, 6, 7, 8, 9]))
    labels = labels_for(volume.spatial_shape)
    write_dicom_seg(tmp_path / "seg.dcm", labels, NAMES, volume, COLOURS)
    found = read_label(tmp_path / "seg.dcm")
    assert np.array_equal(in_image(found, volume), labels)
    assert found.names == NAMES
    assert found.colours[205] == pytest.approx(COLOURS[205], abs=0.01)


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared groups", "frame by frame"])
def test_a_multi_frame_source(tmp_path, is_shared):
    volume = read_image(write_enhanced(tmp_path / "a.dcm", order=[3, 1, 0, 2, 5, 4], is_shared=is_shared))
    labels = np.zeros(volume.spatial_shape, np.uint8)
    labels[1:3, 2:4, 1:3], labels[0, 0, 4] = 5, 9
    write_dicom_seg(tmp_path / "seg.dcm", labels, {5: "liver", 9: "spleen"}, volume, {})
    assert np.array_equal(in_image(read_label(tmp_path / "seg.dcm"), volume), labels)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_another_program_numbers_its_segments(tmp_path, kind):
    folder = corpus_dicom.series(tmp_path)
    volume = read_image(folder)
    found = read_label(foreign(tmp_path / "other", folder, boxes(volume.spatial_shape), ["Liver", "GTV"], kind))
    expected = np.select([labels_for(volume.spatial_shape) == value for value in (205, 420)], [1, 2], 0)
    assert np.array_equal(in_image(found, volume), expected)
    assert found.names == {1: "Liver", 2: "GTV"}


def test_a_foreign_one_is_refused(tmp_path):
    folder = corpus_dicom.series(tmp_path)
    masks = boxes(read_image(folder).spatial_shape)
    with pytest.raises(InputError, match=r"same\.dcm: two of its segments are named 'gtv'"):
        read_label(foreign(tmp_path / "same.dcm", folder, masks, ["GTV", "gtv"]))
    with pytest.raises(InputError, match=r"half\.dcm: segment 1 has fractions"):
        read_label(foreign(tmp_path / "half.dcm", folder, masks / 2, ["a", "b"], "FRACTIONAL"))
    masks[9, 9, 5, 0] = 1
    file = foreign(tmp_path / "over.dcm", folder, masks, ["a", "b"])
    with pytest.raises(InputError, match=r"over\.dcm: segments 'a' and 'b' overlap in 1 voxels"):
        read_label(file)
    with pytest.raises(InputError, match=r"over\.dcm: is a DICOM segmentation and no scan"):
        read_image(file)


def test_one_of_another_frame_of_reference_is_refused(tmp_path):
    folder = corpus_dicom.series(tmp_path)
    volume = read_image(folder)
    seg = read_label(foreign(tmp_path / "seg.dcm", folder, boxes(volume.spatial_shape), ["Liver", "GTV"]))
    other = read_image(corpus_dicom.series(tmp_path, name="other", FrameOfReferenceUID="1.2.3.99"))
    with pytest.raises(InputError, match=r"seg\.dcm: was drawn in another frame of reference than that of .*other"):
        in_frame_of(other, seg)
    for image in (volume, Volume(volume.data, volume.affine)):
        assert np.count_nonzero(in_frame_of(image, seg).data) == np.count_nonzero(seg.data)


def test_a_segmentation_beside_a_series_is_a_label(tmp_path):
    folder = corpus_dicom.series(tmp_path, name="scan/series")
    volume = read_image(folder)
    labels = labels_for(volume.spatial_shape)
    (tmp_path / "export").mkdir()
    write_dicom_seg(tmp_path / "export" / "IM1", labels, NAMES, volume, {})
    assert find_images(tmp_path) == [folder]
    assert files_without_image(tmp_path) == [tmp_path / "export" / "IM1"]
    assert volumes_in(tmp_path) == [tmp_path / "export"]
    assert looks_like_label(tmp_path / "export" / "IM1")
    assert np.array_equal(in_image(read_label(tmp_path / "export"), volume), labels)
