"""Label values from label values or names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medfewshot.errors import InputError, did_you_mean


def label_values(wanted: Iterable[int | str], names: Mapping[int, str]) -> list[int]:
    """Return the label value of each entry of ``wanted``.

    Args:
        wanted: Values, which are returned as they are, or names in upper or lower case.
        names: Label value -> name.

    Raises:
        InputError: A name is unknown or belongs to several values.
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
        values = ", ".join(map(str, found))
        raise InputError(f"label {one}: stands for {values}", "give the value", setting="labels")
    if not known:
        problem = f"label {one}: nothing names the structures (a dataset.json would)"
        raise InputError(problem, "give label values", setting="labels")
    raise InputError(f"label {one}: unknown{did_you_mean(one, known)}", f"known are {', '.join(known)}")
