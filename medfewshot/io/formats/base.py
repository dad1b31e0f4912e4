"""What a file format provides, and what a volume remembers of the file that it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medfewshot.types import Volume

Kind = TypeVar("Kind")
DType = type[np.floating[Any]] | None


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
        read_label: Replaces ``read(path, None)`` for label maps, e.g. to refuse them.
        results: Suffix of the results for an image of this format. It may belong to another format.
        writes: Suffixes that ``write`` can write.
        write: ``write(path, data, like)`` writes ``data (*S)`` or ``(N, *S)`` in its dtype on the grid of ``like``.
        dtypes: What a file can hold. Without float32, maps of real numbers need another format.
        only_2d: Whether a file holds one 2D map, ``(X, Y)``, and nothing else.
        labels_only: Whether every file with these suffixes is a label map and never a scan.
        recognises: Tells from the content of a file whether it has this format. Asked only if its suffix is unknown.
        folders: Whether a folder that contains such files is one image, as a DICOM series is.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, DType], Volume]
    read_label: Callable[[Path], Volume] | None = None
    results: str = ".nii.gz"
    writes: tuple[str, ...] = ()
    write: Callable[[Path, np.ndarray, Volume], None] | None = None
    dtypes: tuple[type[np.generic], ...] = (np.uint8, np.uint16, np.int32, np.float32)
    only_2d: bool = False
    labels_only: bool = False
    recognises: Callable[[Path], bool] | None = None
    folders: bool = False


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
    """The file header of this kind that the reader kept, if the volume still lies on the grid that it describes."""
    header = volume.header
    if not isinstance(header, Header) or not isinstance(header.kept, kind):
        return None
    same_grid = header.shape == volume.spatial_shape and np.array_equal(header.affine, volume.affine)
    return header.kept if same_grid else None
