"""Which images a path stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.io.naming import SUPPORTED, PathLike, format_of, is_dicom_file, looks_like_label

_DEPTH = 4
"""How many folders deep DICOM series are looked for: what a PACS export nests, and not a whole disk."""


def is_dicom_folder(path: PathLike) -> bool:
    """True for a folder that directly holds at least one DICOM file, told by content where the name says nothing."""
    path = Path(path)
    return path.is_dir() and any(is_dicom_file(file) for file in sorted(path.iterdir()))


def find_images(path: PathLike) -> list[Path]:
    """The images that ``path`` stands for, sorted.

    A file or a DICOM series folder stands for itself. Any other folder stands for the images in it and the DICOM series
    below it; hidden files and files that look like labels (``*_seg``, ``*_label``, ``*_mask``) are left out.
    """
    path = Path(path)
    if path.is_file():
        if format_of(path) is None and not is_dicom_file(path):
            raise InputError(f"{path}: is no image of a known format; give {SUPPORTED}")
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: does not exist; check the path")
    if is_dicom_folder(path):
        return [path]
    found = sorted([*_image_files(path), *_series_folders(path, _DEPTH)])
    if not found:
        below = [child for child in sorted(path.iterdir()) if child.is_dir() and any(_image_files(child))]
        nearest = next((f", e.g. {child}" for child in below if "label" not in child.name.lower()), "")
        raise InputError(f"{path}: holds no images; give {SUPPORTED}, or a folder of them{nearest}")
    return found


def _image_files(folder: Path) -> Iterator[Path]:
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith(".") and format_of(file) and not looks_like_label(file):
            yield file


def _series_folders(folder: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    for child in folder.iterdir():
        if not child.is_dir() or child.name.startswith("."):
            continue
        if is_dicom_folder(child):
            yield child
        else:
            yield from _series_folders(child, depth - 1)
