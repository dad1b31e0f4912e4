"""Open time series, find their labelled frames, and write label maps of all frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError, some
from medfewshot.io.formats import FORMATS, Film
from medfewshot.io.formats.base import reading
from medfewshot.io.formats.itk import components_in_file
from medfewshot.io.formats.nifti import NIFTI, volumes_in_file
from medfewshot.io.label_values import check_is_image
from medfewshot.io.paths import PathLike, format_of, is_series_folder
from medfewshot.io.volumes import as_label, checked, format_on_disk
from medfewshot.types import IGNORED, Volume


def open_film(path: PathLike, *, is_label: bool = False) -> Film | None:
    """Open a file that contains several volumes.

    Args:
        path: A file, or a folder with one DICOM series.
        is_label: Whether it is a label map: frames then keep the stored values.

    Returns:
        The film; None if the file contains one volume, which ``read_image`` reads.

    Raises:
        InputError: Names the file and what is wrong with it or with one of its frames.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not is_series_folder(path)):
        return None  # a folder of masks; or the reader of images says what is wrong
    found = format_on_disk(path, FORMATS)
    if found.film is None:
        return None
    with reading(path):
        film = found.film(path, None if is_label else np.float32)
    if film is None:
        return None
    first = checked(film.first, path, found)
    if not is_label:
        check_is_image(first.data, first.name)

    def read(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        with reading(path):
            for number, data in zip(numbers, film.read(numbers), strict=True):
                yield checked(replace(film.first, data=data, frame=number), path, found).data

    return Film(replace(first, frame=0), film.count, read, film.times_s)


def channels_in_file(path: PathLike) -> int:
    """Return how many channels a file of one image contains by its header; 1 if it cannot be read.

    The volumes of a NIfTI file count as channels, and the colours of a picture.
    """
    found = format_of(path)
    if found is NIFTI:
        return volumes_in_file(Path(path))
    count = 1 if found is None or found.folders else components_in_file(Path(path))
    return 3 if count == 4 and found is not None and found.only_2d else count  # colours with an alpha channel


def labelled_frames(labels: Film, *, ignore: int | None = None) -> dict[int, Volume]:
    """Read the frames that somebody labelled.

    A frame counts as not labelled if all of its voxels are 0, or ``ignore``, or 255, or -1.

    Args:
        labels: The label maps of a film.
        ignore: Label value of voxels that are not annotated.

    Returns:
        Frame number -> label map ``(1, *S)``. The first one has a warning if other frames are empty.

    Raises:
        InputError: No frame is labelled, or one contains no label values.
    """
    found: dict[int, Volume] = {}
    empty: list[int] = []
    for volume in labels.frames():
        low, high = int(volume.data.min()), int(volume.data.max())
        if low == high and low in (0, ignore, 255, IGNORED):
            empty += [volume.frame or 0] if low == 0 else []
        else:
            found[volume.frame or 0] = as_label(volume)
    if not found:
        raise InputError(f"{labels.name}: no frame is labelled", "label the structures in at least one frame")
    if empty:
        text = f"{len(empty)} frame(s) are empty (all 0) and count as not labelled: {some(empty)}"
        first = min(found)
        found[first] = replace(found[first], warnings=(*found[first].warnings, text))
    return found
