"""Every layout that users bring, and one clear line for what cannot be read."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.datasets import LAYOUTS, Dataset, parse_pair, read_dataset
from medfewshot.errors import InputError
from medfewshot.types import Case

REPOSITORY = Path(__file__).resolve().parents[1]


def real_data() -> Path:
    return Path(os.environ.get("MEDFEWSHOT_DATA") or REPOSITORY.parent / "shared" / "data")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_json(root: Path, content: dict) -> Path:
    path = root / "dataset.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_label(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.uint8), np.eye(4)), path)


def msd(root: Path, **changes) -> Path:
    touch(root, "imagesTr/b.nii.gz", "labelsTr/b.nii.gz", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTr/c.nii.gz")
    content = {
        "name": "toy",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "205": "lesion"},
        "training": [
            {"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"},
            {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
            {"image": "./imagesTr/c.nii.gz"},
        ],
    }
    return write_json(root, {**content, **changes})


def nnunet(root: Path, **changes) -> Path:
    touch(root, *[f"imagesTr/{name}_000{channel}.nii.gz" for name in ("q_2", "p_1") for channel in (0, 1)])
    touch(root, "labelsTr/q_2.nii.gz")
    content = {
        "channel_names": {"0": "T1", "1": "T2 FLAIR"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "file_ending": ".nii.gz",
    }
    return write_json(root, {**content, **changes})


def test_msd(tmp_path):
    msd(tmp_path)
    dataset = read_dataset(tmp_path)
    assert (dataset.name, dataset.modality) == ("toy", "CT")
    assert dict(dataset.labels) == {1: "liver", 205: "lesion"}
    assert [case.case_id for case in dataset.cases] == ["a", "b", "c"]
    assert [case.case_id for case in dataset.labelled] == ["a", "b"]


def test_the_json_file_itself_and_other_names(tmp_path):
    dataset = read_dataset(msd(tmp_path), label_names={0: "background", 1: "Leber"})
    assert dict(dataset.labels) == {1: "Leber"}


def test_nnunet_v2_with_two_channels(tmp_path):
    nnunet(tmp_path)
    dataset = read_dataset(tmp_path)
    assert dataset.modality == "MR"
    assert dict(dataset.labels) == {1: "liver", 2: "tumour"}
    assert [case.case_id for case in dataset.cases] == ["p_1", "q_2"]
    assert [path.name for path in dataset.cases[1].image_paths] == ["q_2_0000.nii.gz", "q_2_0001.nii.gz"]
    assert [case.case_id for case in dataset.labelled] == ["q_2"]


def test_nnunet_v1_lists_files_without_the_channel_number(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    write_json(tmp_path, {"modality": {"0": "CT", "1": "PET"}, "labels": {"0": "bg", "1": "x"}, "training": [entry]})
    dataset = read_dataset(tmp_path)
    assert len(dataset.cases[0].image_paths) == 2
    assert dataset.modality is None


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        (nnunet, {"labels": {"background": 0, "x": 1, "ignore": 2, "Ignore": 3}}, ["ignore"]),
        (nnunet, {"file_ending": ".nrrd"}, ["_0000.nrrd", "file_ending"]),
        (nnunet, {"channel_names": {"0": "a", "1": "b", "2": "c"}}, ["p_1_0002.nii.gz", "does not exist"]),
        (msd, {"training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/zz.nii.gz"}]}, ["labelsTr/zz.nii.gz"]),
        (msd, {"training": [{"image": "imagesTr/zz.nii.gz", "label": "labelsTr/a.nii.gz"}]}, ["imagesTr/zz.nii.gz"]),
        (msd, {"training": []}, ["lists no case"]),
        (msd, {"training": [{"label": "labelsTr/a.nii.gz"}]}, ["expected form", "image"]),
        (msd, {"labels": {"0": "background", "liver": "1"}}, ["expected form"]),
        (
            msd,
            {"training": [{"image": "imagesTr/a.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in "ab"]},
            ["two labels for one image"],
        ),
    ],
)
def test_json_mistakes_are_named(tmp_path, make, change, words):
    path = make(tmp_path, **change)
    with pytest.raises(InputError) as caught:
        read_dataset(tmp_path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_region_beside_a_label_is_named_by_what_is_left_of_it(tmp_path):
    nnunet(tmp_path, labels={"background": 0, "whole": [1, 2], "core": 2})
    assert dict(read_dataset(tmp_path).labels) == {1: "whole outside core", 2: "core"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"labels": {"0": "x",}', "broken JSON at line 1"),
        ("[1]", "JSON object"),
        ('{"a": 1}', "neither"),
        ('{"labels": {"1": "liver", "1": "spleen"}}', "'1' is given twice"),
    ],
)
def test_broken_json(tmp_path, text, words):
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz"],
        ["imagesTr/a.nrrd", "imagesTr/b.nrrd", "labelsTr/a.seg.nrrd"],
        ["images/a.nii.gz", "images/b.nii.gz", "masks/a_mask.nii.gz"],
        ["a.nii.gz", "a_seg.nii.gz", "b.nii.gz"],
        ["a.mha", "a_label.nii", "b.mha"],
        ["a_image.png", "a-mask.png", "b_image.png"],
        ["a.nrrd", "a.seg.nrrd", "b.nrrd"],
        ["images/a_0000.nii.gz", "images/b_0000.nii.gz", "labels/a.nii.gz"],
    ],
)
def test_paired_folders(tmp_path, names):
    touch(tmp_path, *names)
    dataset = read_dataset(tmp_path)
    assert [case.case_id for case in dataset.labelled] == ["a"]
    assert [case.case_id.removesuffix("_image") for case in dataset.cases] == ["a", "b"]


def test_one_folder_a_case(tmp_path):
    touch(tmp_path, "s1/image.nii.gz", "s1/label.nii.gz", "s2/ct.nii.gz", "s2/ct_seg.nii.gz")
    assert [case.subject_id for case in read_dataset(tmp_path).labelled] == ["s2", "s1"]  # by file name: ct < image
    assert [case.case_id for case in read_dataset(tmp_path / "s1").labelled] == ["s1"]


def test_numbers_at_the_end_are_channels_only_where_the_label_says_so(tmp_path):
    touch(tmp_path, *[f"images/lidc_{n}.nii.gz" for n in ("0001", "0014")], "labels/lidc_0001.nii.gz")
    assert [case.case_id for case in read_dataset(tmp_path).cases] == ["lidc_0001", "lidc_0014"]
    from_zero = tmp_path / "from_zero"
    touch(from_zero, *[f"images/scan_000{n}.nii.gz" for n in range(3)], "labels/scan_0000.nii.gz")
    cases = read_dataset(from_zero).cases
    assert [(len(case.image_paths), case.label_path is not None) for case in cases] == [
        (1, True),
        (1, False),
        (1, False),
    ]
    other = tmp_path / "channels"
    touch(other, *[f"images/{name}_000{c}.nii.gz" for name in "ab" for c in (0, 1)], "labels/a.nii.gz")
    dataset = read_dataset(other)
    assert [(case.case_id, len(case.image_paths)) for case in dataset.cases] == [("a", 2), ("b", 2)]


def test_dicom_series_folders(tmp_path):
    for name in ("case1", "case2"):
        touch(tmp_path, f"images/{name}/0.dcm", f"images/{name}/1.dcm")
    touch(tmp_path, "labels/case1.nii.gz")
    dataset = read_dataset(tmp_path)
    assert dataset.cases[0].image_path == tmp_path / "images" / "case1"
    assert [case.label_path is None for case in dataset.cases] == [False, True]


@pytest.mark.parametrize("place", ["", "a/"])
def test_channels_beside_their_label_are_one_case(tmp_path, place):
    touch(tmp_path, f"{place}a_0000.nii.gz", f"{place}a_0001.nii.gz", f"{place}a_seg.nii.gz")
    (case,) = read_dataset(tmp_path).cases
    assert (case.case_id, [path.name for path in case.image_paths]) == ("a", ["a_0000.nii.gz", "a_0001.nii.gz"])


@pytest.mark.parametrize("places", [("images/", "labels/"), ("Images/", "Labels/"), ("", "")])
def test_cases_may_be_numbered_from_0000(tmp_path, places):
    image, label = places
    touch(tmp_path, *[f"{image}s_000{n}.nii.gz" for n in range(3)], *[f"{label}s_000{n}_seg.nii.gz" for n in range(3)])
    dataset = read_dataset(tmp_path)
    assert [case.case_id for case in dataset.labelled] == ["s_0000", "s_0001", "s_0002"]
    assert dataset.notes == ()


def test_accents_of_macos_and_of_others_are_the_same_name(tmp_path):
    name = unicodedata.normalize("NFC", "müller")
    touch(tmp_path, f"images/{name}.nii.gz", f"labels/{unicodedata.normalize('NFD', name)}.nii.gz")
    assert [case.case_id for case in read_dataset(tmp_path).labelled] == [name]


def test_a_repeated_scan_is_no_channel_of_the_first(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a_0001.nii.gz")
    assert [len(case.image_paths) for case in read_dataset(tmp_path).cases] == [1, 1]


def test_one_scan_and_one_label_in_a_folder_may_have_any_names(tmp_path):
    touch(tmp_path, "a/x.nii.gz", "a/y_seg.nii.gz", "b/ct.nii.gz", "b/label.nii.gz")
    assert [case.case_id for case in read_dataset(tmp_path).labelled] == ["b", "a"]


def test_a_label_without_an_image_is_noted(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "labels/z.nii.gz")
    assert "z.nii.gz" in read_dataset(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/a.nii.gz", "labels/b.nii.gz"], "no file in labels/ has the name of an image in images/"),
        (["images/a.nii.gz", "labels/label.nii.gz"], "no file in labels/ has the name of an image in images/"),
        (["notes.txt"], "no image with its label found; give a folder with images/ and labels/ .* or a CSV"),
        (["images/a.nii.gz", "labels/a.nii.gz", "labels/a_seg.nii.gz"], "two labels for one image 'a'"),
        (["a.nii.gz", "a_seg.nii.gz", "a_mask.nii.gz"], "two labels for one image 'a'"),
        (["images/a.nii.gz", "images/a.mha", "labels/a.nii.gz"], "two images for one case 'a'"),
    ],
)
def test_folder_mistakes_are_named(tmp_path, names, words):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=words):
        read_dataset(tmp_path)


def test_csv(tmp_path):
    touch(tmp_path, "x/a.nii.gz", "x/a_lab.nii.gz", "x/b.nii.gz")
    table = tmp_path / "cases.csv"
    table.write_text(
        "﻿Image;label;subject;modality;age\nx/b.nii.gz;;s1;MR;3\n\nx/a.nii.gz;x/a_lab.nii.gz;s1;MR\n", encoding="utf-8"
    )
    dataset = read_dataset(table)
    assert (dataset.modality, dataset.name) == ("MR", "cases")
    assert [(case.case_id, case.subject_id, case.label_path is None) for case in dataset.cases] == [
        ("a", "s1", False),
        ("b", "s1", True),
    ]


def test_csv_with_frames_of_films(tmp_path):
    touch(tmp_path, "a.nii.gz", "ed.nii.gz", "es.nii.gz")
    (tmp_path / "t.csv").write_text("image,label,frame\na.nii.gz,ed.nii.gz,0\na.nii.gz,es.nii.gz,8\n")
    cases = read_dataset(tmp_path / "t.csv").cases
    assert [(case.case_id, case.frame, case.label_path.name) for case in cases] == [
        ("a_frame0", 0, "ed.nii.gz"), ("a_frame8", 8, "es.nii.gz")
    ]  # fmt: skip
    assert {case.subject_id for case in cases} == {"a"}


def test_csv_cases_in_folders_with_equal_file_names(tmp_path):
    touch(tmp_path, "s1/image.nii.gz", "s2/image.nii.gz", "s1/l.nii.gz", "s2/l.nii.gz")
    (tmp_path / "t.csv").write_text("image,label\ns1/image.nii.gz,s1/l.nii.gz\ns2/image.nii.gz,s2/l.nii.gz\n")
    assert [case.case_id for case in read_dataset(tmp_path / "t.csv").cases] == ["s1_image", "s2_image"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.nii.gz,l.nii.gz\n", "line 1: the header lacks image and label"),
        ("image,mask\na.nii.gz,l.nii.gz\n", "line 1: the header lacks label"),
        ("image,image,label\na.nii.gz,a.nii.gz,l.nii.gz\n", r"line 1: the header has image twice.*\|"),
        ("image,label,Label\na.nii.gz,l.nii.gz,m.nii.gz\n", "line 1: the header has label twice"),
        ("image,label\n", "no case below the header"),
        ("image,label\na.nii.gz,l.nii.gz\nzz.nii.gz,l.nii.gz\n", r"line 3: image .*zz.nii.gz does not exist"),
        ("image,label\na.nii.gz,zz.nii.gz\n", r"line 2: label .*zz.nii.gz does not exist"),
        ("image,label\n,l.nii.gz\n", "line 2: the image column is empty"),
        ("image,label\na.nii.gz,l.nii.gz,x\n", "line 2: 3 columns"),
        ('image,label,note\na.nii.gz,l.nii.gz,"5 inch\na.nii.gz,m.nii.gz,\n', "line 2: cannot be read.*quote"),
        ('image,label,note\na.nii.gz,l.nii.gz,\na.nii.gz,m.nii.gz,"5 inch', "line 3: cannot be read.*quote"),
        ('image,label,note\na.nii.gz,l.nii.gz,"5 inch\na.nii.gz,m.nii.gz,"6 inch\n', "line 2: cannot be read.*quote"),
        ("image,label,frame\na.nii.gz,l.nii.gz,-1\n", "line 2: frame -1 is no number"),
        ("image,label\na.nii.gz,l.nii.gz\na.nii.gz,m.nii.gz\n", "line 3: .*listed in line 2"),
        ("image,label\na.nii.gz,l.nii.gz\nsub/../a.nii.gz,m.nii.gz\n", "line 3: .*listed in line 2"),
        ("image,label\na.nii.gz,l.nii.gz\nlink.nii.gz,m.nii.gz\n", "line 3: .*listed in line 2"),
        ("image,label\na.nii.gz|link.nii.gz,l.nii.gz\n", "line 2: two channels are the same file"),
    ],
)
def test_csv_mistakes_name_the_line(tmp_path, text, words):
    touch(tmp_path, "a.nii.gz", "l.nii.gz", "m.nii.gz", "sub/b.nii.gz")
    if "link" in text:
        (tmp_path / "link.nii.gz").symlink_to("a.nii.gz")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_dataset(tmp_path / "t.csv")


def test_a_layout_is_one_function(tmp_path):
    """A toy layout (a text file with one pair a line) is found beside those of the package."""

    def read_pairs(path: Path) -> Dataset | None:
        table = path / "pairs.txt"
        if not table.is_file():
            return None
        files = [[path / name for name in line.split()] for line in table.read_text().splitlines()]
        cases = tuple(Case(image.stem, image.stem, "CT", (image,), label) for image, label in files)
        return Dataset("toy", "CT", {1: "liver"}, cases)

    layouts = (*LAYOUTS, read_pairs)
    (tmp_path / "pairs.txt").write_text("a.nii x.nii\nb.nii y.nii\n")
    dataset = read_dataset(tmp_path, {1: "Leber"}, layouts=layouts)
    assert (dataset.name, dataset.labels) == ("toy", {1: "Leber"})
    assert [case.label_path.name for case in dataset.labelled] == ["x.nii", "y.nii"]
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz")
    assert read_dataset(tmp_path, layouts=layouts).name == tmp_path.name, "the first layout that fits counts"


def test_csv_quotes_protect_separators_and_lines(tmp_path):
    touch(tmp_path, "a,1.nii.gz", "b.nii.gz", "l.nii.gz")
    rows = '"a,1.nii.gz", "l.nii.gz","5"" disc,\nnew"\nb.nii.gz,l.nii.gz,5" disc\n'
    (tmp_path / "t.csv").write_text("image,label,note\n" + rows)
    assert [case.case_id for case in read_dataset(tmp_path / "t.csv").labelled] == ["a,1", "b"]


def test_csv_lines_of_separators_are_empty(tmp_path):
    touch(tmp_path, "a.nii.gz", "l.nii.gz")
    (tmp_path / "t.csv").write_text("image,label\n,,,,\na.nii.gz,l.nii.gz\n\n")
    assert [case.case_id for case in read_dataset(tmp_path / "t.csv").labelled] == ["a"]


@pytest.mark.parametrize("name", ["missing", "a.nii.gz"])
def test_what_is_no_dataset(tmp_path, name):
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=name):
        read_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.nii.gz", "b.nii.gz"),
        ("x=1/a.nii.gz", "y=2:3/b.nii.gz"),
        (r"C:\a.nii.gz", r"D:\b.nii.gz"),
        (r"C:\a.nii", r"C:\b.nii"),
    ],
)
@pytest.mark.parametrize("sign", ["=", ":"])
def test_pairs(tmp_path, monkeypatch, image, label, sign):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, image, label)
    assert parse_pair(f"{image}{sign}{label}") == (Path(image), Path(label))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.nii.gz", "is no pair; write image=label"),
        ("=a.nii.gz", "is no pair; write image=label"),
        ("a.nii.gz=zz.nii.gz", "label zz.nii.gz not found"),
        ("zz.nii.gz=a.nii.gz", "image zz.nii.gz not found"),
        ("y.nii.gz=zz.nii.gz", "image y.nii.gz and label zz.nii.gz not found"),
        (r"C:\y.nii.gz:D:\z.nii.gz", r"image C:\\y.nii.gz and label D:\\z.nii.gz not found"),
        (r"C:\y.nii.gz=C:\z.nii.gz", r"image C:\\y.nii.gz and label C:\\z.nii.gz not found"),
        ("p=q=r", "not clear which one"),
        ("a=b=c", "several ways"),
    ],
)
def test_unclear_pairs(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.nii.gz", "a", "b=c", "a=b", "c")
    with pytest.raises(InputError, match=words):
        parse_pair(text)


@pytest.mark.real
@pytest.mark.parametrize(("name", "cases"), [("abd-mr-chaos", 20), ("card-mr-mscmr", 35), ("Task04_Hippocampus", 260)])
def test_real_decathlon_folders(name, cases):
    folder = real_data() / name
    if not folder.is_dir():
        pytest.skip(f"real scans not found at {folder}; set MEDFEWSHOT_DATA")
    dataset = read_dataset(folder)
    names = [case.image_path.name for case in dataset.cases]
    assert len(dataset.labelled) == cases
    assert names == sorted(names)
    assert dataset.modality.startswith("MR")


@pytest.mark.real
def test_real_image_and_label_in_one_folder():
    folder = real_data() / "ct-example"
    if not folder.is_dir():
        pytest.skip(f"real scans not found at {folder}; set MEDFEWSHOT_DATA")
    assert [case.case_id for case in read_dataset(folder).labelled] == ["ct-example"]


def test_a_project_of_the_workbench_is_a_data_set_with_what_is_not_drawn_ignored(tmp_path):
    touch(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", "project/labels/a.nii.gz")
    content = {
        "structures": [{"name": "liver", "value": 3, "color": "#ff0000"}],
        "scans": [{"name": name, "path": f"../scans/{name}.nii.gz"} for name in "abc"],
    }
    (tmp_path / "project" / "project.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path / "project")
    assert (dict(dataset.labels), dataset.ignore) == ({3: "liver"}, 255)
    assert [(case.case_id, case.label_path is not None) for case in dataset.cases] == [("a", True), ("b", False)]
    assert len(dataset.notes) == 1
    (tmp_path / "project" / "project.json").write_text("{}")
    with pytest.raises(InputError, match=r"project\.json"):
        read_dataset(tmp_path / "project")
