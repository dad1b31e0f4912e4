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
    read_project, read_amos, read_json, read_csv, read_monai_label, read_totalsegmentator, read_slicer_scenes,
    read_kits, read_brats, read_acdc, read_verse, read_bids, read_lits, read_btcv, read_promise12, read_two_folders,
    read_one_folder, read_case_folders, read_dicom_exports,
)  # fmt: skip
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
    dataset = next((found for layout in layouts if (found := layout(path)) is not None), None)
    if dataset is None:
        problem = "no image with its label found" if path.is_dir() else "a single file is no data set"
        known = "images/ and labels/ with equal file names, case.nii.gz and case_seg.nii.gz in one folder"
        raise InputError(f"{path}: {problem}", f"give a folder with {known}, or a CSV with the columns image,label")
    if label_names is None:
        return dataset
    return replace(dataset, labels={int(value): str(name) for value, name in sorted(label_names.items()) if value})
