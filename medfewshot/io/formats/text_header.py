"""The text headers of NRRD and MetaImage: what they leave open, where ITK assumes something and says nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medfewshot.errors import InputError

_LONGEST_NAME = 255
"""Of a file, on the file systems in use."""
_MOST_BYTES = 1 << 20
_PATIENT_SPACES = {
    "right-anterior-superior", "ras", "left-anterior-superior", "las", "left-posterior-superior", "lps"
}  # fmt: skip
_MM_PER_UNIT = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0,
    "um": 0.001, "µm": 0.001, "micron": 0.001, "microns": 0.001, "micrometer": 0.001, "nm": 1e-6
}  # fmt: skip
_SECONDS_PER_UNIT = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3}
_GUESS = "left and right are a guess"


class Geometry(NamedTuple):
    """What a text header says of the grid.

    Attributes:
        has_spacing: Whether it states the size of a voxel.
        mm_per_unit: Of its lengths.
        warnings: What it leaves open.
        seconds_per_step: Unit of the time axis in seconds; 0 if the header does not state it.
    """

    has_spacing: bool = True
    mm_per_unit: float = 1.0
    warnings: tuple[str, ...] = ()
    seconds_per_step: float = 0.0


def read_geometry(path: Path, axes: int) -> Geometry:
    """Read what the header of a NRRD or MetaImage says of the grid, and check that its voxels are there.

    Args:
        path: The file, or its header if the voxels are in another file.
        axes: Number of spatial axes. 2D pictures have no orientation in the patient.

    Raises:
        InputError: The voxels are in a file that is missing.
    """
    with path.open("rb") as file:
        start = file.read(_MOST_BYTES)
    if start.startswith(b"NRRD"):
        return _nrrd(path, _fields(start.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0], ":"), axes)
    return _metaimage(path, _fields(start.partition(b"ElementDataFile")[0], "=") | _data_file(start), axes)


def _nrrd(path: Path, fields: Mapping[str, str], axes: int) -> Geometry:
    _check_file(path, fields.get("data file") or fields.get("datafile") or "")
    directions, space = fields.get("space directions", ""), fields.get("space", "").lower()
    warnings = []
    if not directions and "spacings" not in fields:
        warnings.append("the header states no voxel size: it counts voxels, not mm")
    if axes == 3 and not directions:
        warnings.append(f"the header states no orientation: {_GUESS}")
    elif axes == 3 and space.removesuffix("-time") not in _PATIENT_SPACES:
        warnings.append(f"the header does not say how its axes lie in the patient ({space or 'no space'}): {_GUESS}")
    units = _quoted(fields.get("space units") or fields.get("units") or "")
    times = [_SECONDS_PER_UNIT.get(unit.lower(), 0.0) for unit in units | _quoted(fields.get("units", ""))]
    units = {unit for unit in units if unit.lower() not in _SECONDS_PER_UNIT}
    factors = {_MM_PER_UNIT.get(unit.lower(), 0.0) for unit in units} or {1.0}
    factor = factors.pop() if len(factors) == 1 else 0.0
    warnings += _converted(factor, ", ".join(sorted(units)))
    return Geometry(bool(directions) or "spacings" in fields, factor or 1.0, tuple(warnings), max(times, default=0.0))


def _converted(factor: float, unit: str) -> list[str]:
    """Say what becomes of lengths in a unit of so many mm, 0 if it is not known."""
    done = "converted to mm" if factor else "which is not known: taken for mm"
    return [] if factor == 1 else [f"its lengths are in {unit}{':' if factor else ','} {done}"]


def _quoted(text: str) -> set[str]:
    return set(re.findall(r'"([^"]+)"', text))


def _metaimage(path: Path, fields: Mapping[str, str], axes: int) -> Geometry:
    _check_file(path, fields.get("elementdatafile", ""))
    has_spacing = "elementspacing" in fields or "elementsize" in fields
    warnings = [] if has_spacing else ["the header states no voxel size: it counts voxels, not mm"]
    if axes == 3 and not {"transformmatrix", "rotation", "orientation"} & set(fields):
        warnings.append(f"the header states no orientation (no TransformMatrix): {_GUESS}")
    unit = fields.get("distanceunits", "mm")
    factor = _MM_PER_UNIT.get(unit.lower(), 0.0)
    return Geometry(has_spacing, factor or 1.0, (*warnings, *_converted(factor, unit)))


def _check_file(path: Path, name: str) -> None:
    name = name.strip()
    if not name or name.upper() == "LOCAL" or name.upper().startswith("LIST") or "%" in name:
        return  # in this file, or in a list or numbered series of files
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise InputError(f"{path}: the name of its data file is damaged", "copy or export it again")
    if not (path.parent / name).is_file():
        raise InputError(f"{path}: its voxels are in {name}, which is missing", "copy both files into one folder")


def _fields(header: bytes, separator: str) -> dict[str, str]:
    """Name in lower case -> value of each line. NRRD's ``key:=value`` pairs are none."""
    fields: dict[str, str] = {}
    for line in header.decode("utf-8", "replace").splitlines():
        name, found, value = line.partition(separator)
        if found and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _data_file(start: bytes) -> dict[str, str]:
    line = start.partition(b"ElementDataFile")[2].partition(b"\n")[0].decode("utf-8", "replace")
    return {"elementdatafile": line.partition("=")[2].strip()} if line else {}
