"""What file names say: formats by suffix, case identifiers, which files look like labels."""

from __future__ import annotations

import os
from pathlib import Path

from medfewshot.io.header import Format, Header
from medfewshot.types import Volume

PathLike = str | os.PathLike[str]

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DICOM = (".dcm", ".ima")
SUPPORTED = "NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), a DICOM folder, PNG, JPEG, TIFF or BMP"

_DOUBLE_SUFFIXES = (".nii.gz", ".seg.nrrd")
_KNOWN = NIFTI + ITK + PICTURES + DICOM
_LABEL_ENDINGS = ("_seg", "_label", "_mask")
_RESULT_SUFFIX = {".nrrd": ".nrrd", ".nhdr": ".nrrd", ".mha": ".mha", ".mhd": ".mha", ".tif": ".tif", ".tiff": ".tif"}


def suffix_of(path: PathLike) -> str:
    """The suffix in lower case, ``.nii.gz`` and ``.seg.nrrd`` taken whole."""
    name = Path(path).name.lower()
    return next((double for double in _DOUBLE_SUFFIXES if name.endswith(double)), Path(name).suffix)


def format_of(path: PathLike) -> Format | None:
    """The format that a file name promises; None for one that promises nothing."""
    suffix = "." + suffix_of(path).rpartition(".")[2] if suffix_of(path) == ".seg.nrrd" else suffix_of(path)
    formats: tuple[tuple[Format, tuple[str, ...]], ...] = (
        ("nifti", NIFTI),
        ("itk", ITK),
        ("picture", PICTURES),
        ("dicom", DICOM),
    )
    return next((name for name, suffixes in formats if suffix in suffixes), None)


def stem_of(path: PathLike) -> str:
    """The file name without a known suffix. Other dots stay: DICOM files are often named by a UID."""
    path = Path(path)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    known = suffix_of(name) in _KNOWN + _DOUBLE_SUFFIXES
    return name[: -len(suffix_of(name))] if known else name


def case_id(path: PathLike) -> str:
    """``ct_007_0000.nii.gz`` -> ``ct_007``; a DICOM folder -> its name.

    Only ``_0000`` is taken off: ``patient_0001`` and ``patient_0002`` are more often two patients than two channels.
    """
    return stem_of(path).removesuffix("_0000")


def looks_like_label(path: PathLike) -> bool:
    return suffix_of(path) == ".seg.nrrd" or stem_of(path).lower().endswith(_LABEL_ENDINGS)


def output_suffix(volume: Volume) -> str:
    """The suffix of a result for this input: its own format where that can hold labels, else NIfTI or PNG."""
    header = volume.header
    if not isinstance(header, Header):
        return ".nii.gz"
    return _RESULT_SUFFIX.get(header.suffix, ".png" if header.format == "picture" else ".nii.gz")


def is_dicom_file(path: Path) -> bool:
    """By content (``DICM`` at byte 128) or by suffix; a DICOMDIR index is not an image."""
    if path.name.upper() == "DICOMDIR" or path.name.startswith(".") or not path.is_file():
        return False
    known = format_of(path)
    return known == "dicom" or (known is None and _has_magic(path))


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
