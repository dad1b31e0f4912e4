"""RT structure sets: what we write returns voxel for voxel, and those of others are drawn where they belong."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra dicom is not installed")

import corpus_dicom
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import LPS, OBLIQUE, ramp, write_dicom, write_nifti
from pydicom.dataset import Dataset, FileMetaDataset

from medfewshot.errors import InputError
from medfewshot.evaluation import evaluate_pairs
from medfewshot.io import EXPORTS, read_image, read_label, read_label_pair
from medfewshot.io.rtstruct_writer import write_rtstruct
from medfewshot.types import Volume

NAMES = {205: "left kidney", 7: "Something New"}
SHAPE = (12, 11, 6)
FRAME = {"0020|0052": "1.2.826.0.1.3680043.2.1125.77"}


def scan(folder: Path, **options: object) -> Volume:
    """An oblique series of 12 x 11 x 6 voxels."""
    write_dicom(folder / "series", data=ramp(SHAPE), **{"tags": FRAME, **options})  # type: ignore[arg-type]
    return read_image(folder / "series")


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def box(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], dtype=float)


def write_contours(
    path: Path,
    structures: dict[str, Sequence[np.ndarray]],
    *,
    kind: str = "CLOSED_PLANAR",
    frame: str = FRAME["0020|0052"],
    affine: np.ndarray = OBLIQUE,
) -> Path:
    """As another program writes it; the contours ``(N, 3)`` are in voxels of the scan."""
    dataset = item(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", SOPInstanceUID="1.2.3.4", Modality="RTSTRUCT")
    dataset.file_meta, dataset.preamble = FileMetaDataset(), bytes(128)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    rois, contours = [], []
    for number, (name, polygons) in enumerate(structures.items(), start=1):
        rois.append(item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame))
        points = [(LPS @ affine @ np.column_stack([one, np.ones(len(one))]).T)[:3].T for one in polygons]
        sequence = [
            item(
                ContourGeometricType=kind, NumberOfContourPoints=len(one), ContourData=[f"{x:.5f}" for x in one.ravel()]
            )
            for one in points
        ]
        contours.append(item(ReferencedROINumber=number, ROIDisplayColor=[255, 0, 51], ContourSequence=sequence))
    dataset.StructureSetROISequence, dataset.ROIContourSequence = rois, contours
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_the_same_voxels_come_back(tmp_path_factory: pytest.TempPathFactory, seed: int, share: float) -> None:
    folder = tmp_path_factory.mktemp("rt")
    volume = scan(folder)
    noise = np.random.default_rng(seed).random(SHAPE)
    labels = np.where(noise < share, 205, np.where(noise > 0.95, 7, 0))
    assert write_rtstruct(folder / "rs.dcm", labels, NAMES, volume, {205: (1.0, 0.0, 0.2)}) == ()
    found = read_label(folder / "rs.dcm", image=volume)
    assert np.array_equal(found.data[0], labels)
    assert np.array_equal(found.affine, volume.affine)
    assert found.names == dict(sorted(NAMES.items()))
    assert found.colours == {205: (1.0, 0.0, 0.2)}


def test_it_refers_to_its_source_and_states_codes(tmp_path: Path) -> None:
    folder = corpus_dicom.series(tmp_path, keep=[3, 1, 0, 2, 4, 5])
    volume = read_image(folder)
    labels = np.zeros(volume.spatial_shape, np.uint8)
    labels[3:6, 4:9, 2] = 205
    write_rtstruct(tmp_path / "rs.dcm", labels, NAMES, volume, {})
    dataset = pydicom.dcmread(tmp_path / "rs.dcm")
    source = pydicom.dcmread(folder / "000.dcm")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert dataset[name].value == source[name].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert [one.ROIName for one in dataset.StructureSetROISequence] == list(NAMES.values())
    (contour,) = dataset.ROIContourSequence[0].ContourSequence
    third = pydicom.dcmread(folder / "003.dcm")  # file 3 is slice 2
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == third.SOPInstanceUID
    assert {float(z) for z in contour.ContourData[2::3]} == {float(third.ImagePositionPatient[2])}
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ContourImageSequence) == 6
    code = dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "ContourSequence" not in dataset.ROIContourSequence[1] or not dataset.ROIContourSequence[1].ContourSequence


def test_holes_and_pieces_of_another_program(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    ring = [box(0.5, 7.5, 0.5, 7.5, 2), box(2.5, 5.5, 2.5, 5.5, 2), box(8.5, 10.5, 1.5, 3.5, 2)]
    file = write_contours(tmp_path / "rs", {"Liver": ring, "GTV": [box(0.5, 2.5, 0.5, 2.5, 4)]})
    found = read_label(file, image=volume)
    expected = np.zeros(SHAPE, int)
    expected[1:8, 1:8, 2] = 1
    expected[3:6, 3:6, 2] = 0
    expected[9:11, 2:4, 2] = 1
    expected[1:3, 1:3, 4] = 2
    assert np.array_equal(found.data[0], expected)
    assert found.names == {1: "Liver", 2: "GTV"}
    assert found.colours == {1: (1.0, 0.0, 0.2), 2: (1.0, 0.0, 0.2)}
    assert found.warnings == ()


def test_a_scan_converted_to_nifti_gives_the_same(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    file = write_contours(tmp_path / "rs.dcm", {"Liver": [box(0.5, 7.5, 0.5, 7.5, 2)]})
    converted = read_image(write_nifti(tmp_path / "scan.nii", volume.data[0], volume.affine))
    found = read_label(file, image=converted)
    assert np.array_equal(found.data, read_label(file, image=volume).data)
    assert np.count_nonzero(found.data) == 49


def test_the_smaller_of_two_overlapping_structures_keeps_its_voxels(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    structures = {"GTV": [box(2.5, 4.5, 2.5, 4.5, 1)], "BODY": [box(0.5, 9.5, 0.5, 9.5, 1)]}
    found = read_label(write_contours(tmp_path / "rs.dcm", structures), image=volume)
    assert np.count_nonzero(found.data == 1) == 4
    assert np.count_nonzero(found.data == 2) == 81 - 4
    assert found.warnings == (
        "structures overlap, and the smaller one of each pair keeps the voxels: 'GTV' in 'BODY' (4 voxels)",
    )


@pytest.mark.parametrize(
    ("contours", "doubt"),
    [
        ([box(0.5, 7.5, 0.5, 7.5, 2.4)], "its contours lie up to 0.4 slices beside"),
        ([box(0.5, 7.5, 0.5, 7.5, z) for z in (0, 2, 4)], "its contours are 2 slices apart"),
        ([box(0.5, 7.5, 0.5, 7.5, z) for z in (4, 5, 6)], "1 of its 3 planes lie outside the scan"),
        (
            [box(0.5, 7.5, 0.5, 7.5, 2), box(2.5, 5.5, 2.5, 5.5, 2.4), box(1.5, 5.5, 1.5, 5.5, 1.6)],
            "it was drawn on thinner slices; on 1 slice.s. only the nearest contours count",
        ),
        ([box(0.5, 20.5, 0.5, 4.5, 2)], "1 of its contours leave the field of view and are cut"),
        ([box(0.5, 4.5, 0.5, 4.5, 2), box(3.5, 7.5, 3.5, 7.5, 2)], r"contours cross each other on 1 slice"),
    ],
    ids=["beside the slices", "every second slice", "planes outside", "thinner slices", "cut", "crossing contours"],
)
def test_doubts_are_warnings(tmp_path: Path, contours: list[np.ndarray], doubt: str) -> None:
    found = read_label(write_contours(tmp_path / "rs.dcm", {"Liver": contours}), image=scan(tmp_path))
    assert found.data[0, 4, 4].any()
    assert re.match(f"Liver: {doubt}", found.warnings[0])


def test_contours_that_enclose_no_voxel_are_a_warning(tmp_path: Path) -> None:
    structures = {"big": [box(0.5, 7.5, 0.5, 7.5, 2)], "tiny": [box(2.2, 2.8, 2.2, 2.8, 2)], "empty": []}
    found = read_label(write_contours(tmp_path / "rs.dcm", structures), image=scan(tmp_path))
    assert found.warnings == ("tiny: its contours enclose no voxel of this scan",)


def test_one_structure_in_two_items_is_joined(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    path = write_contours(tmp_path / "two.dcm", {"liver": [box(1, 4, 1, 4, 2)], "other": [box(6, 9, 1, 4, 3)]})
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence = dataset.StructureSetROISequence[:1]
    dataset.ROIContourSequence[1].ReferencedROINumber = 1
    dataset.save_as(path)
    label = read_label(path, image=volume)
    assert sorted({int(z) for *_, z in np.argwhere(label.data[0] == 1)}) == [2, 3]
    assert "liver: its contours stand in several items and are joined" in label.warnings


def test_points_are_ignored_with_a_warning(tmp_path: Path) -> None:
    file = write_contours(tmp_path / "rs.dcm", {"Isocentre": [np.array([[1.0, 2.0, 3.0]])]}, kind="POINT")
    assert read_label(file, image=scan(tmp_path)).warnings[0] == "Isocentre: 1 open contour(s) or point(s) ignored"


@pytest.mark.parametrize(
    ("contours", "options", "problem"),
    [
        ([box(0.5, 7.5, 0.5, 7.5, 2)], {"frame": "1.2.3.99"}, "drawn in another frame of reference"),
        ([box(0.5, 7.5, 0.5, 7.5, 20)], {}, "Liver lies outside"),
        ([box(0.5, 7.5, 0.5, 7.5, 2)[:, [2, 0, 1]]], {}, "not parallel to the slices"),
    ],
    ids=["another frame of reference", "outside the scan", "across the slices"],
)
def test_a_structure_set_is_refused(
    tmp_path: Path, contours: list[np.ndarray], options: dict[str, str], problem: str
) -> None:
    with pytest.raises(InputError, match=rf"rs\.dcm: .*{problem}"):
        read_label(write_contours(tmp_path / "rs.dcm", {"Liver": contours}, **options), image=scan(tmp_path))


def test_two_structures_of_one_name_are_refused(tmp_path: Path) -> None:
    file = write_contours(tmp_path / "rs.dcm", {"Liver": [], "liver": []})
    with pytest.raises(InputError, match="two of its structures are named 'liver'"):
        read_label(file, image=scan(tmp_path))


def test_contours_need_a_scan(tmp_path: Path) -> None:
    file = write_contours(tmp_path / "rs.dcm", {"Liver": []})
    with pytest.raises(InputError, match=r"rs\.dcm: .* contours and no voxels; give it together with the scan"):
        read_label(file)
    with pytest.raises(InputError, match=r"rs\.dcm: is an RT structure set and no scan"):
        read_image(file)


def test_a_pair_is_drawn_on_the_grid_of_the_other(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    file = write_contours(tmp_path / "rs.dcm", {"Liver": [box(0.5, 7.5, 0.5, 7.5, 2)]})
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:8, 1:8, 2] = 1
    other = write_nifti(tmp_path / "label.nii", labels, volume.affine)
    for first, second in (read_label_pair(file, other), read_label_pair(other, file)):
        assert np.array_equal(first.data, second.data)
        assert np.count_nonzero(first.data) == 49
    (score,) = evaluate_pairs([("a", other, file)], labels=[1]).scores
    assert score.values["dice"] == 1
    with pytest.raises(InputError, match="contains contours and no voxels"):
        read_label_pair(file, file)
    EXPORTS["dicom_seg"].write(tmp_path / "seg.dcm", labels, {1: "Liver"}, volume, {})
    with pytest.raises(InputError, match=r"rs\.dcm: cannot be drawn on .*seg\.dcm, which may cover a part"):
        read_label_pair(tmp_path / "seg.dcm", file)


def test_a_folder_with_a_structure_set_is_that_label(tmp_path: Path) -> None:
    volume = scan(tmp_path)
    (tmp_path / "label").mkdir()
    write_contours(tmp_path / "label" / "rs.dcm", {"Liver": [box(0.5, 7.5, 0.5, 7.5, 2)]})
    assert np.count_nonzero(read_label(tmp_path / "label", image=volume).data) == 49


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, file = scan(tmp_path), write_contours(tmp_path / "rs.dcm", {"Liver": []})
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install contourpy highdicom pydicom"):
        read_label(file, image=volume)
