"""Exports of a clinical archive: DICOM series, and the segmentations or structure sets that refer to them."""

from __future__ import annotations

from os.path import commonpath
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.errors import InputError
from medfewshot.io import dicom_labels, referenced_series, series_folders, series_of
from medfewshot.types import Case


def read_dicom_exports(folder: Path) -> Dataset | None:
    """Pair each series with the segmentation or structure set that refers to it, wherever both lie.

    The first folders below ``folder`` that tell cases apart name them, and the first one names the subject.

    Raises:
        InputError: Two label files refer to one series, or pydicom is not installed.
    """
    labels = dicom_labels(folder) if folder.is_dir() else []
    if not labels:
        return None
    images = series_folders(folder)
    series = {image: series_of(image) for image in images}
    label_of: dict[Path, Path] = {}
    lost = []
    for label in labels:
        drawn_on = referenced_series(label)
        found = [image for image, uid in series.items() if uid in drawn_on]
        if not found:
            lost.append(label)
            continue
        image = max(found, key=lambda image: len(Path(commonpath([image, label])).parts))  # copies: the nearest one
        if image in label_of:
            raise InputError(
                f"{image}: both {label_of[image]} and {label} were drawn on it", "keep one, or list them in a CSV"
            )
        label_of[image] = label
    paths = [image.relative_to(folder).parts or (folder.resolve().name,) for image in images]
    cases = [
        Case(name, path[0], None, (image,), label_of.get(image))
        for name, path, image in zip(_names(paths), paths, images, strict=True)
    ]
    return dataset_of(folder, cases, skipped(lost, "no series here is the one that it was drawn on"))


def _names(paths: list[tuple[str, ...]]) -> list[str]:
    """Return the fewest leading folders that tell paths apart: ``p1`` of ``p1/study/CT`` beside ``p2/study/CT``."""
    deepest = max(map(len, paths), default=1)
    named = [["_".join(path[:depth]) for path in paths] for depth in range(1, deepest + 1)]
    return next((names for names in named if len(set(names)) == len(paths)), named[-1])
