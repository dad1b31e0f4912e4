"""Open the scan of a case: one image, or a film whose frames are images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io.films import labelled_frames, open_film
from medfewshot.io.formats import Film
from medfewshot.io.placement import in_frame_of
from medfewshot.io.volumes import read_image, read_label
from medfewshot.types import IGNORED, Case, Volume

ReadImage = Callable[[Sequence[Path]], Volume]
Example = tuple[Volume, Volume]
"""An image ``(C, *S)`` and its label map ``(1, *S)``."""


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
