"""What a file is by its first bytes, to name the true cause if it cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Signature(NamedTuple):
    """First bytes of a kind of file.

    Attributes:
        start: The bytes.
        kind: What the file is, e.g. ``"a ZIP archive"``.
        suffixes: Of file names that fit. Empty if it is never a scan.
        remedy: What to do.
    """

    start: bytes
    kind: str
    suffixes: tuple[str, ...] = ()
    remedy: str = "give the scan itself"


_SIGNATURES = (
    Signature(b"\x1f\x8b", "compressed with gzip", (".gz", ".mgz"), "unpack it, or give it the suffix .gz"),
    Signature(b"BZh", "compressed with bzip2", (".bz2",), "unpack it"),
    Signature(b"\xfd7zXZ", "compressed with xz", remedy="unpack it"),
    Signature(b"(\xb5/\xfd", "compressed with zstd", remedy="unpack it"),
    Signature(b"PK\x03\x04", "a ZIP archive", remedy="unpack it"),
    Signature(b"7z\xbc\xaf", "a 7z archive", remedy="unpack it"),
    Signature(b"Rar!", "a RAR archive", remedy="unpack it"),
    Signature(b"NRRD000", "NRRD", (".nrrd", ".nhdr"), "rename it to .nrrd"),
    Signature(b"ObjectType", "MetaImage", (".mha", ".mhd"), "rename it to .mha"),
    Signature(b"\x89PNG", "PNG", (".png",), "rename it to .png"),
    Signature(b"\xff\xd8\xff", "JPEG", (".jpg", ".jpeg"), "rename it to .jpg"),
    Signature(b"II*\0", "TIFF", (".tif", ".tiff"), "rename it to .tif"),
    Signature(b"MM\0*", "TIFF", (".tif", ".tiff"), "rename it to .tif"),
    Signature(b"\x5c\x01\0\0", "NIfTI without compression", (".nii", ".hdr"), "rename it to .nii"),
    Signature(b"\0\0\x01\x5c", "NIfTI without compression", (".nii", ".hdr"), "rename it to .nii"),
    Signature(b"\x89HDF", "HDF5", remedy="convert it to NIfTI"),
    Signature(b"\x93NUMPY", "a NumPy array", remedy="convert it to NIfTI with its affine"),
    Signature(b"MATLAB", "a MATLAB file", remedy="convert it to NIfTI"),
    Signature(b"SIMPLE  =", "FITS", remedy="convert it to NIfTI"),
    Signature(b"%PDF", "a PDF"),
    Signature(b"<!DOCTYPE", "a web page, not the file that was to be downloaded", remedy="download it again"),
    Signature(b"<html", "a web page, not the file that was to be downloaded", remedy="download it again"),
    Signature(b"<?xml", "XML"),
    Signature(b"version https://git-lfs", "a Git LFS pointer and not the file itself", remedy="run git lfs pull"),
    Signature(b"/annex/objects", "a git-annex pointer and not the file itself", remedy="run git annex get"),
)


def other_kind(path: Path) -> Signature | None:
    """Return what a file is, if its first bytes show that its name is wrong; else None."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return None
    name = path.name.lower()
    if start[128:] == b"DICM":
        dicom = Signature(b"", "DICOM", (".dcm", ".ima"), "rename it to .dcm")
        return None if name.endswith(dicom.suffixes) else dicom
    found = next((one for one in _SIGNATURES if start.startswith(one.start)), None)
    return None if found is None or name.endswith(found.suffixes or ("\0",)) else found
