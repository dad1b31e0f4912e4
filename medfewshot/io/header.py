"""What a volume remembers of the file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Format = Literal["nifti", "itk", "picture", "dicom"]


@dataclass(frozen=True, eq=False)
class Header:
    """Lives in ``Volume.header``; only this room looks inside.

    ``suffix``: of the file read, in lower case (``".nii.gz"``, ``".dcm"``).
    ``affine``, ``shape``: the grid as read, so that a writer sees whether the volume still lies on it.
    ``has_spacing``: False where millimetres are not known (a photograph, a PNG); the affine then counts pixels.
    ``nifti``: nibabel's header, for the qform, sform, their codes and the units.
    """

    format: Format
    suffix: str
    affine: np.ndarray
    shape: tuple[int, ...]
    has_spacing: bool = True
    nifti: Any = None
