"""What paths say: the format, the case, whether a file is a label map, and which images a path stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from unicodedata import normalize

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats import FORMATS, Format
from medfewshot.io.formats.base import Header
from medfewshot.types import Volume

PathLike = str | os.PathLike[str]
Formats = tuple[Format, ...]

_LABEL_WORD = r"(?:dseg|seg|segm|segmentations?|labels?|masks?|msk|gt|ground[_-]?truth)"
_IMAGE_WORD = r"(?:image|img|imaging|volume|vol|scan)"
_LABEL_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE) for pattern in (rf"(?:(.+)[_.-])?{_LABEL_WORD}", rf"{_LABEL_WORD}[_-]?(\d+)")
)
"""What a label map is called: ``case_seg``, ``case-gt``, ``label``, ``segmentation-7``, ``label0007``."""
_IMAGE_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE) for pattern in (rf"(?:(.+)[_.-])?{_IMAGE_WORD}", rf"{_IMAGE_WORD}[_-]?(\d+)")
)
_SEQUENCES = {"t1": 0, "t1n": 0, "t1ce": 1, "t1c": 1, "t2": 2, "t2w": 2, "flair": 3, "t2f": 3}
"""Endings of BraTS's files, of both generations, and the channel that each is."""
_CHANNEL = re.compile(rf"(.+)(?:_(\d{{4}})|[_-]({'|'.join(_SEQUENCES)}))", re.IGNORECASE)
_HEADERS = (".mhd", ".nhdr", ".hdr")
"""Their voxels may be in other files."""
_MOST_BYTES = 1 << 20
_DEPTH = 4
"""How many folders deep to look for series: as deep as a PACS export, but not a whole disk."""


def suffix_of(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """Return the suffix in lower case. A known suffix with two dots (``.nii.gz``) is taken whole."""
    name = Path(path).name.lower()
    known = [suffix for one in formats for suffix in one.suffixes if name.endswith(suffix)]
    return max(known, key=len, default=Path(name).suffix)


def format_of(path: PathLike, *, formats: Formats = FORMATS) -> Format | None:
    """Return the format that a file name states, or None. The file need not exist."""
    suffix = suffix_of(path, formats=formats)
    return next((one for one in formats if suffix in one.suffixes), None)


def format_at(path: Path, *, formats: Formats = FORMATS) -> Format | None:
    """Return the format of a file on disk: from its name, or from its content if the name leaves it open."""
    by_name = format_of(path, formats=formats)
    if by_name is not None and by_name.recognises is None:
        return by_name
    return next((one for one in formats if one.recognises is not None and one.recognises(path)), by_name)


def files_of(path: Path) -> list[Path]:
    """List the files of a scan: of a series folder, or the file with those that hold the voxels of its header."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.suffix.lower() not in _HEADERS or not path.is_file():
        return [path]
    with path.open("rb") as file:
        header = file.read(_MOST_BYTES)
    beside = list(path.parent.glob(f"{escape(path.stem)}.*"))
    beside += [file for file in path.parent.iterdir() if os.fsencode(file.name) in header]
    return sorted({file for file in beside if file.is_file()} | {path})


def supported(formats: Formats = FORMATS) -> str:
    """Return the names of the formats of scans, for an error's remedy."""
    names = [one.name for one in formats if not one.labels_only]
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)


