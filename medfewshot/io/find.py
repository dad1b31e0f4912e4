"""The images that a path stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io.formats import FORMATS
from medfewshot.io.naming import Formats, PathLike, format_at, format_of, looks_like_label, supported

_DEPTH = 4
"""How many folders deep to look for series: as deep as a PACS export, but not a whole disk."""


def is_series_folder(path: PathLike, *, formats: Formats = FORMATS) -> bool:
    """Whether a folder is one image: it directly contains a file of a DICOM series."""
    path = Path(path)
    return path.is_dir() and any(_in_series(file, formats) for file in sorted(path.iterdir()))


def volumes_in(folder: Path, *, formats: Formats = FORMATS) -> list[Path]:
    """The images and label maps directly in a folder, files and series folders, sorted. Hidden ones are ignored."""
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [path for path in visible if _is_volume_file(path, formats) or is_series_folder(path, formats=formats)]


def find_images(path: PathLike, *, formats: Formats = FORMATS) -> list[Path]:
    """The images that ``path`` stands for, sorted.

    A file or a DICOM series folder stands for itself. Any other folder stands for the images in it and the DICOM series
    below it. Hidden files and files that look like labels (``*_seg``, ``*_label``, ``*_mask``) are ignored.

    Raises:
        InputError: There are none.
    """
    path = Path(path)
    if path.is_file():
        if format_at(path, formats=formats) is None:
            raise InputError(f"{path}: is no image of a known format", f"give {supported(formats)}")
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: does not exist", "check the path")
    if is_series_folder(path, formats=formats):
        return [path]
    found = sorted([*_image_files(path, formats), *_series_folders(path, formats, _DEPTH)])
    if not found:
        below = [child for child in sorted(path.iterdir()) if child.is_dir() and any(_image_files(child, formats))]
        nearest = next((f", e.g. {child}" for child in below if "label" not in child.name.lower()), "")
        raise InputError(f"{path}: contains no images", f"give {supported(formats)}, or a folder of them{nearest}")
    return found


def _in_series(file: Path, formats: Formats) -> bool:
    if file.name.startswith(".") or not file.is_file():
        return False
    found = format_at(file, formats=formats)
    return found is not None and found.folders


def _is_volume_file(path: Path, formats: Formats) -> bool:
    """Whether this file is a whole image or label map, and not a slice of a series."""
    found = format_of(path, formats=formats)
    return found is not None and not found.folders and path.is_file()


def _image_files(folder: Path, formats: Formats) -> Iterator[Path]:
    for file in folder.iterdir():
        is_image = _is_volume_file(file, formats) and not looks_like_label(file, formats=formats)
        if is_image and not file.name.startswith("."):
            yield file


def _series_folders(folder: Path, formats: Formats, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    for child in folder.iterdir():
        if not child.is_dir() or child.name.startswith("."):
            continue
        if is_series_folder(child, formats=formats):
            yield child
        else:
            yield from _series_folders(child, formats, depth - 1)
