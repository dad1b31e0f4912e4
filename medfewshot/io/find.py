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
    return path.is_dir() and any(
        (found := format_at(file, formats=formats)) is not None and found.folders
        for file in sorted(path.iterdir())
        if not file.name.startswith(".") and file.is_file()
    )


def volumes_in(folder: Path, *, formats: Formats = FORMATS) -> list[Path]:
    """The images and label maps directly in a folder, files and series folders, sorted. Hidden ones are ignored.

    A file of a DICOM series is not one of them, because it is only a slice of a volume.
    """

    def is_volume(path: Path) -> bool:
        found = format_of(path, formats=formats)
        whole = found is not None and not found.folders and path.is_file()
        return whole or is_series_folder(path, formats=formats)

    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and is_volume(path)]


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
        below = [child for child in sorted(path.iterdir()) if child.is_dir() and _image_files(child, formats)]
        nearest = next((f", e.g. {child}" for child in below if "label" not in child.name.lower()), "")
        raise InputError(f"{path}: contains no images", f"give {supported(formats)}, or a folder of them{nearest}")
    return found


def _image_files(folder: Path, formats: Formats) -> list[Path]:
    volumes = volumes_in(folder, formats=formats)
    return [path for path in volumes if path.is_file() and not looks_like_label(path, formats=formats)]


def _series_folders(folder: Path, formats: Formats, depth: int) -> Iterator[Path]:
    for child in folder.iterdir() if depth else ():
        if not child.is_dir() or child.name.startswith("."):
            continue
        if is_series_folder(child, formats=formats):
            yield child
        else:
            yield from _series_folders(child, formats, depth - 1)
