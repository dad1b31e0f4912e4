"""Coded terms of structures: SNOMED CT where DICOM lists the name, and the side of the body. Needs pydicom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

from medfewshot.errors import InputError

OWN_SCHEME = "99MEDFEWSHOT"
"""Scheme for codes of structures whose name is not in DICOM's part of SNOMED CT. 99 marks private schemes."""
LONGEST = 64
"""Characters of a DICOM long string."""
OWN_TRACKING = "medfewshot label"
"""Begins the tracking identifier of our DICOM segments. The label value follows: segments themselves count from 1."""
_SIDE = re.compile(r"\b(left|right|l|r)\b")


@dataclass(frozen=True)
class Term:
    """A coded term: its value, its coding scheme and its meaning for people."""

    value: str
    scheme: str
    meaning: str

    def coded(self) -> Any:
        """Return the term as a DICOM code. Needs highdicom."""
        import highdicom as hd

        return hd.sr.CodedConcept(self.value, self.scheme, self.meaning)


ANATOMY = Term("123037004", "SCT", "Anatomical Structure")
_LEFT, _RIGHT = Term("7771000", "SCT", "Left"), Term("24028007", "SCT", "Right")


def term_of(value: int, name: str) -> Term:
    """Return the term of a structure: of SNOMED CT if DICOM lists the name (without its side), or else a private one.

    Args:
        value: Label value, the code of a private term.
        name: Name of the structure, e.g. ``"left kidney"`` or ``"kidney_left"``.
    """
    from pydicom.sr.codedict import codes

    words = _SIDE.sub(" ", _plain(name)).split()
    code = getattr(codes.SCT, "".join(word.capitalize() for word in words), None)
    if code is None:
        return Term(str(value), OWN_SCHEME, _long_string(name) or f"label {value}")
    return Term(code.value, code.scheme_designator, code.meaning)


def long_strings(names: Mapping[int, str]) -> dict[int, str]:
    """Return the names as DICOM long strings, numbered if two of them would be the same."""
    texts: dict[int, str] = {}
    for value, name in names.items():
        short, taken = _long_string(name), {text.casefold() for text in texts.values()}
        numbered = (f"{short[: LONGEST - 6]} {number}" for number in count(2))
        texts[value] = next(text for text in chain([short], numbered) if text.casefold() not in taken)
    return texts


def side_of(name: str) -> Term | None:
    """Return the side of the body that a name states, or None."""
    found = _SIDE.search(_plain(name))
    if found is None:
        return None
    return _LEFT if found[1].startswith("l") else _RIGHT


def check_available(setting: str | tuple[str, ...] = ()) -> None:
    """Check that the extra ``dicom`` (highdicom and pydicom) is installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise InputError(
            "highdicom is not installed", "run: pip install contourpy highdicom pydicom", setting=setting
        ) from None


def _long_string(name: str) -> str:
    """Return a name without backslashes, which separate values in DICOM, and cut to the length that DICOM allows."""
    return name.replace("\\", "/")[:LONGEST].strip()


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")
