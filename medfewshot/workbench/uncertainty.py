"""Where a draft is uncertain: one byte a voxel, in ``drafts/uncertainty/CASE-NUMBER.nii.gz``."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np

from medfewshot.io import write_label
from medfewshot.workbench.mask_store import SUFFIX
from medfewshot.workbench.project import Project

MOST_VOXELS = 40_000_000
"""Larger scans get no map: it would take as much memory as the scan, and minutes."""


def _path(project: Project, name: str) -> Path:
    # The number of the draft is in the name, so that a map is never shown beside another draft.
    return project.folder / "drafts" / "uncertainty" / f"{name}-{project.case(name).draft:04d}{SUFFIX}"


def write_uncertainty(project: Project, name: str, uncertainty: np.ndarray) -> None:
    """Store the uncertainty ``(*S)`` in [0, 1] of the newest draft of a case, and delete the one before."""
    path = _path(project, name)
    write_label(path, np.rint(255 * uncertainty).astype(np.uint8), project.grid(name))
    number = int(project.case(name).draft)
    for old in range(max(1, number - 2), number):
        path.with_name(f"{name}-{old:04d}{SUFFIX}").unlink(missing_ok=True)


def read_uncertainty(project: Project, name: str) -> np.ndarray | None:
    """Read the uncertainty of the newest draft, ``(*S)`` uint8 from 0 to 255; None if it has none."""
    path = _path(project, name)
    if not path.is_file():
        return None
    values = np.asarray(nib.Nifti1Image.from_filename(path).dataobj, np.uint8)  # no labels: not for `read_label`
    shape = project.grid(name).spatial_shape
    return values.reshape(shape) if values.size == math.prod(shape) else None  # the scan was replaced
