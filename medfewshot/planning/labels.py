"""Label values and names of the structures of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from medfewshot.errors import InputError, did_you_mean, some
from medfewshot.structures import Structure
from medfewshot.types import Volume

MAX_LABELS = 500
"""More different values are intensities, not labels: no atlas in use has more structures."""


def named_labels(wanted: Mapping[int, str] | Iterable[int | str] | None, names: Mapping[int, str]) -> dict[int, str]:
    """Return label value -> name of ``wanted``: as given, or from ``names``; ``label 6`` for one without a name."""
    if isinstance(wanted, Mapping):
        return dict(wanted)
    values = [_value(one, names) for one in wanted or ()]
    return {value: names.get(value, f"label {value}") for value in values}


def name_with_value(name: str, value: int) -> str:
    """Return ``liver (label 6)``, or ``label 6`` for a structure without a name."""
    return name if name == f"label {value}" else f"{name} (label {value})"


def choose_labels(
    labels: Sequence[Volume],
    found: Sequence[Mapping[int, Structure]],
    names: Mapping[int, str],
    wanted: Mapping[int, str] | Sequence[int | str] | None,
) -> dict[int, str]:
    """Return label value -> name of the structures to learn: ``wanted``, or all that are ``found`` in ``labels``.

    Raises:
        InputError: No structure is marked, a wanted one is in no support, or there are too many for a label map.
    """
    present = sorted({value for one in found for value in one})
    if not present:
        files = some([label.name for label in labels])
        raise InputError(f"{files}: no structure is marked (every voxel is 0)", "label the structure in at least one")
    if not wanted and len(present) > MAX_LABELS:
        most = max(range(len(found)), key=lambda number: len(found[number]))
        raise InputError(
            f"{labels[most].name}: the labels hold {len(present)} different values, as an image does",
            "give the label map as the label, or choose the structures",
            setting="labels",
        )
    chosen = [_value(one, names) for one in wanted] if wanted else present
    missing = [str(value) for value in chosen if value not in present]
    if missing:
        raise InputError(
            f"label {some(missing)}: is in none of the labelled scans",
            f"they contain {some(present)}",
            setting="labels",
        )
    given = dict(wanted) if isinstance(wanted, Mapping) else {}
    called = {value: str(given.get(value) or names.get(value) or f"label {value}") for value in chosen}
    count = Counter(called.values())  # results are kept by name: two structures of one name would be one
    return {value: f"{name} ({value})" if count[name] > 1 else name for value, name in called.items()}


def _value(one: int | str, names: Mapping[int, str]) -> int:
    """Return a label value as it is, or the value of a name in upper or lower case."""
    if not isinstance(one, str):
        return int(one)
    found = [value for value, name in names.items() if name.casefold() == one.casefold()]
    if len(found) == 1:
        return found[0]
    known = [name for name in names.values() if name]
    if found:
        values = some(found)
        raise InputError(f"label {one}: stands for {values}", "give the value", setting="labels")
    if not known:
        problem = f"label {one}: nothing names the structures (a dataset.json would)"
        raise InputError(problem, "give label values", setting="labels")
    raise InputError(f"label {one}: unknown{did_you_mean(one, known)}", f"known are {some(known)}")