def stem_of(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """Return the file name without a known suffix. Other dots stay: DICOM files are often named by a UID."""
    path = Path(path)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return name[: -len(suffix_of(name, formats=formats))] if format_of(name, formats=formats) else name


def case_id(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """Return the name of a case: ``ct_007`` of ``ct_007_0000.nii.gz``, and a DICOM folder's own name.

    Only ``_0000`` is removed: ``patient_0001`` and ``patient_0002`` are more often two patients than two channels.
    """
    return normalize("NFC", stem_of(path, formats=formats).removesuffix("_0000"))  # macOS writes accents as two letters


def looks_like_label(path: PathLike, *, formats: Formats = FORMATS) -> bool:
    """Return whether a file is named like a label map: ``case_seg``, ``case-gt``, ``segmentation-7``, ...

    A DICOM segmentation or structure set is one by its content.
    """
    found = format_at(Path(path), formats=formats)
    return bool(found and found.labels_only) or case_of_label(path, formats=formats) is not None


def case_of_label(path: PathLike, *, formats: Formats = FORMATS) -> str | None:
    """Return the case that a label map's name contains.

    Returns:
        ``case`` of ``case_seg.nii.gz``, ``7`` of ``segmentation-7.nii``, ``""`` of ``label.nii.gz``. None if the name
        does not say that the file is a label map.
    """
    return _named(_LABEL_NAMES, case_id(path, formats=formats))


def case_of_image(path: PathLike) -> str | None:
    """Return the case in a scan's name: ``7`` of ``volume-7.nii``, ``""`` of ``image.nii.gz``; else None."""
    return _named(_IMAGE_NAMES, case_id(path))


def channel_of(path: PathLike) -> tuple[str, int] | None:
    """Return the case and the channel in a file's name: 1 for ``case_0001`` (nnU-Net) and ``case_t1ce`` (BraTS)."""
    match = _CHANNEL.fullmatch(stem_of(path))
    if match is None:
        return None
    return match[1], int(match[2]) if match[2] else _SEQUENCES[match[3].lower()]


def _named(patterns: tuple[re.Pattern[str], ...], name: str) -> str | None:
    match = next((found for pattern in patterns if (found := pattern.fullmatch(name))), None)
    return None if match is None else match[1] or ""


def output_suffix(
    volume: Volume, *, real_numbers: bool = False, channels: bool = False, formats: Formats = FORMATS
) -> str:
    """Return the suffix of a result for this image.

    Args:
        volume: The image that the result belongs to.
        real_numbers: The result is a float32 map and not a label map.
        channels: The result consists of several maps.
        formats: The first one stores what the image's own format cannot hold.
    """
    own = volume.header.format.results if isinstance(volume.header, Header) else formats[0].results
    target = format_of(own, formats=formats)
    if target is None or target.write is None:
        return formats[0].results
    too_small = (real_numbers and np.float32 not in target.dtypes) or (channels and target.only_2d)
    return formats[0].results if too_small else own


def is_series_folder(path: PathLike, *, formats: Formats = FORMATS) -> bool:
    """Return whether a folder is one image: it contains a file of a DICOM series, not only reports or plans."""
    return any(has_image for _, has_image in _series_files(Path(path), formats))


def files_without_image(path: PathLike, *, formats: Formats = FORMATS) -> list[Path]:
    """Return the reports, plans and structure sets that :func:`find_images` skips.

    The reader of a series reports those of the series.
    """
    others = [one for one in _folders(Path(path)) if not is_series_folder(one, formats=formats)]
    return [file for folder in others for file, _ in _series_files(folder, formats)]


def _series_files(folder: Path, formats: Formats) -> Iterator[tuple[Path, bool]]:
    """Return the files of DICOM directly in a folder, and whether each contains an image."""
    for file in _visible(folder) if folder.is_dir() else ():
        found = format_at(file, formats=formats) if file.is_file() else None
        if found is not None and (found.folders or not found.has_image(file)):
            yield file, found.has_image(file)


def label_in(folder: PathLike, *, formats: Formats = FORMATS) -> Path | None:
    """Return the only DICOM segmentation or structure set in a folder without images, or None."""
    files = list(_series_files(Path(folder), formats))
    labels = [file for file, _ in files if looks_like_label(file, formats=formats)]
    return labels[0] if len(labels) == 1 and not any(has_image for _, has_image in files) else None


def volumes_in(folder: Path, *, formats: Formats = FORMATS) -> list[Path]:
    """Return the images and label maps directly in a folder, sorted.

    They are files, series folders, and folders of one DICOM label map. Hidden ones are ignored. A file of a DICOM
    series is not one of them, because it is only a slice of a volume.
    """

    def is_volume(path: Path) -> bool:
        if path.is_dir():
            return is_series_folder(path, formats=formats) or label_in(path, formats=formats) is not None
        found = format_at(path, formats=formats)
        return found is not None and not found.folders

    return [path for path in _visible(folder) if is_volume(path)]


def find_images(path: PathLike, *, formats: Formats = FORMATS) -> list[Path]:
    """Return the images that ``path`` stands for, sorted.

    A file stands for itself. A folder stands for the DICOM series in it, the images beside them, and the series below.
    Hidden files, files that are named like labels (see :func:`looks_like_label`), and pictures beside the slices of a
    series are ignored.

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
    files, series = _image_files(path, formats), series_folders(path, formats=formats)
    if path in series:
        # A picture beside slices is a preview of them, but a volume beside a stray slice is a scan.
        files = [file for file in files if (own := format_of(file, formats=formats)) and not own.only_2d]
    found = sorted([*files, *series])
    if not found:
        nearest = next((f", e.g. {file.parent}" for file in images_below(path, formats=formats)), "")
        skipped = files_without_image(path, formats=formats)
        only = f", only {len(skipped)} DICOM file(s) without one, such as {skipped[0].name}" if skipped else ""
        raise InputError(
            f"{path}: contains no images{only}", f"give {supported(formats)}, or a folder of them{nearest}"
        )
    return found


def images_below(folder: PathLike, *, formats: Formats = FORMATS) -> list[Path]:
    """Return the files that :func:`find_images` skips because they lie one folder deeper; not in folders of labels."""
    below = [path for path in [*_folders(Path(folder), 1)][1:] if not is_series_folder(path, formats=formats)]
    below = [path for path in below if "label" not in path.name.lower() and case_of_label(path) is None]
    return [file for path in below for file in _image_files(path, formats)]


def labels_without_image(folder: PathLike) -> list[Path]:
    """Return the files in a folder that :func:`find_images` skips as labels, although no scan there has their case."""
    volumes = volumes_in(Path(folder)) if Path(folder).is_dir() else []
    scans = [path for path in volumes if not looks_like_label(path)]
    known = {case_id(path) for path in scans} | {case_of_image(path) for path in scans}
    apart = {*scans, *(file for file, _ in _series_files(Path(folder), FORMATS))}  # files_without_image reports these
    labels = {path: case_of_label(path) for path in volumes if path not in apart}
    return [path for path, case in labels.items() if (case_id(path) if case is None else case) not in known]


def series_folders(folder: PathLike, *, formats: Formats = FORMATS) -> list[Path]:
    """Return the folders with a DICOM series: the folder itself and those below, sorted."""
    return sorted(one for one in _folders(Path(folder)) if is_series_folder(one, formats=formats))


def dicom_labels(folder: PathLike) -> list[Path]:
    """Return the DICOM segmentations and structure sets in a folder and below, also those beside a series."""
    files = [file for one in _folders(Path(folder)) for file, _ in _series_files(one, FORMATS)]
    return [file for file in files if looks_like_label(file)]


def _folders(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield a folder and those below."""
    yield folder
    for child in _visible(folder) if depth and folder.is_dir() else ():
        if child.is_dir():
            yield from _folders(child, depth - 1)


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _image_files(folder: Path, formats: Formats) -> list[Path]:
    files = (path for path in volumes_in(folder, formats=formats) if path.is_file())
    return [path for path in files if not looks_like_label(path, formats=formats)]
