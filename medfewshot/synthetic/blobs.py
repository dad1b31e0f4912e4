"""Tiny test volumes of spheres and boxes, generated in a millisecond."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from medfewshot.io import atomic_path, write_text


def make_blob_volume(
    rng: np.random.Generator, shape: tuple[int, ...] = (24, 24, 24), labels: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Make an image with separate structures, spheres (odd values) and boxes (even values), and its label map.

    The structures are in a row along the first axis, with jitter, and never touch. The noise has unit standard
    deviation; structure ``i`` is ``3 i`` brighter than the background.

    Args:
        rng: Source of the draws.
        shape: ``*S``, 2D or 3D.
        labels: Number of structures; each needs about five voxels of the first axis.

    Returns:
        image ``(1, *S)`` float32, label ``(*S)`` int64 with values 0..labels.

    Raises:
        ValueError: The first axis has no room for that many structures.
    """
    slot = shape[0] / labels
    if slot < 5 or min(shape) < 5:
        raise ValueError(f"shape {shape} has no room for {labels} structures: give at least 5 voxels to each")
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    label = np.zeros(shape, dtype=np.int64)
    for value in range(1, labels + 1):
        radius = rng.uniform(0.6, 0.9) * min(slot - 1, *(n - 1 for n in shape)) / 2
        low = np.full(len(shape), radius)
        high = np.asarray(shape, dtype=float) - 1 - radius
        low[0], high[0] = slot * (value - 1) + radius, slot * value - 1 - radius
        centre = rng.uniform(low, np.maximum(low, high)).reshape(-1, *[1] * len(shape))
        offset = np.abs(grid - centre)
        distance = np.sqrt((offset**2).sum(axis=0)) if value % 2 else offset.max(axis=0)
        label[distance <= radius] = value
    image = rng.normal(0.0, 1.0, shape) + 3.0 * label
    return image[None].astype(np.float32), label


def write_blob_dataset(
    folder: Path | str, cases: int, seed: int = 0, *, shape: tuple[int, int, int] = (24, 20, 16), labels: int = 2
) -> Path:
    """Write blob volumes of 1 mm voxels with a ``dataset.json`` (MSD layout, MR).

    Nothing is written if the same call has written before.

    Args:
        folder: Created if it does not exist.
        cases: Number of scans.
        seed: Another seed gives other scans.
        shape: Voxels of each scan.
        labels: Number of structures in each scan.

    Returns:
        ``folder`` as a Path.
    """
    folder = Path(folder)
    table = folder / "dataset.json"
    scans = [f"blob_{index:03d}.nii.gz" for index in range(cases)]
    names = {value: f"blob {value}" for value in range(1, labels + 1)}
    text = describe_dataset("blobs", f"made up: seed {seed}, shape {list(shape)}", "MR", names, scans)
    if table.is_file() and table.read_text(encoding="utf-8") == text:
        return folder
    table.unlink(missing_ok=True)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, scan in enumerate(scans):
        image, label = make_blob_volume(np.random.default_rng([seed, index]), shape, labels)
        for kind, data in (("imagesTr", image[0]), ("labelsTr", label.astype(np.uint8))):
            with atomic_path(folder / kind / scan) as temporary:
                nib.save(nib.Nifti1Image(data, np.eye(4)), temporary)
    write_text(table, text)  # last: if it exists, the scans do too
    return folder


def describe_dataset(
    name: str, description: str, modality: str, labels: Mapping[int, str], scans: Sequence[str]
) -> str:
    """Return the text of a Decathlon ``dataset.json``; images are in ``imagesTr``, labels in ``labelsTr``."""
    content = {
        "name": name,
        "description": description,
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {"0": "background", **{str(value): label for value, label in labels.items()}},
        "licence": "CC0 1.0",
        "numTraining": len(scans),
        "training": [{"image": f"./imagesTr/{scan}", "label": f"./labelsTr/{scan}"} for scan in scans],
    }
    return json.dumps(content, indent=1) + "\n"
