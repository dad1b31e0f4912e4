"""What a DICOM file is, from its first bytes: whether it is DICOM at all, and whether it contains an image."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".dcm", ".ima")
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_WITHOUT_IMAGE = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("9.", "11.", "66", "88.", "104.", "481."))
"""Storage classes of waveforms, presentation states, registrations and segmentations, reports, PDFs, radiotherapy."""
_CLASS_ELEMENTS = (b"\x02\x00\x02\x00UI", b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00")
"""The class in the meta header; and in the data set, of files without that header, with and without types."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
_TYPES = (b"UI", b"UL", b"OB", b"CS", b"DA", b"TM", b"SH", b"LO")


def is_dicom_file(path: Path) -> bool:
    """Return whether a file is DICOM by its suffix or its content. A DICOMDIR index is no image."""
    if path.name.upper() == "DICOMDIR" or path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or _starts_with_elements(start)


def has_image(path: Path) -> bool:
    """Return whether a DICOM file is no report, plan, presentation state or segmentation, by its class."""
    return path.is_file() and not sop_class(path).startswith(_WITHOUT_IMAGE)


def sop_class(path: Path) -> str:
    """Return the class that a file states near its start, where both byte orders are little endian. "" if absent."""
    try:
        with path.open("rb") as stream:
            start = stream.read(1024)
    except OSError:
        return ""
    for element in _CLASS_ELEMENTS:
        _, found, rest = start.partition(element)
        size = 2 if element.endswith(b"UI") else 4
        value = rest[size : size + int.from_bytes(rest[:size], "little")] if found else b""
        if value.startswith(b"1."):
            return value.decode("ascii", "replace").strip("\0 ")
    return ""


def _starts_with_elements(start: bytes) -> bool:
    """Return whether a file without preamble begins with two DICOM elements, as old archives write them."""
    group, kind, short, long = start[:2], start[4:6], start[6:8], start[4:8]
    if group not in _FIRST_GROUPS or kind == b"OB":
        return group in _FIRST_GROUPS
    length = int.from_bytes(short if kind in _TYPES else long, "little")
    following = start[8 + length :]
    return following[:2] in _FIRST_GROUPS and following[:4] != start[:4]
