"""Find the cases of a data set on disk. To add a layout, write a function in a module here and list it in LAYOUTS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medfewshot.datasets.annotation_tools import read_monai_label, read_slicer_scenes
from medfewshot.datasets.bids import read_bids
from medfewshot.datasets.ct_sets import read_amos, read_btcv, read_kits, read_lits, read_totalsegmentator, read_verse
from medfewshot.datasets.dataset import Dataset, Layout
from medfewshot.datasets.dicom_exports import read_dicom_exports
from medfewshot.datasets.json_file import ignored_value, read_json, read_names
from medfewshot.datasets.mr_sets import read_acdc, read_brats, read_promise12
from medfewshot.datasets.pairs import parse_pair, read_case_folders, read_one_folder, read_two_folders
from medfewshot.datasets.table import read_csv
from medfewshot.datasets.workbench_project import IGNORE_VALUE, PROJECT_FILE, read_project
from medfewshot.errors import InputError

__all__ = [
    "IGNORE_VALUE",
    "LAYOUTS",
    "PROJECT_FILE",
    "Dataset",
    "Layout",
    "ignored_value",
    "parse_pair",
    "read_dataset",
    "read_names",
]

LAYOUTS: tuple[Layout, ...] = (
    Layout("a project of the workbench (project.json)", read_project),
    Layout("AMOS", read_amos),
    Layout("dataset.json (Decathlon or nnU-Net)", read_json),
    Layout("a CSV with columns image,label", read_csv),
    Layout("MONAI Label (labels/final/)", read_monai_label),
    Layout("TotalSegmentator (case/segmentations/)", read_totalsegmentator),
    Layout("scenes of 3D Slicer (*.mrml)", read_slicer_scenes),
    Layout("KiTS", read_kits),
    Layout("BraTS", read_brats),
    Layout("ACDC", read_acdc),
    Layout("VerSe", read_verse),
    Layout("BIDS derivatives (sub-*_dseg or sub-*_mask)", read_bids),
    Layout("LiTS", read_lits),
    Layout("BTCV", read_btcv),
    Layout("PROMISE12", read_promise12),
    Layout(
        "images/ + labels/ (or imagesTr/ + labelsTr/) with equal file names, also images/case/*.dcm", read_two_folders
    ),
    Layout("case.nii.gz + case_seg.nii.gz (or _label, _mask) in one folder", read_one_folder),
    Layout("one folder a case with image + label", read_case_folders),
    Layout("DICOM series with DICOM segmentations or RT structure sets", read_dicom_exports),
)
"""Tried in this order. The first layout that fits counts."""


def read_dataset(
    path: Path | str, label_names: Mapping[int, str] | None = None, *, layouts: tuple[Layout, ...] = LAYOUTS
) -> Dataset:
    """Find the cases of a folder, a ``dataset.json`` or a CSV. Reads no voxels.

    Args:
        path: A folder or a file.
        label_names: Label value -> name. They replace the names that the layout gives.
        layouts: The layouts to try.

    Raises:
        InputError: No layout fits, or the first that fits is broken: names the file, what is wrong and a remedy.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist", "give a folder, a dataset.json or a CSV")
    dataset = next((found for layout in layouts if (found := layout.read(path)) is not None), None)
    if dataset is None:
        tried = ", or ".join(layout.description for layout in layouts)
        problem = "no image with its label found" if path.is_dir() else "a single file is no data set"
        raise InputError(f"{path}: {problem}", f"use one of the layouts that were tried: {tried}")
    if label_names is None:
        return dataset
    return replace(dataset, labels={int(value): str(name) for value, name in sorted(label_names.items()) if value})
