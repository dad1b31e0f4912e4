"""Small scans on disk, and a learner that needs no time: each voxel takes the class whose mean intensity is nearest."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from medfewshot.learners import LEARNERS, LearnerSpec, Segmenter
from medfewshot.types import Progress, Support

SHAPE = (16, 15, 14)
VALUES = (205, 420)
AFFINE = np.array([[0, -1.5, 0, 10], [-1.25, 0, 0, 20], [0, 0, 2.0, -30], [0, 0, 0, 1]], dtype=float)


class ToySegmenter(Segmenter):
    kind = "toy"
    means: Tensor

    def __init__(self, means: Tensor) -> None:
        super().__init__({"learner": "toy", "steps": 1, "final_loss": float("nan")})
        self.register_buffer("means", means)  # (classes, C)

    def forward(self, image: Tensor) -> Tensor:
        means = self.means.view(1, *self.means.shape, *[1] * (image.ndim - 2))
        return -20 * (image[:, None] - means).square().sum(2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ToySegmenter:
        return cls(torch.empty(0))


@dataclass(frozen=True)
class ToyLearner:
    seed: int = 0
    device: Any = None
    steps: int = 1
    progress: Progress = field(default_factory=Progress)
    adapted: ClassVar[int] = 0
    """How often any learner of this kind was asked to adapt."""

    def adapt(self, support: Support) -> ToySegmenter:
        ToyLearner.adapted += 1
        self.progress.update(1, 1, "learning")
        images = torch.cat([image.flatten(1) for image in support.images], 1)
        labels = torch.cat([label.flatten() for label in support.labels])
        return ToySegmenter(torch.stack([images[:, labels == k].mean(1) for k in range(support.classes)]))


TOY = LearnerSpec(name="toy", learner=ToyLearner, summary="the nearest mean intensity", segmenter=ToySegmenter)


def install(monkeypatch: Any) -> None:
    """Make ``--learner toy`` known for one test."""
    monkeypatch.setitem(LEARNERS, TOY.name, TOY)
    monkeypatch.setattr(ToyLearner, "adapted", 0)


def fill_disk(monkeypatch: Any, name: str) -> None:
    """No file called ``name`` can be written, as if the disk were full by then."""
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)


def make_scan(seed: int, shape: tuple[int, ...] = SHAPE, values: tuple[int, int] = VALUES) -> tuple[Any, Any]:
    """Image ``(*S)`` int16 of two blocks in noise, and its label ``(*S)``."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(100, 2, shape), np.zeros(shape, np.int16)
    for value, first, grey in zip(values, (2, 9), (200, 300), strict=True):
        box = (slice(first, first + 4 + seed % 2), *[slice(3, 9)] * (len(shape) - 1))
        image[box] += grey
        label[box] = value
    return image.astype(np.int16), label


def save_nifti(path: Path, data: Any, affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def save_itk(path: Path, data: Any) -> Path:
    """NRRD, MetaImage or picture."""
    import SimpleITK as sitk  # here, so that what needs no such file runs on a GPU machine without it

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing([1.25, 1.5, 2.0][: data.ndim])
    sitk.WriteImage(image, str(path))
    return path


def save_dicom(folder: Path, data: Any) -> Path:
    """A series of ``(X, Y, Z)``, or of time points ``(X, Y, Z, T)``."""
    import SimpleITK as sitk

    folder.mkdir(parents=True)
    frames = data if data.ndim == 4 else data[..., None]
    for time, index in np.ndindex(*frames.shape[:1:-1]):
        plane = data[:, :, index : index + 1, time] if data.ndim == 4 else data[:, :, index : index + 1]
        image = sitk.GetImageFromArray(np.ascontiguousarray(plane.T))
        image.SetSpacing([1.25, 1.5, 2.0])
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.1.{time}.{index + 1}",
            "0008|0060": "MR",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0013": str(index + 1),
            "0020|0032": f"0\\0\\{2.0 * index:g}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "2",
            **({"0018|1060": str(20 * time)} if data.ndim == 4 else {}),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{time}{index:03}.dcm"))
        writer.Execute(image)
    return folder


def assert_columns_described(folder: Path) -> None:
    """Every column of every table in ``folder`` is in its data dictionary, with a meaning."""
    tables = {path.name: path.read_text().splitlines()[0].split(",") for path in folder.glob("*.csv")}
    with open(folder / "data_dictionary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    del tables["data_dictionary.csv"]
    assert [(row["file"], row["column"]) for row in rows if row["meaning"]] == [
        (name, column) for name in sorted(tables) for column in tables[name]
    ]


def make_folders(root: Path, supports: int = 2, queries: int = 3) -> Path:
    """``annotated/images``, ``annotated/labels``, ``cohort`` and its ``reference`` labels under ``root``."""
    for number in range(supports):
        image, label = make_scan(number)
        save_nifti(root / "annotated" / "images" / f"s{number}.nii.gz", image)
        save_nifti(root / "annotated" / "labels" / f"s{number}.nii.gz", label)
    for number in range(queries):
        image, label = make_scan(10 + number)
        save_nifti(root / "cohort" / f"q{number}.nii.gz", image)
        save_nifti(root / "reference" / f"q{number}.nii.gz", label)
    return root
