"""Supports that cannot be adapted to, and odd ones that can. A function takes a folder with good scans under
``annotated/`` and returns the options of ``medfewshot adapt`` that name the support."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import toys
from corpus_volumes import told_in

Build = Callable[[Path], tuple[object, ...]]
REFUSED: dict[str, tuple[Build, str]] = {}
ACCEPTED: dict[str, tuple[Build, str]] = {}
"""What a warning must say; "" if there is nothing to warn of."""
refused, accepted = told_in(REFUSED), told_in(ACCEPTED)


def image(root: Path, number: int = 0) -> Path:
    return root / "annotated" / "images" / f"s{number}.nii.gz"


def label(root: Path, number: int = 0) -> Path:
    return root / "annotated" / "labels" / f"s{number}.nii.gz"


def truth() -> np.ndarray:
    return toys.make_scan(0)[1]


def pair(first: object, second: object, sign: str = "=") -> tuple[object, ...]:
    return ("--support", f"{first}{sign}{second}")


def with_label(root: Path, data: np.ndarray, affine=toys.AFFINE) -> tuple[object, ...]:
    return pair(image(root), toys.save_nifti(root / "odd_label.nii.gz", data, affine))


# --- labels ----------------------------------------------------------------------------------------------------------


@refused("differ in shape")
def label_of_another_size(root):
    return with_label(root, truth()[:-1])


@refused("different grids")
def label_of_another_orientation(root):
    return with_label(root, truth(), np.diag([1.25, 1.5, 2, 1]))


@refused("whole numbers")
def label_of_probabilities(root):
    return with_label(root, truth().astype(np.float32) / 500)


@refused("no structure is marked")
def empty_label(root):
    return with_label(root, truth() * 0)


@refused("negative label")
def negative_label(root):
    return with_label(root, -truth())


@refused("NaN")
def label_of_nan(root):
    data = truth().astype(np.float32)
    data[0, 0, 0] = np.nan
    return with_label(root, data)


@refused("covers the whole image")
def label_without_background(root):
    return with_label(root, truth() * 0 + 1)


@refused("different values")
def image_taken_for_a_label(root):
    return with_label(root, np.arange(truth().size, dtype=np.int32).reshape(truth().shape))


@refused("more than 32 bits")
def label_value_of_three_billion(root):
    return with_label(root, (truth() > 0) * 3e9)


@refused("channel")
def label_of_vectors(root):
    data = np.stack([truth()] * 3, -1)
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=True), str(root / "odd_label.nrrd"))
    return pair(image(root), root / "odd_label.nrrd")


@refused("complex")
def label_of_complex_numbers(root):
    nib.save(nib.Nifti1Image(truth().astype(np.complex64), toys.AFFINE), root / "odd_label.nii.gz")
    return pair(image(root), root / "odd_label.nii.gz")


@refused("JPEG")
def label_as_jpeg(root):
    return pair(image(root), toys.save_itk(root / "odd_label.jpg", truth()[:, :, 5].astype(np.uint8)))


@refused("0 bytes")
def label_of_zero_bytes(root):
    (root / "odd_label.nii.gz").touch()
    return pair(image(root), root / "odd_label.nii.gz")


@refused("odd_label.nii.gz")
def label_is_a_folder(root):
    (root / "odd_label.nii.gz").mkdir()
    return pair(image(root), root / "odd_label.nii.gz")


@refused("label 9")
def label_value_that_is_in_no_support(root):
    return (*pair(image(root), label(root)), "--labels", "9")


@refused("different values")
def label_of_labels_turned_into_noise(root):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 30000, truth().shape).astype(np.int16)
    noise[0] = 0
    return with_label(root, noise)


# --- pairs -----------------------------------------------------------------------------------------------------------


@refused("no_such_label.nii.gz not found")
def label_that_does_not_exist(root):
    return pair(image(root), root / "no_such_label.nii.gz")


@refused("write image=label")
def pair_without_a_sign(root):
    return ("--support", image(root))


@refused("write image=label")
def pair_with_an_empty_side(root):
    return ("--support", f"{image(root)}=")


@refused("several ways")
def pair_that_splits_in_two_ways(root):
    for name in ("a", "b=c", "a=b", "c"):
        shutil.copy(image(root), root / name)
    return ("--support", "a=b=c")


@refused("support")
def nothing_at_all(root):
    return ()


@refused("must be of one kind")
def a_plane_and_a_volume(root):
    picture = toys.save_itk(root / "flat.png", toys.make_scan(0)[0][:, :, 5].astype(np.uint8))
    mask = toys.save_itk(root / "flat_seg.png", truth()[:, :, 5].astype(np.uint8))
    return (*pair(image(root), label(root)), *pair(picture, mask))


# --- folders and tables ----------------------------------------------------------------------------------------------


@refused("no image with its label")
def folder_without_labels(root):
    return ("--support-dir", root / "cohort")


@refused("annotated")
def folder_with_two_labels_for_one_image(root):
    shutil.copy(label(root), root / "annotated" / "labels" / "s0_seg.nii.gz")
    return ("--support-dir", root / "annotated")


def with_json(root: Path, text: str) -> tuple[object, ...]:
    (root / "annotated" / "dataset.json").write_text(text)
    return ("--support-dir", root / "annotated")


@refused("dataset.json")
def json_cut_short(root):
    return with_json(root, '{"labels": {"0": "background"')


@refused("dataset.json")
def json_of_a_list(root):
    return with_json(root, "[1, 2, 3]")


@refused("dataset.json")
def json_without_its_keys(root):
    return with_json(root, "{}")


@refused("dataset.json")
def json_with_labels_of_the_wrong_kind(root):
    return with_json(root, json.dumps({"labels": 7, "training": [{"image": 1, "label": None}]}))


@refused("gone.nii.gz")
def json_naming_a_file_that_is_gone(root):
    entry = {"image": "./images/gone.nii.gz", "label": "./labels/s0.nii.gz"}
    return with_json(root, json.dumps({"labels": {"0": "background", "205": "a"}, "training": [entry]}))


@refused("dataset.json")
def json_nested_a_thousand_deep(root):
    return with_json(root, "[" * 100_000)


def with_csv(root: Path, content: bytes) -> tuple[object, ...]:
    (root / "table.csv").write_bytes(content)
    return ("--support-dir", root / "table.csv")


@refused("table.csv")
def csv_without_its_columns(root):
    return with_csv(root, b"scan,mask\na,b\n")


@refused("table.csv")
def csv_of_another_encoding(root):
    return with_csv(root, "image,label\nMüller.nii.gz,b.nii.gz\n".encode("utf-16"))


@refused("table.csv")
def csv_with_nul_bytes(root):
    return with_csv(root, b"image,label\n\0\0\0,\0\n")


@refused("table.csv")
def csv_without_rows(root):
    return with_csv(root, b"image,label\n")


@refused("gone.nii.gz")
def csv_naming_a_file_that_is_gone(root):
    return with_csv(root, b"image,label\ngone.nii.gz,gone_seg.nii.gz\n")


# --- odd, but good ---------------------------------------------------------------------------------------------------


@accepted("given twice")
def the_same_support_twice(root):
    return (*pair(image(root), label(root)), *pair(image(root), label(root)))


@accepted("given twice")
def a_copy_of_a_support(root):
    shutil.copy(image(root), root / "copy.nii.gz")
    return (*pair(image(root), label(root)), *pair(root / "copy.nii.gz", label(root)))


@accepted("")
def label_as_float(root):
    return with_label(root, truth().astype(np.float64))


@accepted("")
def label_value_of_two_billion(root):
    return with_label(root, np.where(truth() > 0, 2_000_000_000, 0).astype(np.int32))


@accepted("")
def equals_signs_in_both_paths(root):
    first, second = root / "a=1.nii.gz", root / "b=2.nii.gz"
    shutil.copy(image(root), first)
    shutil.copy(label(root), second)
    return pair(first, second)


@accepted("")
def a_drive_letter_in_both_paths(root):
    # A file system that allows such names stands in for Windows: the split must not fall on the drive's colon.
    shutil.copy(image(root), root / "C:\\scan.nii.gz")
    shutil.copy(label(root), root / "D:\\label.nii.gz")
    return pair("C:\\scan.nii.gz", "D:\\label.nii.gz", ":")


@accepted("")
def spaces_and_newlines_in_both_paths(root):
    shutil.copy(image(root), root / "a scan\n.nii.gz")
    shutil.copy(label(root), root / "ein Etikett ü.nii.gz")
    return pair(root / "a scan\n.nii.gz", root / "ein Etikett ü.nii.gz")
