"""What a film of the heart shows: end-diastole, end-systole, stroke volume and ejection fraction of each cavity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medfewshot.errors import InputError, some

_LEFT = re.compile(r"^(?!.*(myo|wall)).*\b(left[ _-]?ventric\w*|lv)\b", re.IGNORECASE)
_RIGHT = re.compile(r"^(?!.*(myo|wall)).*\b(right[ _-]?ventric\w*|rv)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Ejection:
    """Volumes of one cavity at end-diastole and end-systole.

    Attributes:
        name: Name of the cavity.
        ed_frame: Frame of end-diastole, from 0: the first cavity is largest there.
        es_frame: Frame of end-systole: the first cavity is smallest there.
        edv_ml: Volume at end-diastole.
        esv_ml: Volume at end-systole.
    """

    name: str
    ed_frame: int
    es_frame: int
    edv_ml: float
    esv_ml: float

    @property
    def stroke_ml(self) -> float:
        """Stroke volume."""
        return self.edv_ml - self.esv_ml

    @property
    def fraction_percent(self) -> float | None:
        """Ejection fraction; None if the cavity was not found in one of the two frames: no heart empties whole."""
        return 100 * self.stroke_ml / self.edv_ml if self.edv_ml > 0 and self.esv_ml > 0 else None

    def row(self) -> dict[str, object]:
        """Return the columns of ``ejection.csv``."""
        return {
            "name": self.name, "ed_frame": self.ed_frame, "es_frame": self.es_frame, "edv_ml": self.edv_ml,
            "esv_ml": self.esv_ml, "stroke_ml": self.stroke_ml, "ejection_fraction_percent": self.fraction_percent,
        }  # fmt: skip


def find_cavities(names: Sequence[str], asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the cavities to measure: those asked for, or else the left and the right ventricle.

    Args:
        names: Names of all structures.
        asked: Names that the user gave.

    Raises:
        InputError: A cavity that was asked for is not among the structures.
    """
    known = {name.casefold(): name for name in names}
    missing = [name for name in asked if name.casefold() not in known]
    if missing:
        raise InputError(
            f"{some(missing)}: is no structure of the labelled scans", f"known are {some(names)}", setting="cavities"
        )
    if asked:
        return tuple(known[name.casefold()] for name in asked)
    return tuple(name for side in (_LEFT, _RIGHT) for name in names if side.search(name))


def ejections(volumes_ml: Mapping[str, Sequence[float]]) -> tuple[Ejection, ...]:
    """Measure cavities over one heart beat.

    All cavities are measured in the same two frames, those of the largest and the smallest volume of the first one.

    Args:
        volumes_ml: Cavity -> one volume per frame.
    """
    if not volumes_ml:
        return ()
    first = next(iter(volumes_ml.values()))
    largest, smallest = int(np.argmax(first)), int(np.argmin(first))
    return tuple(
        Ejection(name, largest, smallest, float(values[largest]), float(values[smallest]))
        for name, values in volumes_ml.items()
    )
