"""What file names say: the format, the case, and whether a file is a label map or a scan."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from medfewshot.io.formats import FORMATS, Format
from medfewshot.io.formats.base import Header
from medfewshot.types import Volume

PathLike = str | os.PathLike[str]
Formats = tuple[Format, ...]

_LABEL_ENDINGS = ("_seg", "_label", "_mask")


def suffix_of(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """The suffix in lower case. A known suffix with two dots (``.nii.gz``) is taken whole."""
    name = Path(path).name.lower()
    known = [suffix for one in formats for suffix in one.suffixes if name.endswith(suffix)]
    return max(known, key=len, default=Path(name).suffix)


def format_of(path: PathLike, *, formats: Formats = FORMATS) -> Format | None:
    """The format that a file name states, or None. The file need not exist."""
    suffix = suffix_of(path, formats=formats)
    return next((one for one in formats if suffix in one.suffixes), None)


def format_at(path: Path, *, formats: Formats = FORMATS) -> Format | None:
    """The format of a file on disk: from its name, or from its content if the name states none."""
    by_name = format_of(path, formats=formats)
    return by_name or next((one for one in formats if one.recognises is not None and one.recognises(path)), None)


def supported(formats: Formats = FORMATS) -> str:
    """The names of the formats of scans, for an error's remedy."""
    names = [one.name for one in formats if not one.labels_only]
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)


def stem_of(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """The file name without a known suffix. Other dots stay: DICOM files are often named by a UID."""
    path = Path(path)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return name[: -len(suffix_of(name, formats=formats))] if format_of(name, formats=formats) else name


def case_id(path: PathLike, *, formats: Formats = FORMATS) -> str:
    """``ct_007_0000.nii.gz`` -> ``ct_007``. A DICOM folder -> its name.

    Only ``_0000`` is removed: ``patient_0001`` and ``patient_0002`` are more often two patients than two channels.
    """
    return stem_of(path, formats=formats).removesuffix("_0000")


def looks_like_label(path: PathLike, *, formats: Formats = FORMATS) -> bool:
    """Whether a file is a label map by its name."""
    found = format_of(path, formats=formats)
    return bool(found and found.labels_only) or stem_of(path, formats=formats).lower().endswith(_LABEL_ENDINGS)


def output_suffix(
    volume: Volume, *, real_numbers: bool = False, channels: bool = False, formats: Formats = FORMATS
) -> str:
    """The suffix of a result for this image.

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
