"""Transport of scans and masks between files and the page, exact on the native grid.

The page shows every scan along the RAS+ axes that are nearest to its own. The way there is a permutation and flips of
array axes, never interpolation.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation

from medfewshot.errors import InputError
from medfewshot.types import Volume

_CHUNK_BYTES = 1 << 24
_BLOCK = 32
_INT16 = np.iinfo(np.int16)

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Begin and end (exclusive) along the three RAS axes."""


@dataclass(frozen=True)
class Frame:
    """How file axes become the RAS axes of the page.

    Attributes:
        axes: File axis that runs along R, A and S.
        flips: True for a RAS axis that runs against its file axis.
        affine: ``(4, 4)``, RAS voxel of the page -> RAS mm.
        shape: Voxels along R, A and S.
        flat: RAS axis along which a 2D image has its only slice, else None.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    affine: np.ndarray
    shape: tuple[int, int, int]
    flat: int | None = None

    def view(self, array: np.ndarray) -> np.ndarray:
        """View ``array`` (*S, file order) in RAS order. Writing to it writes to ``array``."""
        box = array[..., None] if array.ndim == 2 else array
        turned = box.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def file_slice(self, plane: int, index: int) -> int:
        """Index along the file axis of slice ``index`` along the RAS axis ``plane``. Its own inverse."""
        return self.shape[plane] - 1 - index if self.flips[plane] else index


def frame_of(scan: Volume) -> Frame:
    """Find the frame in which the page shows ``scan``."""
    orientation = io_orientation(scan.affine)
    order = [int(np.flatnonzero(orientation[:, 0] == ras)[0]) for ras in range(3)]
    box = (*scan.spatial_shape, 1)[:3]
    flips = tuple(bool(orientation[axis, 1] < 0) for axis in order)
    return Frame(
        axes=(order[0], order[1], order[2]),
        flips=(flips[0], flips[1], flips[2]),
        affine=scan.affine @ inv_ornt_aff(orientation, box),
        shape=(box[order[0]], box[order[1]], box[order[2]]),
        flat=order.index(2) if scan.spatial_dims == 2 else None,
    )


def display_file(image: np.ndarray, frame: Frame) -> Iterator[bytes]:
    """Yield a NIfTI file for the viewer, in parts: int16 with a slope, along the axes of the frame.

    Its affine is diagonal: the viewer shows slices of the voxel grid, and must not choose axes of its own.

    Args:
        image: ``(*S)`` float32 in file order.
        frame: From :func:`frame_of`.
    """
    low, high = float(image.min()), float(image.max())
    whole = low >= _INT16.min and high <= _INT16.max and all(bool((np.rint(part) == part).all()) for part in image)
    slope, inter = (1.0, 0.0) if whole or high == low else ((high - low) / 65534, (high + low) / 2)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(frame.shape)
    header.set_sform(np.diag([*np.linalg.norm(frame.affine[:3, :3], axis=0), 1.0]), code=1)
    header.set_zooms(np.linalg.norm(frame.affine[:3, :3], axis=0))
    header.set_slope_inter(slope, inter)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    yield header.binaryblock + b"\0" * 4
    turned = frame.view(image)
    for begin in range(0, frame.shape[2], step := max(1, _CHUNK_BYTES // (2 * frame.shape[0] * frame.shape[1]))):
        yield _stored(turned[:, :, begin : begin + step], slope, inter).tobytes(order="F")


def _stored(part: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Round to int16, the first axis fastest. Block by block: the axis that was fastest before would miss the cache."""
    stored = np.empty(part.shape, np.int16, order="F")
    for begin in range(0, len(part), _BLOCK):
        block = part[begin : begin + _BLOCK]
        whole = (slope, inter) == (1, 0)
        stored[begin : begin + _BLOCK] = block if whole else np.rint((block - np.float32(inter)) / np.float32(slope))
    return stored


def place(labels: np.ndarray, box: Box, drawn: np.ndarray, *, frame: Frame) -> None:
    """Write what the page drew in a box on its RAS axes into ``labels (*S)``, uint8 in file order.

    Raises:
        InputError: The box is not inside the scan.
    """
    check_box(box, frame.shape)
    frame.view(labels)[tuple(slice(*edge) for edge in box)] = drawn


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
