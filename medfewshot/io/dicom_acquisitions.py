"""Tell apart the acquisitions (time points, echoes, kernels) that one DICOM series may contain, and sort a film."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from medfewshot.errors import InputError, counted
from medfewshot.io.dicom_stack import Slice, at_same_position, sorted_stack

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
TIMES = ("temporal position", "trigger time")
_NOT_TIME = ("echo time", "inversion time", "b-value", "convolution kernel", "tube voltage", FRAME_OF_REFERENCE)
"""What must not differ between the time points of a film."""
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


def time_points(slices: Sequence[Slice], name: str) -> list[list[Slice]] | None:
    """Sort the slices of a series into its time points.

    Returns:
        The slices of each time point, in the order of time; None if no position has several slices, or if something
        else than time tells them apart.

    Raises:
        InputError: Some positions lack time points.
    """
    if any(one.pose is None or one.size[2] > 1 for one in slices):
        return None
    places: list[list[Slice]] = []
    for one in sorted_stack(slices, name):
        if places and at_same_position(places[-1][0], one):
            places[-1].append(one)
        else:
            places.append([one])
    fact = next((fact for fact in TIMES if all(_is_told_apart(place, fact) for place in places)), None)
    differ = any(len({one.facts.get(other, "") for one in place}) > 1 for place in places for other in _NOT_TIME)
    if fact is None or len(places) == len(slices) or differ:
        return None
    counts = [len(place) for place in places]
    if min(counts) < max(counts):
        few = sum(count < max(counts) for count in counts)
        raise InputError(
            f"{name}: {few} of {len(places)} slice positions lack time points: they have {min(counts)} or more of "
            f"{max(counts)}",
            "export the whole series again, or remove the incomplete time points",
        )
    ordered = [sorted(place, key=lambda one: float(one.facts[fact])) for place in places]
    return [list(point) for point in zip(*ordered, strict=True)]


def times_s(points: Sequence[Sequence[Slice]]) -> tuple[float, ...]:
    """Return seconds after the first time point, by the trigger time; empty if it is not stated."""
    stated = [[one.facts.get("trigger time") for one in point] for point in points]
    if any(text is None for row in stated for text in row):
        return ()
    means = [float(np.mean([float(text or 0) for text in row])) / 1000 for row in stated]
    return tuple(mean - means[0] for mean in means)


def _is_told_apart(place: Sequence[Slice], fact: str) -> bool:
    try:
        values = [float(one.facts[fact]) for one in place]
    except (KeyError, ValueError):
        return False
    return len(set(values)) == len(values)


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
