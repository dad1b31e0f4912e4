"""Miniatures of public data sets and of annotation tools: each has the file names of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import toys

from medfewshot.datasets import Dataset, read_dataset
from medfewshot.errors import InputError
from medfewshot.inspection import inspect
from medfewshot.io import read_label
from medfewshot.workflow import read_supports
from medfewshot.workflow.volumes import check_channels, find_cases

IMAGE, LABEL = toys.make_scan(0)
NUMBERED = np.where(LABEL == 205, 1, np.where(LABEL == 420, 2, 0)).astype(np.int16)


def scans(root: Path, *names: str, data: np.ndarray = IMAGE) -> None:
    for name in names:
        save = toys.save_nifti if name.endswith((".nii", ".nii.gz")) else toys.save_itk
        save(root / name, data)


def labels(root: Path, *names: str) -> None:
    scans(root, *names, data=NUMBERED)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def check(root: Path, labelled: list[str], *, unlabelled: int = 0, skipped: tuple[str, ...] = ()) -> Dataset:
    """The cases by name; every labelled one is usable; and each note contains its words."""
    dataset = read_dataset(root)
    assert [case.case_id for case in dataset.labelled] == labelled
    assert len(dataset.cases) == len(labelled) + unlabelled
    assert len(dataset.notes) == len(skipped), dataset.notes
    assert all(words in note for words, note in zip(skipped, dataset.notes, strict=True)), dataset.notes
    found = inspect(dataset)
    assert sum(row.usable for row in found.cases if row.label) == len(labelled), found.problems
    return dataset


def test_lits(tmp_path):
    scans(tmp_path, "batch1/volume-0.nii", "batch2/volume-28.nii", "test/test-volume-0.nii")
    labels(tmp_path, "batch1/segmentation-0.nii", "batch2/segmentation-28.nii", "batch2/segmentation-30.nii")
    dataset = check(tmp_path, ["volume-0", "volume-28"], unlabelled=1, skipped=("segmentation-30.nii",))
    assert [case.label_path.name for case in dataset.labelled] == ["segmentation-0.nii", "segmentation-28.nii"]


def test_labels_of_other_names_beside_a_public_set_are_noted(tmp_path):
    scans(tmp_path, "volume-0.nii", "x.nii")
    labels(tmp_path, "segmentation-0.nii", "x_seg.nii")
    check(tmp_path, ["volume-0"], skipped=("x_seg.nii: skipped, because it is not named like the other labels",))


def test_lits_with_two_files_of_one_number(tmp_path):
    scans(tmp_path, "a/volume-0.nii", "b/volume-0.nii")
    labels(tmp_path, "a/segmentation-0.nii")
    with pytest.raises(InputError, match="keep one"):
        read_dataset(tmp_path)


def test_kits_19_and_23(tmp_path):
    scans(tmp_path, "dataset/case_00000/imaging.nii.gz", "dataset/case_00001/imaging.nii.gz")
    labels(tmp_path, *[f"dataset/case_0000{number}/segmentation.nii.gz" for number in (0, 2)])
    labels(tmp_path, "dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz")
    assert check(tmp_path, ["case_00000"], unlabelled=1, skipped=("imaging.nii.gz is not beside",)).labels == {}
    text(tmp_path / "dataset" / "kits.json", "[]")
    assert read_dataset(tmp_path).labels == {1: "kidney", 2: "tumor", 3: "cyst"}
    assert [case.case_id for case in read_dataset(tmp_path / "dataset" / "case_00000").labelled] == ["case_00000"]


def test_kits_21(tmp_path):
    for number in (0, 1):
        scans(tmp_path, f"data/case_0000{number}/imaging.nii.gz")
        labels(tmp_path, *[f"data/case_0000{number}/aggregated_{how}_seg.nii.gz" for how in ("MAJ", "AND", "OR")])
        labels(tmp_path, f"data/case_0000{number}/segmentations/kidney_instance-1_annotation-1.nii.gz")
    dataset = check(tmp_path, ["case_00000", "case_00001"], skipped=("aggregated_AND_seg.nii.gz and 3 more",))
    assert {case.label_path.name for case in dataset.labelled} == {"aggregated_MAJ_seg.nii.gz"}


@pytest.mark.parametrize(
    ("case", "sign", "channels", "third"),
    [
        ("HGG/Brats18_2013_2_1", "_", ("t1", "t1ce", "t2", "flair"), None),
        ("BraTS2021_00000", "_", ("t1", "t1ce", "t2", "flair"), None),
        ("BraTS-GLI-00000-000", "-", ("t1n", "t1c", "t2w", "t2f"), "enhancing tumor"),
        ("BraTS-MEN-00004-000", "-", ("t1n", "t1c", "t2w", "t2f"), None),
    ],
)
def test_brats_of_both_generations(tmp_path, case, sign, channels, third):
    name = Path(case).name
    scans(tmp_path, *[f"{case}/{name}{sign}{channel}.nii.gz" for channel in channels])
    labels(tmp_path, f"{case}/{name}{sign}seg.nii.gz")
    other = name[:-1] + "9"
    scans(tmp_path, *[f"val/{other}/{other}{sign}{channel}.nii.gz" for channel in channels])
    broken = name[:-1] + "8"
    scans(tmp_path, f"val/{broken}/{broken}{sign}{channels[0]}.nii.gz")
    dataset = check(tmp_path, [name], unlabelled=1, skipped=("4 scans that the other cases have",))
    files = [path.name for path in dataset.labelled[0].image_paths]
    assert files == [f"{name}{sign}{channel}.nii.gz" for channel in channels]
    assert dataset.labels.get(3) == third
    (query,) = find_cases([dataset.cases[1].image_path.parent], channels=4)
    assert (query.case_id, query.image_paths) == (other, dataset.cases[1].image_paths)
    check_channels(query, 4)
    assert (dataset.labels.get(4) == "enhancing tumor") == (channels[1] == "t1ce")


def test_totalsegmentator(tmp_path):
    for number, image in ((4, "ct"), (7, "mri")):
        scans(tmp_path, f"s{number:04}/{image}.nii.gz")
        for value, name in ((205, "liver"), (420, "spleen"), (7, "aorta")):
            scans(tmp_path, f"s{number:04}/segmentations/{name}.nii.gz", data=(value == LABEL).astype(np.uint8))
    scans(tmp_path, "s0009/segmentations/liver.nii.gz", data=(LABEL == 205).astype(np.uint8))
    text(tmp_path / "meta.csv", "image_id;age\ns0004;50\n")
    dataset = check(tmp_path, ["s0004", "s0007"], skipped=("ct.nii.gz or mri.nii.gz is not beside",))
    assert [case.modality for case in dataset.labelled] == ["CT", "MR"]
    found = read_supports(dataset)
    assert found.names == {1: "aorta", 2: "liver", 3: "spleen"}
    for label in found.labels:
        assert np.array_equal(label.data[0], np.where(LABEL == 205, 2, np.where(LABEL == 420, 3, 0)))
    assert [case.case_id for case in read_dataset(tmp_path / "s0004").labelled] == ["s0004"]


def test_masks_that_overlap_are_refused(tmp_path):
    for name in ("liver", "spleen"):
        scans(tmp_path, f"m/{name}.nii.gz", data=(LABEL == 205).astype(np.uint8))
    with pytest.raises(InputError, match="liver marks too"):
        read_label(tmp_path / "m")


def test_totalsegmentator_with_a_missing_mask_keeps_the_names_of_the_others(tmp_path):
    for number, names in ((0, {"liver": 205, "spleen": 420}), (1, {"spleen": 420})):
        scans(tmp_path, f"s{number}/ct.nii.gz")
        for name, value in names.items():
            scans(tmp_path, f"s{number}/segmentations/{name}.nii.gz", data=(value == LABEL).astype(np.uint8))
    found = inspect(read_dataset(tmp_path))
    assert [[stats.value for stats in row.labels] for row in found.cases] == [[1, 2], [2]]
    assert dict(found.labels) == {1: "liver", 2: "spleen"}
    first, second = read_supports(read_dataset(tmp_path)).labels
    assert np.array_equal(first.data[0] == 2, LABEL == 420)
    assert np.array_equal(second.data[0] == 2, LABEL == 420)


def test_btcv(tmp_path):
    root = tmp_path / "RawData"
    scans(root, "Training/img/img0001.nii.gz", "Training/img/img0002.nii.gz", "Testing/img/img0061.nii.gz")
    labels(root, "Training/label/label0001.nii.gz", "Training/label/label0002.nii.gz")
    for place in (tmp_path, root):
        assert len(check(place, ["img0001", "img0002"], unlabelled=1).labels) == 0
    check(root / "Training", ["img0001", "img0002"])


def test_amos(tmp_path):
    scans(tmp_path, "imagesTr/amos_0001.nii.gz", "imagesVa/amos_0008.nii.gz", "imagesVa/amos_0507.nii.gz")
    labels(tmp_path, "labelsTr/amos_0001.nii.gz", "labelsVa/amos_0008.nii.gz", "labelsVa/amos_0507.nii.gz")
    scans(tmp_path, "imagesTs/amos_0192.nii.gz")
    entry = {"image": "./imagesTr/amos_0001.nii.gz", "label": "./labelsTr/amos_0001.nii.gz"}
    text(tmp_path / "dataset.json", json.dumps({"labels": {"0": "background", "1": "spleen"}, "training": [entry]}))
    dataset = check(tmp_path, ["amos_0001", "amos_0008", "amos_0507"], unlabelled=1)
    assert [case.modality for case in dataset.labelled] == ["CT", "CT", "MR"]
    assert (dataset.labels[6], dataset.labels[15], len(dataset.labels)) == ("liver", "prostate/uterus", 15)


def test_acdc(tmp_path):
    for number in ("001", "002"):
        place = f"database/training/patient{number}/patient{number}"
        scans(tmp_path, f"{place}_frame01.nii.gz", f"{place}_frame12.nii.gz")
        scans(tmp_path, f"{place}_4d.nii.gz", data=np.stack([IMAGE] * 2, -1))
        labels(tmp_path, f"{place}_frame01_gt.nii.gz", f"{place}_frame12_gt.nii.gz")
    names = [f"patient{number}_frame{frame}" for number in ("001", "002") for frame in ("01", "12")]
    dataset = check(tmp_path, names, skipped=("time series",))
    assert [case.subject_id for case in dataset.cases] == ["patient001", "patient001", "patient002", "patient002"]
    assert dataset.labels == {}
    for number in ("001", "002"):
        text(tmp_path / f"database/training/patient{number}/Info.cfg", "ED: 1\nES: 12\n")
    assert read_dataset(tmp_path / "database").labels == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}


def test_promise12(tmp_path):
    for part, number in ((1, "00"), (2, "26"), (2, "100")):
        scans(tmp_path, f"TrainingData_Part{part}/Case{number}.mhd")
        labels(tmp_path, f"TrainingData_Part{part}/Case{number}_segmentation.mhd")
    check(tmp_path, ["Case00", "Case100", "Case26"])
    check(tmp_path / "TrainingData_Part1", ["Case00"])


@pytest.mark.parametrize("name", ["case1", "Case00", "img0001", "volume-7", "verse004", "patient001_frame01"])
def test_a_scan_and_its_label_may_have_a_name_of_a_public_set(tmp_path, name):
    scans(tmp_path, f"images/{name}.nii.gz", "images/zz.nii.gz")
    labels(tmp_path, f"labels/{name}.nii.gz", "labels/zz.nii.gz")
    assert check(tmp_path, [name, "zz"]).modality is None


def test_numbered_cases_of_nifti_are_not_promise12(tmp_path):
    scans(tmp_path, "case1.nii.gz", "other.nii.gz")
    labels(tmp_path, "case1_segmentation.nii.gz", "other_segmentation.nii.gz")
    dataset = check(tmp_path, ["case1", "other"])
    assert [case.modality for case in dataset.cases] == [None, None]


def test_verse(tmp_path):
    names = ("sub-verse004", "sub-verse500_dir-ax", "sub-verse401_split-verse253")
    for name in names:
        subject = name.split("_")[0]
        scans(tmp_path, f"dataset-01training/rawdata/{subject}/{name}_ct.nii.gz")
        labels(tmp_path, f"dataset-01training/derivatives/{subject}/{name}_seg-vert_msk.nii.gz")
        text(tmp_path / f"dataset-01training/derivatives/{subject}/{name}_seg-subreg_ctd.json", "[]")
    dataset = check(tmp_path, sorted(names))
    assert (dataset.labels[1], dataset.labels[8], dataset.labels[20], dataset.labels[28]) == ("C1", "T1", "L1", "T13")
    assert check(tmp_path / "dataset-01training", sorted(names)).modality == "CT"


def test_verse_of_2019(tmp_path):
    scans(tmp_path, "verse004.nii.gz", "verse500_CT-iso.nii.gz", "verse800_CT-ax.nii.gz")
    labels(tmp_path, "verse004_seg.nii.gz", "verse500_CT-iso_seg.nii.gz")
    assert check(tmp_path, ["verse004", "verse500_CT-iso"], unlabelled=1).labels[21] == "L2"


def test_bids_derivatives(tmp_path):
    for subject in ("01", "02", "03"):
        scans(tmp_path, f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz", f"sub-{subject}/anat/sub-{subject}_T2w.nii.gz")
    scans(tmp_path, "sub-01/func/sub-01_task-rest_bold.nii.gz")
    for subject in ("01", "02"):
        place = f"derivatives/manual/sub-{subject}/anat/sub-{subject}"
        labels(tmp_path, f"{place}_dseg.nii.gz", f"{place}_desc-brain_mask.nii.gz")
        labels(tmp_path, f"{place}_space-MNI152NLin2009cAsym_dseg.nii.gz")
    text(tmp_path / "derivatives/manual/dseg.tsv", "index\tname\n0\tbackground\n1\tleft\n2\tright\n")
    words = ("T2w would fit too", "T2w would fit too", "no scan has the same entities", "another segmentation")
    dataset = check(tmp_path, ["sub-01_T1w", "sub-02_T1w"], unlabelled=1, skipped=words)
    assert dataset.labels == {1: "left", 2: "right"}
    assert [case.subject_id for case in dataset.cases] == ["01", "02", "03"]


def test_bids_sessions_and_scans_beside_their_labels(tmp_path):
    for session in ("1", "2"):
        name = f"sub-r001s001/ses-{session}/anat/sub-r001s001_ses-{session}_space-MNI152NLin2009aSym"
        scans(tmp_path, f"derivatives/ATLAS/{name}_T1w.nii.gz")
        labels(tmp_path, f"derivatives/ATLAS/{name}_label-L_desc-T1lesion_mask.nii.gz")
    dataset = check(tmp_path, [f"sub-r001s001_ses-{n}_space-MNI152NLin2009aSym_T1w" for n in (1, 2)])
    assert {case.subject_id for case in dataset.cases} == {"r001s001"}


@pytest.mark.parametrize("entity", ["acq-post", "ce-GAD", "rec-norm", "echo-2", "inv-2"])
def test_a_bids_label_belongs_to_the_scan_with_the_same_entities(tmp_path, entity):
    scans(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", f"sub-01/anat/sub-01_{entity}_T1w.nii.gz")
    labels(tmp_path, f"derivatives/manual/sub-01/anat/sub-01_{entity}_dseg.nii.gz")
    (case,) = read_dataset(tmp_path).labelled
    assert case.image_path.name == f"sub-01_{entity}_T1w.nii.gz"


def test_a_bids_label_of_another_echo_is_no_label_of_this_one(tmp_path):
    scans(tmp_path, "sub-01/anat/sub-01_echo-1_T2w.nii.gz", "sub-02/anat/sub-02_echo-1_T2w.nii.gz")
    labels(tmp_path, "derivatives/manual/sub-01/anat/sub-01_echo-2_dseg.nii.gz")
    labels(tmp_path, "derivatives/manual/sub-02/anat/sub-02_echo-1_dseg.nii.gz")
    check(tmp_path, ["sub-02_echo-1_T2w"], skipped=("no scan has the same entities",))


def test_bids_tables_that_contradict_each_other_are_refused(tmp_path):
    for subject, name in (("01", "liver"), ("02", "spleen")):
        scans(tmp_path, f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
        place = f"derivatives/manual/sub-{subject}/anat/sub-{subject}_dseg"
        labels(tmp_path, f"{place}.nii.gz")
        text(tmp_path / f"{place}.tsv", f"index\tname\n1\t{name}\n")
    with pytest.raises(InputError, match="value 1 is 'liver' and 'spleen'"):
        read_dataset(tmp_path)


def test_bids_with_two_equal_labels_is_refused(tmp_path):
    scans(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    labels(tmp_path, *[f"derivatives/x/sub-01/anat/sub-01_label-{side}_mask.nii.gz" for side in "LR"])
    with pytest.raises(InputError, match="two labels for one image"):
        read_dataset(tmp_path)


def test_monai_label(tmp_path):
    scans(tmp_path, "c0.nii.gz", "c1.nii.gz", "c2.nii.gz")
    labels(tmp_path, "labels/final/c0.nii.gz", "labels/original/c0.nii.gz", "labels/original/c1.nii.gz")
    text(tmp_path / "datastore_v2.json", "{}")
    dataset = check(tmp_path, ["c0"], unlabelled=2, skipped=("draft",))
    assert dataset.labelled[0].label_path == tmp_path / "labels/final/c0.nii.gz"


SCENE = """<?xml version="1.0" encoding="UTF-8"?>
<MRML  version="Slicer4.4.0" userTags="">
 <Volume id="vtkMRMLScalarVolumeNode1" name="CT" references="display:vtkMRMLD1;storage:vtkMRMLS1;"></Volume>
 <VolumeArchetypeStorage id="vtkMRMLS1" fileName="CT%20chest.nrrd"></VolumeArchetypeStorage>
 <Volume id="vtkMRMLScalarVolumeNode2" name="other" references="storage:vtkMRMLS3;"></Volume>
 <VolumeArchetypeStorage id="vtkMRMLS3" fileName="other.nrrd"></VolumeArchetypeStorage>
 <Segmentation id="vtkMRMLSegmentationNode1" name="Segmentation" references=\
