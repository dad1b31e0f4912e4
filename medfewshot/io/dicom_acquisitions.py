"""Tell apart the acquisitions (time points, echoes, kernels) that one DICOM series may contain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from medfewshot.errors import InputError, counted
from medfewshot.io.dicom_stack import Slice

FRAME_OF_REFERENCE = "frame of reference"
TAGS = {
    "temporal position": "0020|0100",
    "echo time": "0018|0081",
    "inversion time": "0018|0082",
    "b-value": "0018|9087",
    "trigger time": "0018|1060",
    "convolution kernel": "0018|1210",
    "tube voltage": "0018|0060",
    FRAME_OF_REFERENCE: "0020|0052",
    "acquisition number": "0020|0012",
    "image type": "0008|0008",
    "acquisition time": "0008|0032",
}
"""What can differ between acquisitions, with its tag in a single-frame file. The first that differs is reported."""
_CONSTANT = ("temporal position", "echo time", "b-value", "convolution kernel", "tube voltage", FRAME_OF_REFERENCE)
"""What never differs within one volume. An acquisition number may: CT that steps gives each rotation its own."""
_COUNTED = ("temporal position", FRAME_OF_REFERENCE)
"""What may differ from slice to slice: some scanners count slices, some anonymisers give each file new identifiers."""
_NUMBER = "acquisition number"
_FEW = 3


def facts_of(text: Callable[[str], str]) -> dict[str, str]:
    """Return the facts of one slice; ``text`` returns the value of a tag, or ""."""
    return {name: _plain(text(tag)) for name, tag in TAGS.items() if text(tag)}


def check_one_acquisition(stack: Sequence[Slice], name: str) -> tuple[str, ...]:
    """Check that sorted slices without repeated positions belong to one volume.

    Returns:
        A warning if they come from a few acquisitions one above the other.

    Raises:
        InputError: Two acquisitions are mixed.
    """
    for fact in _CONSTANT:
        groups = _groups(stack, fact)
        is_counted = fact in _COUNTED and max(map(len, groups.values()), default=1) == 1
        if len(groups) > 1 and not is_counted:
            raise _mixed(name, fact, groups)
    groups = {number: places for number, places in _groups(stack, _NUMBER).items() if len(places) > 1}
    if len(groups) < 2:
        return ()
    spans = sorted((places[0], places[-1]) for places in groups.values())
    if any(second[0] < first[1] for first, second in pairwise(spans)):
        raise _mixed(name, _NUMBER, groups)
    if len(groups) > _FEW:
        return ()
    return (f"its slices come from {len(groups)} acquisitions ({_listed(groups)}), read as one volume",)


def repeats_error(stack: Sequence[Slice], places: int, name: str) -> InputError:
    """Return the error for slices that lie at fewer positions, with what tells them apart."""
    different = next((fact for fact in TAGS if 1 < len(_groups(stack, fact)) <= len(stack) // 2), None)
    if different is None:
        reason = "several time points, echoes or b-values?"
    else:
        reason = f"they differ in {different}: {_listed(_groups(stack, different))}"
    return InputError(
        f"{name}: {len(stack)} slices lie at only {places} positions ({reason})",
        "put the slices of one of them in a folder of their own",
    )


def _groups(stack: Sequence[Slice], fact: str) -> dict[str, list[int]]:
    """Value -> indices of the slices that state it."""
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(stack):
        if fact in one.facts:
            groups.setdefault(one.facts[fact], []).append(index)
    return groups


def _mixed(name: str, fact: str, groups: Mapping[str, Sequence[int]]) -> InputError:
    return InputError(
        f"{name}: the series mixes {len(groups)} acquisitions, which differ in {fact}: {_listed(groups)}",
        "put the slices of each in a folder of their own",
    )


def _listed(groups: Mapping[str, Sequence[int]], most: int = 5) -> str:
    shown = [f"{value} ({counted(len(places), 'slice')})" for value, places in list(groups.items())[:most]]
    return ", ".join([*shown, "..."] if len(groups) > most else shown)


def _plain(value: str) -> str:
    """Equal numbers as equal texts: a writer may state 120 and 120.0."""
    try:
        return f"{np.float64(value):.6g}"
    except ValueError:
        return value
