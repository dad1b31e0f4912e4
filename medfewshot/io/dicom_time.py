"""Tell the time points of a DICOM series apart: slices that lie at the same positions at different times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_stack import Slice, at_same_position, sorted_stack

TIMES = ("temporal position", "trigger time")
_OTHERS = ("echo time", "inversion time", "b-value", "convolution kernel", "tube voltage", "frame of reference")
"""What must not differ between the time points of a film."""


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
    differ = any(len({one.facts.get(other, "") for one in place}) > 1 for place in places for other in _OTHERS)
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
