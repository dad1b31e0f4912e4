"""Names from ITK-SNAP's label descriptions."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medfewshot.errors import InputError
from medfewshot.io import read_label
from medfewshot.io.names import match_names

DESCRIPTION = """################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "liver"
    2     0  255    0     0.50  1  1    "left kidney"
    9     0    0  255        1  1  1    "unused"
"""


def label_map(folder, name="a.nii.gz"):
    folder.mkdir(exist_ok=True)
    data = np.zeros((12, 12, 12), dtype=np.uint8)
    data[2:5, 2:5, 2:5], data[7:10, 7:10, 7:10] = 1, 2
    nib.save(nib.Nifti1Image(data, np.eye(4)), folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["a.label", "a.txt", "labels.txt", "label_descriptions.txt"])
def test_a_description_beside_the_label_map_names_its_values(tmp_path, name):
    (tmp_path / name).write_text(DESCRIPTION)
    assert read_label(label_map(tmp_path)).names == {1: "liver", 2: "left kidney"}


def test_other_text_files_name_nothing(tmp_path):
    (tmp_path / "a.txt").write_text('1 255 0 0 1 1 1 "liver"\n')
    assert read_label(label_map(tmp_path)).names == {}


def test_its_own_description_counts_before_the_one_of_the_folder(tmp_path):
    (tmp_path / "labels.txt").write_text(DESCRIPTION.replace("liver", "spleen"))
    (tmp_path / "a.label").write_text(DESCRIPTION)
    assert read_label(label_map(tmp_path)).names[1] == "liver"


def test_descriptions_that_number_differently_are_matched_by_name(tmp_path):
    one, two = label_map(tmp_path / "one"), label_map(tmp_path / "two")
    (tmp_path / "one/a.label").write_text(DESCRIPTION)
    (tmp_path / "two/a.label").write_text(
        DESCRIPTION.replace("liver", "x").replace("left kidney", "liver").replace('"x"', '"left kidney"')
    )
    first, second = match_names([read_label(one), read_label(two)])
    assert (first.data[0, 3, 3, 3], second.data[0, 8, 8, 8]) == (1, 1)


def test_a_description_that_contradicts_the_data_set_is_an_error_with_both_names(tmp_path):
    (tmp_path / "a.label").write_text(DESCRIPTION)
    with pytest.raises(InputError) as caught:
        match_names([read_label(label_map(tmp_path))], {1: "spleen", 2: "left kidney"})
    assert "spleen" in str(caught.value)
    assert "liver" in str(caught.value)
