"""Match the structures of several label maps by name: 3D Slicer numbers the segments of each file separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medfewshot.errors import InputError
from medfewshot.types import Volume


def match_names(labels: Sequence[Volume], names: Mapping[int, str] | None = None) -> list[Volume]:
    """The label maps with one value for each name: that of ``names``, or else of the first file that has it.

    Args:
        labels: Label maps. Those without names stay as they are.
        names: Label value -> name that the data set states.

    Raises:
        InputError: The names contradict the values of ``names``, or of a label map without names, or would join two
            structures; names both.
    """
    value_of: dict[str, int] = {}
    told_by: dict[int, str] = {}
    for value, name in (names or {}).items():
        value_of[_plain(name)], told_by[value] = value, f"'{name}' in the data set"
    matched = []
    for label in labels:
        changes: dict[int, int] = {}
        for value, name in label.names.items():
            known = value_of.get(_plain(name))
            if known is None and value in told_by and not names:
                known = max(*told_by, *label.names) + 1  # a structure that the others lack, under a value of theirs
            target = value_of[_plain(name)] = value if known is None else known
            if target != value:
                changes[value] = target
                _check_stated(label, value, told_by.get(value), labels, names)
            told_by.setdefault(target, f"'{name}' in {label.name}")
        matched.append(_renumbered(label, changes) if changes else label)
    return matched


def _plain(name: str) -> str:
    return name.strip().casefold()


def _check_stated(
    label: Volume, value: int, other: str | None, labels: Sequence[Volume], names: Mapping[int, str] | None
) -> None:
    unnamed = next((f"without a name in {one.name}" for one in labels if not one.names), None)
    other = (other or "another structure in the data set") if names else unnamed
    if other is not None:
        raise InputError(
            f"{label.name}: label {value} is '{label.names[value]}', but it is {other}", "give both the same values"
        )


def _renumbered(label: Volume, changes: Mapping[int, int]) -> Volume:
    data = label.data.astype(np.int32)
    kept = {int(value) for value in np.unique(data)} - set(changes)
    joined = kept & set(changes.values())
    if joined:
        value = min(joined)
        raise InputError(
            f"{label.name}: its label {value} has no name, and {value} is another structure in the other files",
            "name every segment",
        )
    for value, target in changes.items():
        data[label.data == value] = target
    names = {changes.get(value, value): name for value, name in label.names.items()}
    return replace(label, data=data, names=names)
