"""Exports of a clinical archive: series, and the label objects that refer to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the extra dicom is not installed")

import corpus_dicom

from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.io import EXPORTS, read_image
from medfewshot.workflow import read_supports


def patient(folder: Path, scan: str, label: str, *, kind: str, number: int = 1) -> Path:
    """A series under ``folder/scan``, and its label object as the file ``folder/label``."""
    series = corpus_dicom.series(folder, name=scan, SeriesInstanceUID=f"{corpus_dicom.ROOT}.{number}")
    volume = read_image(series)
    labels = np.zeros(volume.spatial_shape, np.uint8)
    labels[2:8, 3:9, :] = 3
    EXPORTS[kind].write(folder / label, labels, {3: "liver"}, volume, {})
    return series


@pytest.mark.parametrize("kind", ["dicom_seg", "rtstruct"])
@pytest.mark.parametrize(
    ("scan", "label"),
    [("CT", "rs.dcm"), ("study/CT_1", "study/RT_2/1-1"), (".", "rs.dcm"), ("ST1/SE1", "labels/SE7/IM1")],
    ids=["beside the series", "a folder of its own", "among the slices", "in another folder"],
)
def test_a_label_object_finds_its_series(tmp_path: Path, scan: str, label: str, kind: str) -> None:
    series = [patient(tmp_path / name, scan, label, kind=kind, number=n) for n, name in enumerate(("p1", "p2"), 1)]
    dataset = read_dataset(tmp_path)
    assert [(case.case_id, case.subject_id) for case in dataset.cases] == [("p1", "p1"), ("p2", "p2")]
    assert [case.image_path for case in dataset.cases] == series
    assert [case.label_path for case in dataset.cases] == [tmp_path / name / label for name in ("p1", "p2")]
    supports = read_supports(dataset)
    assert supports.names == {3: "liver"}
    assert [int(one.data.sum()) for one in supports.labels] == [3 * 6 * 6 * 14] * 2


def test_series_without_a_label_and_labels_without_a_series(tmp_path: Path) -> None:
    patient(tmp_path / "p1", "a/CT", "a/rs.dcm", kind="rtstruct")
    corpus_dicom.series(tmp_path / "p1", name="b/CT", SeriesInstanceUID=f"{corpus_dicom.ROOT}.2")
    shutil.rmtree(patient(tmp_path / "p2", "CT", "rs.dcm", kind="rtstruct", number=3))
    dataset = read_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["p1_a", "p1_b"]
    assert [case.case_id for case in dataset.labelled] == ["p1_a"]
    assert dataset.notes == (
        f"{tmp_path / 'p2/rs.dcm'}: skipped, because no series here is the one that it was drawn on",
    )


def test_two_labels_of_one_series_are_refused_but_copies_keep_their_own(tmp_path: Path) -> None:
    patient(tmp_path / "p1", "CT", "rs.dcm", kind="rtstruct")
    shutil.copytree(tmp_path / "p1", tmp_path / "p2")
    assert len(read_dataset(tmp_path).labelled) == 2
    shutil.copy(tmp_path / "p1/rs.dcm", tmp_path / "p1/again.dcm")
    with pytest.raises(InputError, match=r"CT: both .*again\.dcm and .*rs\.dcm were drawn on it"):
        read_dataset(tmp_path)
