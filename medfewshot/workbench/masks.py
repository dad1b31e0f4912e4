"""Transport of scans and masks between files and the page, exact on the native grid.

The page shows every scan along the RAS+ axes that are nearest to its own. The way there is a permutation and flips of
array axes, never interpolation.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence

import nibabel as nib
import numpy as np

from medfewshot.errors import InputError
from medfewshot.report.planes import Grid

_CHUNK_BYTES = 1 << 24
_BLOCK = 32
_INT16 = np.iinfo(np.int16)

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Begin and end (exclusive) along the three RAS axes."""


def display_file(image: np.ndarray, grid: Grid) -> Iterator[bytes]:
    """Yield a NIfTI file for the viewer, in parts: int16 with a slope, along the RAS+ axes.

    Its affine is diagonal: the viewer shows slices of the voxel grid, and must not choose axes of its own.

    Args:
        image: ``(*S)`` float32 in file order.
        grid: Of the scan.
    """
    low, high = float(image.min()), float(image.max())
    whole = low >= _INT16.min and high <= _INT16.max and all(bool((np.rint(part) == part).all()) for part in image)
    slope, inter = (1.0, 0.0) if whole or high == low else ((high - low) / 65534, (high + low) / 2)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(grid.shape)
    header.set_sform(np.diag([*grid.spacing_mm, 1.0]), code=1)
    header.set_zooms(grid.spacing_mm)
    header.set_slope_inter(slope, inter)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    yield header.binaryblock + b"\0" * 4
    turned = grid.to_ras(image)
    for begin in range(0, grid.shape[2], step := max(1, _CHUNK_BYTES // (2 * grid.shape[0] * grid.shape[1]))):
        yield _stored(turned[:, :, begin : begin + step], slope, inter).tobytes(order="F")


def _stored(part: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Round to int16, the first axis fastest. Block by block: the axis that was fastest before would miss the cache."""
    stored = np.empty(part.shape, np.int16, order="F")
    for begin in range(0, len(part), _BLOCK):
        block = part[begin : begin + _BLOCK]
        whole = (slope, inter) == (1, 0)
        stored[begin : begin + _BLOCK] = block if whole else np.rint((block - np.float32(inter)) / np.float32(slope))
    return stored


def place(labels: np.ndarray, box: Box, drawn: np.ndarray, *, grid: Grid) -> None:
    """Write what the page drew in a box on its RAS axes into ``labels (*S)``, uint8 in file order.

    Raises:
        InputError: The box is not inside the scan.
    """
    check_box(box, grid.shape)
    grid.to_ras(labels)[tuple(slice(*edge) for edge in box)] = drawn


def check_box(box: Box, shape: Sequence[int]) -> None:
    """Raise InputError unless ``box`` is inside a volume of this shape and contains a voxel."""
    if not all(0 <= begin < end <= size for (begin, end), size in zip(box, shape, strict=True)):
        raise InputError("the drawn region is not inside the scan", "reload the page")


def pack(labels: np.ndarray) -> bytes:
    """Compress a uint8 array, first axis fastest."""
    return gzip.compress(labels.tobytes(order="F"), compresslevel=1)


def unpack(body: bytes, box: Box) -> np.ndarray:
    """Compressed bytes of the page -> uint8 of the box's shape.

    Raises:
        InputError: The bytes are no gzip stream of exactly this many voxels. Never unpacks more than that.
    """
    shape = tuple(end - begin for begin, end in box)
    size = int(np.prod(shape, dtype=np.int64))
    stream = zlib.decompressobj(wbits=31)
    try:
        data = stream.decompress(body, size + 1)
    except zlib.error as error:
        raise InputError("the drawn region arrived damaged", "draw the last stroke again") from error
    if len(data) != size or not stream.eof:
        raise InputError("the drawn region has the wrong size", "reload the page")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F")
