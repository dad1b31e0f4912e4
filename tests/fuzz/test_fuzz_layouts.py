"""Random folders under the names of public sets, and random tables: cases are found, or one line names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfewshot.datasets import LAYOUTS, read_dataset
from medfewshot.errors import InputError

FOLDERS = [
    ".", "images", "labels", "imagesTr", "labelsTr", "imagesVa", "labelsVa", "img", "label", "labels/final",
    "labels/original", "case_00000", "case_00001", "data/case_00000", "s0001", "s0001/segmentations", "segmentations",
    "BraTS_001", "BraTS-GLI-00001-000", "training/patient001", "rawdata/sub-verse004", "derivatives/sub-verse004",
    "sub-01/anat", "sub-01/ses-1/anat", "derivatives/x/sub-01/anat", "derivatives/x/sub-01/ses-1/anat", "ü",
]  # fmt: skip
STEMS = [
    "a", "a_0000", "a_0001", "a_seg", "a-gt", "label", "image", "imaging", "segmentation", "aggregated_MAJ_seg", "ct",
    "mri", "liver", "volume-1", "segmentation-1", "img0001", "label0001", "amos_0001", "amos_0600", "BraTS_001_t1",
    "BraTS_001_t1ce", "BraTS_001_t2", "BraTS_001_flair", "BraTS_001_seg", "BraTS-GLI-00001-000-t1c",
    "BraTS-GLI-00001-000-t2w", "BraTS-GLI-00001-000-seg", "patient001_frame01", "patient001_frame01_gt",
    "patient001_4d", "Case00", "Case00_segmentation", "sub-verse004_ct", "sub-verse004_seg-vert_msk", "verse004",
    "verse004_seg", "sub-01_T1w", "sub-01_dseg", "sub-01_desc-a_dseg", "sub-01_mask", "sub-01_ses-1_T1w",
    "sub-01_ses-1_dseg", "sub-01_bold", "_seg", "-t1", "sub-", "sub-_dseg", "segmentation-", "[a]*", "ß_MASK",
]  # fmt: skip
SUFFIXES = [".nii.gz", ".nii", ".mha", ".nrrd", ".seg.nrrd", ".dcm", ".png", ".NII.GZ", ".txt", ""]
TABLES = ["dataset.json", "table.csv", "Scene.mrml", "dseg.tsv", "derivatives/x/dseg.tsv"]
PIECES = st.sampled_from(
    [
        "{", "}", "[", "]", '"', ":", ",", '"labels"', '"training"', '"channel_names"', '"file_ending"', '"image"', "0",
        '"a.nii.gz"', "1", "-1", "null", "true", "1e999", "index\tname\n", "1\tx\n", "\t", "\n", "image,label\n", ";",
        "a.nii.gz,a_seg.nii.gz\n", "<MRML>", "</MRML>", '<Volume id="a" references="storage:b;"/>',
        '<X id="b" fileName="a.nii.gz"/>', '<Segmentation id="c" references="storage:b;referenceImageGeometryRef:a"/>',
        "<!DOCTYPE a>", "\0", "\ufeff", "ü",
    ]
)  # fmt: skip

files = st.lists(st.tuples(*map(st.sampled_from, (FOLDERS, STEMS, SUFFIXES))), max_size=12)
KEYS = [
    "labels",
    "training",
    "channel_names",
    "file_ending",
    "image",
    "label",
    "background",
    "ignore",
    "0",
    "1",
    "name",
]
VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        2,
        -1,
        1.5,
        "",
        "ignore",
        "liver",
        ".nii.gz",
        "a.nii.gz",
        "imagesTr/a_0000.nii.gz",
        "labels/a.nii",
    ]
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=12,
)
contents = st.one_of(
    st.lists(PIECES, max_size=12).map("".join).map(str.encode),
    st.binary(max_size=40),
    JSON.map(json.dumps).map(str.encode),
)
tables = st.dictionaries(st.sampled_from(TABLES), contents, max_size=2)


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "set"


def check(folder: Path, read) -> None:
    try:
        dataset = read(folder)
    except InputError as error:
        told = str(error)
    else:
        for case in dataset.cases if dataset is not None else ():
            assert case.case_id
            assert all(path.exists() for path in case.image_paths)
            assert case.label_path is None or case.label_path.exists()
        return
    assert "\n" not in told
    assert str(folder) in told or "two " in told


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=files, tables=tables)
def test_any_folder(place, files, tables):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for folder, stem, suffix in files:
        path = place / folder / f"{stem}{suffix}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    for name, content in tables.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    check(place, read_dataset)
    for layout in LAYOUTS:
        check(place, layout)
    for name in tables:
        check(place / name, read_dataset)
