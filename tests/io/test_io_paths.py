"""Names: cases, results, and what a folder stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_samples import ramp, write_dicom, write_itk, write_nifti, write_picture

from medfewshot.errors import InputError
from medfewshot.io import (
    case_id,
    case_of_image,
    case_of_label,
    files_of,
    files_without_image,
    find_images,
    images_below,
    is_series_folder,
    labels_without_image,
    looks_like_label,
    output_suffix,
    read_image,
)
from medfewshot.types import Volume


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x/ct_007_0000.nii.gz", "ct_007"),
        ("ct_007.nii", "ct_007"),
        ("patient_0001.nii.gz", "patient_0001"),
        ("a.b.NII.GZ", "a.b"),
        ("a.seg.nrrd", "a"),
        ("photo.JPG", "photo"),
        ("x/series.v2", "series.v2"),
        ("1.2.840.113", "1.2.840.113"),
        ("x/series/", "series"),
    ],
)
def test_case_id(path: str, expected: str) -> None:
    assert case_id(path) == expected


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("patient001_frame01_gt.nii.gz", "patient001_frame01"),
        ("Case00_segmentation.mhd", "Case00"),
        ("segmentation-7.nii", "7"),
        ("label0001.nii.gz", "0001"),
        ("c1-seg.nii.gz", "c1"),
        ("sub-01_dseg.nii.gz", "sub-01"),
        ("a_Mask.nrrd", "a"),
        ("label.nii.gz", ""),
        ("volume-7.nii", None),
        ("segmented_scan.nii.gz", None),
        ("labelled.nii.gz", None),
        ("gtv_planning.nii.gz", None),
        ("patient_mask_ct.nii.gz", None),
    ],
)
def test_labels_are_known_by_one_list_of_names(name: str, case: str | None) -> None:
    assert case_of_label(name) == case
    assert looks_like_label(name) == (case is not None)


@pytest.mark.parametrize(
    ("name", "case"), [("volume-7.nii", "7"), ("img0001.nii.gz", "0001"), ("imaging.nii.gz", ""), ("ct_7.nii.gz", None)]
)
def test_the_number_in_the_name_of_a_scan(name: str, case: str | None) -> None:
    assert case_of_image(name) == case


def test_labels_beside_scans_are_no_scans(tmp_path: Path) -> None:
    scans = ["patient000_frame01", "Case00", "volume-0", "c0"]
    labels = ["patient000_frame01_gt", "Case00_segmentation", "segmentation-0", "c0-seg"]
    for name in (*scans, *labels, "alone_mask"):
        write_nifti(tmp_path / f"{name}.nii.gz")
    assert [case_id(path) for path in find_images(tmp_path)] == sorted(scans)
    assert [path.name for path in labels_without_image(tmp_path)] == ["alone_mask.nii.gz"]


def test_images_one_folder_deeper_are_listed_because_they_are_skipped(tmp_path: Path) -> None:
    names = ("a.nii", "more/b.nii", "more/b_seg.nii", "labels/a.nii", "masks/a.nii", "other/deeper/c.nii", "d/.e.nii")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(tmp_path / name)
    write_dicom(tmp_path / "series")
    (tmp_path / "series" / "preview.png").touch()
    assert find_images(tmp_path) == [tmp_path / "a.nii", tmp_path / "series"]
    assert images_below(tmp_path) == [tmp_path / "more" / "b.nii"]
    assert images_below(tmp_path / "a.nii") == []


def test_case_id_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert case_id(".") == tmp_path.name


def test_output_suffix(tmp_path: Path) -> None:
    grey = ramp((4, 5)).astype(np.uint8)
    write_dicom(tmp_path / "series")
    inputs = {
        write_nifti(tmp_path / "a.nii"): ".nii.gz",
        tmp_path / "series": ".nii.gz",
        write_itk(tmp_path / "a.nrrd"): ".nrrd",
        write_itk(tmp_path / "b.seg.nrrd"): ".nrrd",
        write_itk(tmp_path / "a.mha"): ".mha",
        write_itk(tmp_path / "a.mhd"): ".mha",
        write_picture(tmp_path / "a.png", grey): ".png",
        write_picture(tmp_path / "a.jpg", grey): ".png",
        write_picture(tmp_path / "a.tiff", grey): ".tif",
    }
    assert {path: output_suffix(read_image(path)) for path in inputs} == inputs
    assert output_suffix(Volume(np.zeros((1, 2, 2, 2)), np.eye(4))) == ".nii.gz"


def test_a_folder_stands_for_its_images_and_series(tmp_path: Path) -> None:
    for name in (
        "b.nii.gz",
        "a_0000.nii",
        "c.png",
        "a_seg.nii.gz",
        "a_label.nii",
        "b_Mask.png",
        "x.seg.nrrd",
        ".h.nii",
    ):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    write_dicom(tmp_path / "patient" / "study" / "T1", names=[f"IM{i}" for i in range(6)])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.nii.gz").touch()
    found = [str(path.relative_to(tmp_path).as_posix()) for path in find_images(tmp_path)]
    assert found == ["a_0000.nii", "b.nii.gz", "c.png", "patient/study/T1"]


def test_a_file_and_a_series_stand_for_themselves(tmp_path: Path) -> None:
    files = write_dicom(tmp_path / "s", names=[f"IM{i}" for i in range(6)])
    assert is_series_folder(tmp_path / "s")
    assert not is_series_folder(tmp_path)
    assert find_images(tmp_path / "s") == [tmp_path / "s"]
    assert find_images(files[0]) == [files[0]]
    label = write_nifti(tmp_path / "a_seg.nii")
    assert find_images(label) == [label]


def test_a_stray_slice_hides_no_scan(tmp_path: Path) -> None:
    write_nifti(tmp_path / "c0.nii")
    (tmp_path / "preview.png").touch()
    write_dicom(tmp_path, keep=[0], names=["stray.dcm"])
    write_dicom(tmp_path / "series")
    assert find_images(tmp_path) == [tmp_path, tmp_path / "c0.nii", tmp_path / "series"]


def test_a_structure_set_is_no_scan(tmp_path: Path) -> None:
    write_dicom(tmp_path / "patient" / "series")
    uid = b"1.2.840.10008.5.1.4.1.1.481.3\0"
    plan = tmp_path / "patient" / "rs.dcm"
    plan.write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI" + len(uid).to_bytes(2, "little") + uid)
    assert find_images(tmp_path / "patient") == [tmp_path / "patient" / "series"]
    assert files_without_image(tmp_path) == [plan]
    (tmp_path / "only").mkdir()
    plan.rename(tmp_path / "only" / "rs.dcm")
    with pytest.raises(InputError, match=r"contains no images, only 1 DICOM file\(s\) without one, such as rs\.dcm"):
        find_images(tmp_path / "only")


def test_the_files_of_a_scan(tmp_path: Path) -> None:
    """What shows that a scan was replaced: also the voxels beside a header, whatever their name."""
    for name in ("a.raw", "voxels.bin", "b.img", "b2.img", "other.raw"):
        (tmp_path / name).touch()
    (tmp_path / "a.mhd").write_text("ElementDataFile = a.raw\n")
    (tmp_path / "c.nhdr").write_text("data file: voxels.bin\n")
    (tmp_path / "b.hdr").touch()
    found = {path: [file.name for file in files_of(tmp_path / path)] for path in ("a.mhd", "c.nhdr", "b.hdr", "b.nii")}
    assert found == {
        "a.mhd": ["a.mhd", "a.raw"], "c.nhdr": ["c.nhdr", "voxels.bin"], "b.hdr": ["b.hdr", "b.img"], "b.nii": ["b.nii"]
    }  # fmt: skip


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no images; give NIfTI"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_images(tmp_path / "no")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: is no image"):
        find_images(tmp_path / "notes.txt")
