"""A synthetic abdominal CT cohort on disk, in Medical Segmentation Decathlon layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter

from medfewshot.synthetic import canvas as names
from medfewshot.synthetic.anatomy import paint_abdomen
from medfewshot.synthetic.canvas import WARP_MM, Canvas, draw_patient
from medfewshot.synthetic.shapes import rotation, smooth_field

COHORT_NAME = "synthetic abdominal CT"
CT_LABELS = {
    names.LIVER: "liver",
    names.RIGHT_KIDNEY: "right kidney",
    names.LEFT_KIDNEY: "left kidney",
    names.SPLEEN: "spleen",
    names.LESION: "liver lesion",
}
# (axis codes, obliqueness in degrees about x, y, z) of cases 0, 1, 2, ...: scanners and converters do not agree either.
_POSES: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("LPS", (0, 0, 0)),
    ("RAS", (0, 0, 0)),
    ("LPS", (5, -3, 7)),
    ("LAS", (0, 0, 0)),
    ("RSA", (0, 0, 0)),
)


def make_ct_cohort(
    folder: Path | str,
    cases: int = 8,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (128, 112, 80),
    spacing_mm: float = 3.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``cases`` synthetic contrast-enhanced abdominal CTs with labels and a ``dataset.json``.

    Axis order, obliqueness, spacing (+-8 %) and shape (+-6 %) differ from case to case; every fourth case has no
    lesion. The anatomy keeps its size in mm: a small ``shape`` at the same ``spacing_mm`` shows a part of the body.

    Args:
        folder: made if need be; files of the same names are replaced.
        shape: voxels to the right, front and head. spacing_mm: voxel edge.
        progress: called with (cases done, cases) after each.

    Returns:
        ``folder`` as a Path, ready for ``read_dataset``.
    """
    folder = Path(folder)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    training = []
    for index in range(cases):
        image, label, affine = make_ct_case(index, seed, shape, spacing_mm)
        name = f"case_{index:03d}.nii.gz"
        _save(folder / "imagesTr" / name, image, affine)
        _save(folder / "labelsTr" / name, label, affine)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        if progress is not None:
            progress(index + 1, cases)
    _write_json(folder / "dataset.json", training)
    return folder


def make_ct_case(
    index: int, seed: int, shape: tuple[int, int, int], spacing_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Case ``index`` of the cohort ``seed``; it does not depend on how many others are made.

    Returns:
        image ``(X, Y, Z)`` int16 HU, label ``(X, Y, Z)`` uint8 with the values of ``CT_LABELS``, affine ``(4, 4)``
        to RAS mm.
    """
    rng = np.random.default_rng([seed, index])
    codes, oblique = _POSES[index % len(_POSES)]
    size = tuple(int(n) for n in np.round(np.asarray(shape) * rng.uniform(0.96, 1.06, 3)))
    affine = _centred_affine(size, spacing_mm * rng.uniform(0.92, 1.08, 3), oblique)
    canvas = _blank_canvas(rng, size, affine)
    lesions = 0 if index % 4 == 3 else int(rng.integers(1, 4))
    paint_abdomen(canvas, draw_patient(rng, lesions))
    image = _scan(rng, canvas.image)
    return _reorient(image, canvas.label, affine, codes)


def _centred_affine(size: tuple[int, ...], spacing: np.ndarray, oblique: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(oblique) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return affine


def _blank_canvas(rng: np.random.Generator, size: tuple[int, ...], affine: np.ndarray) -> Canvas:
    """Air, and the smoothly warped position of each voxel: a large slow warp and a small quick one."""
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in size], indexing="ij"))
    points = np.tensordot(affine[:3, :3].astype(np.float32), index, axes=1)
    points += affine[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    points += WARP_MM * smooth_field(rng, size, 5, 3) + 0.3 * WARP_MM * smooth_field(rng, size, 13, 3)
    return Canvas(
        points=points,
        image=np.full(size, -1000, dtype=np.float32),
        label=np.zeros(size, dtype=np.uint8),
        edge_mm=float(np.mean(np.linalg.norm(affine[:3, :3], axis=0))),
        index_from_mm=np.linalg.inv(affine),
    )


def _scan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a scanner adds: tissue texture, point spread, grainy noise, and the 12-bit range. int16 HU."""
    noise_hu = rng.uniform(9, 16)
    tissue = image > -300
    image = image + tissue * 5 * smooth_field(rng, image.shape, 24, 1)[0]
    image = gaussian_filter(image, 0.45)
    noise = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.6)
    image += noise * (noise_hu / noise.std())
    return np.clip(np.round(image), -1024, 3071).astype(np.int16)


def _reorient(
    image: np.ndarray, label: np.ndarray, affine: np.ndarray, codes: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same scan with its array axes in another order and direction."""
    turn = ornt_transform(nib.orientations.io_orientation(affine), axcodes2ornt(tuple(codes)))
    turned = affine @ inv_ornt_aff(turn, image.shape)
    image, label = (np.ascontiguousarray(nib.orientations.apply_orientation(a, turn)) for a in (image, label))
    return image, label, turned


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    volume = nib.Nifti1Image(array, affine)
    volume.set_qform(affine, code=1)
    volume.set_sform(affine, code=1)
    volume.header.set_xyzt_units("mm")
    nib.save(volume, path)


def _write_json(path: Path, training: list[dict[str, str]]) -> None:
    content = {
        "name": COHORT_NAME,
        "description": "Procedural contrast-enhanced abdominal CT; no real person",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(value): name for value, name in CT_LABELS.items()}},
        "licence": "CC0 1.0",
        "numTraining": len(training),
        "training": training,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
