"""Write a cohort of synthetic abdominal CT scans in Medical Segmentation Decathlon layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy.spatial.transform import Rotation

from medfewshot.io import write_text
from medfewshot.synthetic import acquisition, warp
from medfewshot.synthetic.abdomen import STRUCTURES, TISSUES, abdomen
from medfewshot.synthetic.blobs import describe_dataset
from medfewshot.synthetic.parts import Part
from medfewshot.synthetic.render import MM_PER_UNIT, Tones, paint

COHORT_NAME = "synthetic abdominal CT"
CT_LABELS = dict(enumerate(STRUCTURES, start=1))
WARP = 0.02
"""Strength of the warp of each case, in template units."""
_POSES: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("LPS", (0, 0, 0)),
    ("RAS", (0, 0, 0)),
    ("LPS", (5, -3, 7)),
    ("LAS", (0, 0, 0)),
    ("RSA", (0, 0, 0)),
)
"""Axis codes and obliqueness (degrees about x, y, z) of cases 0, 1, 2 ..., as scanners and converters differ."""


def make_ct_cohort(
    folder: Path | str,
    cases: int = 8,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (128, 112, 80),
    spacing_mm: float = 3.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write synthetic contrast-enhanced abdominal CTs with labels and a ``dataset.json``.

    Axis order, obliqueness, spacing (8 % up or down) and shape (4 to 6 %) differ from case to case. Every fifth case
    has no lesion. The anatomy keeps its size in mm: a small ``shape`` at the same ``spacing_mm`` shows a part of it.

    Args:
        folder: Created if it does not exist; files of the same names are replaced.
        cases: Number of scans.
        seed: Another seed gives other scans; case ``i`` does not depend on the number of cases.
        shape: Voxels to the right, front and head.
        spacing_mm: Voxel edge.
        progress: Receives (cases done, cases).

    Returns:
        ``folder`` as a Path, ready for ``read_dataset``.
    """
    folder = Path(folder)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scans = [f"case_{index:03d}.nii.gz" for index in range(cases)]
    for index, scan in enumerate(scans):
        image, label, affine = make_ct_case(index, seed, shape, spacing_mm)
        _save(folder / "imagesTr" / scan, image, affine)
        _save(folder / "labelsTr" / scan, label, affine)
        if progress is not None:
            progress(index + 1, cases)
    about = "Procedural contrast-enhanced abdominal CT; no real person"
    write_text(folder / "dataset.json", describe_dataset(COHORT_NAME, about, "CT", CT_LABELS, scans))
    return folder


def make_ct_case(
    index: int, seed: int, shape: tuple[int, int, int], spacing_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make case ``index`` of the cohort ``seed``.

    Returns:
        image ``(X, Y, Z)`` int16 HU, label ``(X, Y, Z)`` uint8 with the values of ``CT_LABELS``, affine ``(4, 4)``
        to RAS mm.
    """
    rng = np.random.default_rng([seed, index])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    codes, oblique = _POSES[index % len(_POSES)]
    size = tuple(int(n) for n in np.round(np.asarray(shape) * rng.uniform(0.96, 1.06, 3)))
    affine = _centred_affine(size, spacing_mm * rng.uniform(0.92, 1.08, 3), oblique)
    parts = abdomen(rng, lesions=0 if index % 5 == 2 else int(rng.integers(1, 4)))
    edge = float(np.linalg.norm(affine[:3, :3], axis=0).mean()) / MM_PER_UNIT
    image, numbers = paint(parts, _points(size, affine, generator), edge, _draw_tones(rng), generator)
    label = _structure_of(parts)[numbers[0].long()].numpy()
    return _reorient(_scan(image, rng, generator), label, affine, codes)


def _centred_affine(size: tuple[int, ...], spacing: np.ndarray, oblique: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", oblique, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return affine


def _points(size: tuple[int, ...], affine: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Compute warped template coordinates of every voxel, ``(1, 3, *S)``."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1)
    points = torch.from_numpy(nib.affines.apply_affine(affine, index) / MM_PER_UNIT).float().movedim(-1, 0)[None]
    velocity = warp.velocity_fields(1, WARP, generator, points.device)
    return points + warp.sample_smooth(warp.integrate(velocity), points)


def _draw_tones(rng: np.random.Generator) -> Tones:
    """Draw the HU of every tissue in this case, because patients differ in their uptake of contrast medium."""
    means = {tissue: torch.tensor([rng.normal(mean, spread)]).float() for tissue, (mean, spread, _) in TISSUES.items()}
    return Tones(means, {tissue: texture for tissue, (_, _, texture) in TISSUES.items()})


def _structure_of(parts: list[Part]) -> torch.Tensor:
    """Return a table from the number of a part (from 1; 0 is air) to its label value."""
    table = torch.zeros(len(parts) + 1, dtype=torch.uint8)
    for number, part in enumerate(parts, start=1):
        for value, starts in enumerate(STRUCTURES.values(), start=1):
            if part.name.startswith(starts):
                table[number] = value
    return table


def _scan(clean: torch.Tensor, rng: np.random.Generator, generator: torch.Generator) -> np.ndarray:
    """Add the scanner's point spread and grainy noise; int16 HU in the 12-bit range."""
    image = acquisition.blur(clean, 0.5)
    noise = acquisition.blur(torch.randn(image.shape, generator=generator), 0.6)
    image = image + noise * (rng.uniform(9, 16) / noise.std())
    return image[0, 0].round().clamp(-1024, 3071).numpy().astype(np.int16)


def _reorient(
    image: np.ndarray, label: np.ndarray, affine: np.ndarray, codes: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reorder and flip the array axes of a scan to the axis codes ``codes``."""
    turn = ornt_transform(nib.orientations.io_orientation(affine), axcodes2ornt(tuple(codes)))
    turned = [nib.Nifti1Image(array, affine).as_reoriented(turn) for array in (image, label)]
    image, label = (np.ascontiguousarray(volume.dataobj) for volume in turned)
    return image, label, turned[0].affine


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    volume = nib.Nifti1Image(array, affine)
    volume.set_qform(affine, code=1)
    volume.set_sform(affine, code=1)
    volume.header.set_xyzt_units("mm")
    nib.save(volume, path)