"display:vtkMRMLD2;referenceImageGeometryRef:vtkMRMLScalarVolumeNode1;storage:vtkMRMLS2;"></Segmentation>
 <SegmentationStorage id="vtkMRMLS2" fileName="Segmentation.nrrd"></SegmentationStorage>
</MRML>
"""


@pytest.mark.parametrize("places", [("p1", "p2"), (".",)])
def test_slicer_scenes(tmp_path, places):
    for place in places:
        scans(tmp_path, f"{place}/CT chest.nrrd", f"{place}/other.nrrd")
        labels(tmp_path, f"{place}/Segmentation.nrrd")
        text(tmp_path / place / "Scene.mrml", SCENE)
    names = [place if place != "." else tmp_path.name for place in places]
    dataset = check(tmp_path, names, skipped=("no segmentation of it",) * len(places))
    assert dataset.labelled[0].image_path.name == "CT chest.nrrd"
    assert dataset.labelled[0].label_path.name == "Segmentation.nrrd"


@pytest.mark.parametrize("content", ["no xml", '<!DOCTYPE a [<!ENTITY b "c">]><MRML></MRML>'])
def test_a_broken_scene_is_named(tmp_path, content):
    text(tmp_path / "Scene.mrml", content)
    with pytest.raises(InputError, match=r"Scene\.mrml"):
        read_dataset(tmp_path)


def decathlon_of_two_channels(folder, volumes):
    scans(folder, "imagesTr/prostate_00.nii.gz", data=np.stack([IMAGE] * volumes, -1))
    labels(folder, "labelsTr/prostate_00.nii.gz")
    entry = {"image": "./imagesTr/prostate_00.nii.gz", "label": "./labelsTr/prostate_00.nii.gz"}
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "PZ"}, "training": [entry]}
    text(folder / "dataset.json", json.dumps(content))
    return folder


def test_decathlon_with_channels_in_one_file(tmp_path):
    assert read_dataset(decathlon_of_two_channels(tmp_path, 2)).channels == 2


def test_decathlon_with_other_channels_than_it_names(tmp_path):
    with pytest.raises(InputError, match=r"names 2 channels \(T2, ADC\), but .* has 3 volumes"):
        read_dataset(decathlon_of_two_channels(tmp_path, 3))


def test_regions_of_nnunet_become_their_values(tmp_path):
    for name in ("BRATS_001", "BRATS_002"):
        scans(tmp_path, *[f"imagesTr/{name}_000{channel}.nii.gz" for channel in (0, 1)])
        scans(tmp_path, f"labelsTr/{name}.nii.gz", data=NUMBERED + (NUMBERED == 2))
    names = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": [3]}
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": names, "regions_class_order": [1, 2, 3]}
    text(tmp_path / "dataset.json", json.dumps({**content, "file_ending": ".nii.gz"}))
    dataset = check(tmp_path, ["BRATS_001", "BRATS_002"], skipped=("regions share voxels",))
    assert dataset.labels == {
        1: "whole tumor outside tumor core, enhancing", 2: "tumor core outside enhancing", 3: "enhancing"
    }  # fmt: skip


def test_ignored_voxels_of_nnunet_leave_their_cases_usable(tmp_path):
    for name in ("a", "b"):
        scans(tmp_path, f"imagesTr/{name}_0000.nii.gz")
        labels(tmp_path, f"labelsTr/{name}.nii.gz")
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "ignore": 2}}
    text(tmp_path / "dataset.json", json.dumps({**content, "file_ending": ".nii.gz"}))
    dataset = check(tmp_path, ["a", "b"])
    assert (dataset.labels, dataset.ignore) == ({1: "liver"}, 2)


def test_one_scan_and_one_label_in_a_folder_belong_together(tmp_path):
    scans(tmp_path, "p1/ct.nii.gz", "p2/series.nii.gz")
    labels(tmp_path, "p1/label.nii.gz", "p2/mask.nii.gz")
    assert check(tmp_path, ["p1", "p2"]).labelled[0].subject_id == "p1"


def test_the_masks_of_a_folder_lie_on_their_grid(tmp_path):
    for value, name in ((205, "b"), (420, "a")):
        scans(tmp_path, f"m/{name}.nii.gz", data=(value == LABEL).astype(np.uint8))
    volume = read_label(tmp_path / "m")
    assert volume.names == {1: "a", 2: "b"}
    assert np.array_equal(volume.affine, nib.load(tmp_path / "m" / "a.nii.gz").affine)
    assert np.array_equal(volume.data[0], np.where(LABEL == 420, 1, np.where(LABEL == 205, 2, 0)))
