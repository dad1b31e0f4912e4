"""What a file format provides, what a volume remembers of its file, and the checks that all readers share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.film import Film
from medfewshot.io.formats.signature import other_kind
from medfewshot.types import Volume

Kind = TypeVar("Kind")
DType = type[np.floating[Any]] | None

MAX_VOXELS_PER_BYTE = 50_000
"""How far the best compression in use (bzip2) packs a constant image. gzip reaches 1,000."""
_ITK_PREFIX = re.compile(r"^(sitk::ERROR: |ITK ERROR: |\w+\(0x[0-9a-f]+\): )+")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format. Each module of this folder ends with the format, or the family of formats, that it reads.

    Readers and writers need no error handling: ``medfewshot.io`` turns whatever they raise into one line that names
    the file, checks the grid and the values, and moves a file into place only if it is whole.

    Attributes:
        name: As users know it, e.g. ``"NIfTI"``.
        suffixes: Of its files, in lower case. If several formats fit a file name, the longest suffix counts.
        read: ``read(path, dtype)`` returns a volume ``(C, *S)`` in ``dtype``, or as stored if ``dtype`` is None (for a
            label map). It may keep a file header for its writer in ``Volume.header``, see :func:`kept_header`.
        film: ``film(path, dtype)`` opens a file that contains several volumes; None if it contains one. Without it, the
            format has no time series.
        read_label: Replaces ``read(path, None)`` for label maps, e.g. to refuse them.
        draw_label: Replaces ``read_label`` for files without a grid: ``draw_label(path, image)`` draws their structures
            on the grid of an image.
        results: Suffix of the results for an image of this format. It may belong to another format.
        writes: Suffixes that ``write`` can write.
        write: ``write(path, data, like)`` writes ``data (*S)`` or ``(N, *S)`` in its dtype on the grid of ``like``.
        dtypes: What a file can hold. Without float32, maps of real numbers need another format.
        only_2d: Whether a file contains one 2D map, ``(X, Y)``, and nothing else.
        labels_only: Whether every file with these suffixes is a label map and never a scan.
        crops_labels: Whether a label map may cover a part of its scan only. Its origin says which part.
        recognises: Tells from the content of a file whether it has this format. Asked if its suffix is unknown, or
            belongs to a format with this function: DICOM files of all kinds are ``.dcm``.
        folders: Whether a folder that contains such files is one image, as a DICOM series is.
        has_image: Tells whether a file of this format contains an image at all. A DICOM report does not.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, DType], Volume]
    film: Callable[[Path, DType], Film | None] | None = None
    read_label: Callable[[Path], Volume] | None = None
    draw_label: Callable[[Path, Volume], Volume] | None = None
    results: str = ".nii.gz"
    writes: tuple[str, ...] = ()
    write: Callable[[Path, np.ndarray, Volume], None] | None = None
    dtypes: tuple[type[np.generic], ...] = (np.uint8, np.uint16, np.int32, np.float32)
    only_2d: bool = False
    labels_only: bool = False
    crops_labels: bool = False
    recognises: Callable[[Path], bool] | None = None
    folders: bool = False
    has_image: Callable[[Path], bool] = Path.is_file


@dataclass(frozen=True, eq=False)
class Header:
    """What ``Volume.header`` contains after reading. Only ``medfewshot.io`` looks inside.

    Attributes:
        format: The format of the file.
        affine: As read, ``(4, 4)``, so that a writer sees whether the volume still lies on that grid.
        shape: As read.
        kept: The file header that the reader kept, or None.
    """

    format: Format
    affine: np.ndarray
    shape: tuple[int, ...]
    kept: Any = None


def kept_header(volume: Volume, kind: type[Kind]) -> Kind | None:
    """Return the file header of this kind that the reader kept, if the volume is still on its grid."""
    header = volume.header
    if not isinstance(header, Header) or not isinstance(header.kept, kind):
        return None
    same_grid = header.shape == volume.spatial_shape and np.array_equal(header.affine, volume.affine)
    return header.kept if same_grid else None


@dataclass(frozen=True)
class Refuse:
    """A reader that refuses every file: ``read`` of a format without scans, or ``read_label`` of one without labels.

    Attributes:
        problem: What is wrong, e.g. ``"is an RT structure set and no scan"``.
        remedy: What to do.
    """

    problem: str
    remedy: str = "give it as a label map"

    def __call__(self, path: Path, dtype: DType = None) -> Volume:
        """Refuse the file."""
        raise InputError(f"{path}: {self.problem}", self.remedy)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every exception into an InputError: a damaged file can raise nearly anything (zlib, EOF, struct, ITK)."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: does not fit into memory ({_reason(error)})", "crop or downsample it, or check its header"
        ) from error
    except Exception as error:
        other = other_kind(path)
        if other is not None:
            raise InputError(f"{path}: its content is {other.kind}", other.remedy) from error
        raise InputError(
            f"{path}: cannot be read ({_reason(error)})", "it may be damaged or cut short: copy or export it again"
        ) from error


def check_size(shape: Sequence[int], bytes_per_voxel: int, path: Path, *, has_voxels: bool = True) -> None:
    """Raise InputError if the size in a header exceeds the memory of this machine, or what the file can hold.

    This comes before any allocation: a few kilobytes can inflate to terabytes, and an allocation that succeeds may
    still end the process later. The size of a folder, or of a file that ``has_voxels`` elsewhere, does not count.
    """
    voxels, size = math.prod(int(n) for n in shape), "x".join(map(str, shape))
    needed, memory = voxels * (bytes_per_voxel + 4), _memory_bytes()
    if needed > memory:
        raise InputError(
            f"{path}: is {size} voxels by its header and does not fit into memory ({needed / 1e9:.3g} GB of "
            f"{memory / 1e9:.3g})",
            "crop or downsample it, or check its header",
        )
    stored = path.stat().st_size if has_voxels and path.is_file() else math.inf
    if voxels > MAX_VOXELS_PER_BYTE * stored:
        raise InputError(
            f"{path}: is {size} voxels by its header, more than its {stored} bytes can hold",
            "it may be damaged or cut short: copy or export it again",
        )


def check_names(path: Path, names: Iterable[str], parts: str) -> None:
    """Raise InputError if two parts of a file, e.g. its ``segments``, have one name."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise InputError(f"{path}: two of its {parts} are named '{name}'", "rename one of them")
        seen.add(name.casefold())


def add_segment(path: Path, labels: np.ndarray, mask: np.ndarray, value: int, names: Mapping[int, str]) -> None:
    """Write ``value`` into ``labels (*S)`` where ``mask`` is; raise InputError if another of ``names`` is there."""
    taken = labels[mask]
    if taken.any():
        other = names[int(taken[taken != 0][0])]
        raise InputError(
            f"{path}: segments '{other}' and '{names[value]}' overlap in {np.count_nonzero(taken)} voxels, and a label "
            "map has one label per voxel",
            "export them without overlap (3D Slicer: Segment Editor, Masking, Modify other segments)",
        )
    labels[mask] = value


def _memory_bytes() -> float:
    """Physical memory, or infinity if the system (Windows) does not tell it this way."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _reason(error: BaseException) -> str:
    """Return the end of a message, in which ITK names the cause; its "Reason:" may be unrelated."""
    lines = [_ITK_PREFIX.sub("", line.strip()) for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("Reason:", "Exception thrown in"))]
    text = " ".join(useful[-2:]) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
