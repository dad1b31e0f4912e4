"""Tiny volumes of spheres and boxes, made in a millisecond, whose sizes are known on paper."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from medfewshot.io import atomic_path, write_text


def make_blob_volume(
    rng: np.random.Generator, shape: tuple[int, ...] = (24, 24, 24), labels: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """An image with ``labels`` separate structures, spheres (odd values) and boxes (even values), and its label map.

    The structures stand in a row along the first axis, jittered, so that they never touch. The noise has unit
    standard deviation and structure ``i`` is ``3 i`` brighter than the background.

    Args:
        shape: ``*S``, 2D or 3D. labels: number of structures; each needs about five voxels of the first axis.

    Returns:
        image ``(1, *S)`` float32, label ``(*S)`` int64 with values 0..labels.

    Raises:
        ValueError: the first axis has no room for that many structures.
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
    folder: Path | str, cases: int, seed: int = 0, shape: tuple[int, int, int] = (24, 20, 16), labels: int = 2
) -> Path:
    """Write ``cases`` blob volumes of 1 mm voxels with a ``dataset.json`` (MSD layout, MR); returns ``folder``.

    Nothing is written where the same call has written before.
    """
    folder = Path(folder)
    table = folder / "dataset.json"
    names = [f"blob_{index:03d}.nii.gz" for index in range(cases)]
    content = {
        "name": "blobs",
        "description": f"made up: seed {seed}, shape {list(shape)}",
        "modality": {"0": "MR"},
        "labels": {"0": "background", **{str(i): f"blob {i}" for i in range(1, labels + 1)}},
        "numTraining": cases,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    text = json.dumps(content, indent=1) + "\n"
    if table.is_file() and table.read_text(encoding="utf-8") == text:
        return folder
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        image, label = make_blob_volume(np.random.default_rng([seed, index]), shape, labels)
        for kind, data in (("imagesTr", image[0]), ("labelsTr", label.astype(np.uint8))):
            with atomic_path(folder / kind / name) as temporary:
                nib.save(nib.Nifti1Image(data, np.eye(4)), temporary)
    write_text(table, text)  # last: where it is, the scans are too
    return folder
