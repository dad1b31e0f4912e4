"""Open scans and films, find the labelled frames of a film, and read labelled examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from medfewshot.io.placement import in_frame_of
from medfewshot.io.volumes import as_label, checked, format_on_disk, read_image, read_label
from medfewshot.types import IGNORED, Case, Volume

ReadImage = Callable[[Sequence[Path]], Volume]
Example = tuple[Volume, Volume]
"""An image ``(C, *S)`` and its label map ``(1, *S)``."""


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


def open_scan(paths: Sequence[Path], *, channels: int = 1, read: ReadImage = read_image) -> Volume | Film:
    """Read an image or open a film.

    Args:
        paths: One file per channel; or one file with several volumes, which are its channels if their number is
            ``channels``, and otherwise the frames of a film.
        channels: Channels that the image must have.
        read: Reads an image from its channel files.

    Raises:
        InputError: A file cannot be read, or its number of volumes does not fit.
    """
    film = open_film(paths[0]) if len(paths) == 1 else None
    if film is None:
        return read(paths)
    if channels == 1:
        return film
    if film.count != channels:
        raise InputError(
            f"{film.name}: contains {film.count} volumes, and {channels} channels are needed",
            "give one volume per channel, in the order of the labelled scans",
        )
    return film.as_channels()


def first_volume(paths: Sequence[Path], *, channels: int = 1) -> Volume:
    """Read an image as :func:`open_scan` does; of a film, the first frame."""
    scan = open_scan(paths, channels=channels)
    return scan.first if isinstance(scan, Film) else scan


def read_examples(
    case: Case, *, frame: int | None = None, ignore: int | None = None, read: ReadImage = read_image
) -> list[Example]:
    """Read a labelled scan; of a film, the frames that are labelled.

    Args:
        case: Its files.
        frame: Frame of a film that a label map of one volume belongs to, from 0.
        ignore: Label value of voxels that are not annotated.
        read: Reads an image from its channel files.

    Raises:
        InputError: A file cannot be read, or it is not known which frame the label belongs to.
    """
    if case.label_path is None:
        raise InputError(f"{case.image_path}: has no label file", "add one or leave this scan out")
    scan = open_scan(case.image_paths, channels=case.channels, read=read)
    labels = open_film(case.label_path, is_label=True)
    if isinstance(scan, Volume):
        if labels is not None:
            raise InputError(
                f"{labels.name}: is a label map of {labels.count} frames, but {scan.name} is one volume",
                "give the label map of this volume",
            )
        if case.frame:
            raise InputError(f"{scan.name}: is one volume and has no frame {case.frame}", "leave the frame out")
        examples = [(scan, read_label(case.label_path, image=scan))]
    elif labels is None:
        number = _frame_of(scan, case.frame if frame is None else frame)
        image = scan.frame(number)
        examples = [(image, replace(read_label(case.label_path, image=image), frame=number))]
    else:
        examples = _film_examples(scan, labels, ignore)
    if case.modality:
        examples = [(replace(image, modality=image.modality or case.modality), label) for image, label in examples]
    return [(image, in_frame_of(image, label)) for image, label in examples]


def read_complete_examples(case: Case, *, ignore: int | None = None) -> list[Example]:
    """Read a labelled scan, or the labelled frames of a film, for work that needs complete labels.

    Args:
        case: Its files.
        ignore: Label value of voxels that are not annotated.

    Raises:
        InputError: A file cannot be read, or a label map is partly annotated.
    """
    examples = read_examples(case, ignore=ignore)
    for _, label in examples:
        if (label.data == (IGNORED if ignore is None else ignore)).any():
            raise InputError(f"{label.name}: is partly annotated", "annotate it completely, or leave this scan out")
    return examples


def _frame_of(film: Film, frame: int | None) -> int:
    if frame is None:
        raise InputError(
            f"{film.name}: contains {film.count} volumes and its label map one, so it is not known whether they are "
            "frames or channels",
            "for frames, say which frame is labelled; for channels, name them in a dataset.json",
            setting="frame",
        )
    return frame


def _film_examples(film: Film, labels: Film, ignore: int | None) -> list[Example]:
    if labels.count != film.count:
        raise InputError(
            f"{labels.name}: has {labels.count} frames, but {film.name} has {film.count}",
            "give a label map with a frame for each; frames that are not labelled are 0 or 255",
        )
    found = labelled_frames(labels, ignore=ignore)
    return [(image, found[image.frame or 0]) for image in film.frames(sorted(found))]
