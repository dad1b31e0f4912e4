"""FreeSurfer's volumes, ``.mgz`` and ``.mgh``, through nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import DType, Format, check_size
from medfewshot.types import Volume


def read(path: Path, dtype: DType) -> Volume:
    """Read ``data (1, X, Y, Z)`` in ``dtype``, or as stored if it is None. The affine is the scanner's."""
    import nibabel as nib

    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    opener: Any = gzip.open if is_compressed else open
    with opener(path, "rb") as stream:
        image: Any = nib.MGHImage.from_stream(stream)
        if len(image.shape) > 3 and image.shape[3] > 1:
            raise InputError(f"{path}: has {image.shape[3]} frames", "extract one volume")
        check_size(image.shape, image.get_data_dtype().itemsize, path)
        data = np.asanyarray(image.dataobj, dtype=dtype).copy(order="C")
        while stream.read(1 << 20):  # gzip compares its checksum at the end of the stream
            pass
    guess = "the header states no orientation: left and right are a guess"
    warnings = () if int(image.header["goodRASFlag"]) == 1 else (guess,)
    affine = np.array(image.affine, dtype=np.float64)
    return Volume(data.reshape(1, *image.shape[:3]), affine, warnings=warnings)


FREESURFER = Format(name="FreeSurfer's MGH", suffixes=(".mgz", ".mgh"), read=read)
