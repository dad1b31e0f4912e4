"""Structures may be asked for by value or by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medfewshot.errors import InputError, did_you_mean


def label_values(wanted: Iterable[int | str], names: Mapping[int, str]) -> list[int]:
    """The label value of each of ``wanted``: values stay, names are looked up in ``names`` (value -> name).

    Upper and lower case are the same. Raises InputError for a name that is not there, or stands for several values.
    """
    return [_value(one, names) for one in wanted]


def _value(one: int | str, names: Mapping[int, str]) -> int:
    if not isinstance(one, str):
        return int(one)
    found = [value for value, name in names.items() if name.casefold() == one.casefold()]
    if len(found) == 1:
        return found[0]
    known = [name for name in names.values() if name]
    if found:
        raise InputError(f"label {one}: stands for {', '.join(map(str, found))}; give the value")
    if not known:
        raise InputError(f"label {one}: nothing names the structures (a dataset.json would); give label values")
    raise InputError(f"label {one}: unknown{did_you_mean(one, known)}; known are {', '.join(known)}")
