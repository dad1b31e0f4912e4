"""Match the structures of several label maps by name: 3D Slicer numbers the segments of each file separately."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfewshot.errors import InputError, some
from medfewshot.io.label_values import values_of
from medfewshot.types import Volume

_GENERIC_NAME = re.compile(r"label[ _]?\d+|\d+")
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class _Owner:
    """The structure that has a value.

    Attributes:
        name: Name of the structure.
        where: File or data set that names it.
        is_file: Whether a label map itself names it.
    """

    name: str
    where: str
    is_file: bool = True


class StructureNames:
    """One value for each named structure, over many label maps.

    A name that several files share gets the value of the first file. A label map without names keeps its values.

    Args:
        names: Label value -> name that is known before any file is read. Names such as ``label 6`` do not count.
        source: Where ``names`` come from, for messages.
        fixed: Whether no file may give a name of ``names`` another value.
        grows: Whether a file may have a structure that takes a value of another structure. It then gets a new value.
    """

    def __init__(
        self,
        names: Mapping[int, str] | None = None,
        *,
        source: str = "the data set",
        fixed: bool = False,
        grows: bool = True,
    ) -> None:
        self._owners: dict[int, _Owner] = {}
        self._value_of: dict[str, int] = {}
        self._known_by_value_only: dict[int, str] = {}  # value -> the file that names other values, but not this one
        self._highest, self._without_names, self._renumbered = 0, "", ""
        self._grows = grows
        for value, name in specific_names(names or {}).items():
            self._own(value, name, _Owner(name, source, is_file=False))
        self._fixed = fixed and bool(self._owners)

    @property
    def names(self) -> dict[int, str]:
        """Label value -> name of all structures that have a name so far."""
        return {value: owner.name for value, owner in sorted(self._owners.items())}

    def match(self, label: Volume) -> Volume:
        """Return the label map with the common values.

        Args:
            label: ``(1, *S)``, with or without names.

        Returns:
            The same, renumbered where its names need it. It has a warning if it has no names and other files have.

        Raises:
            InputError: Names and values contradict those of another file or of the data set; names both.
        """
        present = values_of(label.data)
        self._highest = max(self._highest, *present, *label.names, 0)
        if not label.names:
            return self._by_value(label, present)
        targets = {value: self._target(label, value, name) for value, name in label.names.items()}
        if not self._fixed:
            self._check_values_without_name(label, present - set(targets), set(targets.values()))
        changes = {value: target for value, target in targets.items() if value != target}
        return _renumbered(label, changes) if changes else label

    def _target(self, label: Volume, value: int, name: str) -> int:
        known, owner = self._value_of.get(_plain(name)), self._owners.get(value)
        if known == value or (known is None and owner is None):
            if value in self._known_by_value_only:
                raise _no_name(self._known_by_value_only[value], value, name, label.name)
            return self._own(value, name, _Owner(name, label.name))
        other = f"'{owner.name}' in {owner.where}" if owner else ""
        other = other or f"that is label {known} in {self._owners[known or 0].where}"
        what = f"label {value} is '{name}', but {other}"
        if self._fixed or (known is None and not self._grows):
            raise InputError(f"{label.name}: {what}", "give each structure one name and one value in every file")
        if self._without_names:
            raise InputError(
                f"{label.name}: {what}, and {self._without_names} has no names to tell which it follows",
                "give each structure the same value in every file",
            )
        self._renumbered = self._renumbered or f"{label.name}: {what}"
        if known is not None:
            return known
        self._highest += 1  # a structure that the others lack, under a value of theirs
        return self._own(self._highest, name, _Owner(name, label.name))

    def _by_value(self, label: Volume, present: set[int]) -> Volume:
        if not present:
            return label
        self._without_names = self._without_names or label.name
        if self._renumbered:
            raise InputError(
                f"{self._renumbered}, and {label.name} has no names to tell which it follows",
                "give each structure the same value in every file",
            )
        shared = [value for value in sorted(present) if value in self._owners and self._owners[value].is_file]
        if not shared:
            return label
        named = some([f"{value} '{self._owners[value].name}'" for value in shared])
        text = f"has no names; its values are taken to be those of {self._owners[shared[0]].where}: {named}"
        return replace(label, warnings=(*label.warnings, text))

    def _check_values_without_name(self, label: Volume, values: set[int], targets: set[int]) -> None:
        for value in sorted(values):
            if value in self._owners and (value in targets or self._owners[value].is_file):
                raise _no_name(label.name, value, self._owners[value].name, self._owners[value].where)
            self._known_by_value_only.setdefault(value, label.name)

    def _own(self, value: int, name: str, owner: _Owner) -> int:
        self._owners.setdefault(value, owner)
        self._value_of.setdefault(_plain(name), value)
        self._highest = max(self._highest, value)
        return value


def specific_names(names: Mapping[int, str]) -> dict[int, str]:
    """Return label value -> name without names such as ``label 6`` or ``6``, which say nothing about a structure."""
    return {value: name for value, name in names.items() if not _GENERIC_NAME.fullmatch(name.casefold())}


def match_names(
    labels: Sequence[Volume], names: Mapping[int, str] | None = None, *, fixed: bool = True
) -> list[Volume]:
    """Give each named structure of several label maps one value: the one in ``names``, or else in the first file.

    Args:
        labels: Label maps ``(1, *S)``. Those without names keep their values.
        names: Label value -> name that the data set states.
        fixed: Whether no file may give a name of ``names`` another value.

    Raises:
        InputError: Names and values contradict each other; names both.
    """
    table = StructureNames(names, fixed=fixed)
    # Files with names come first, so that one without names is compared with all of them.
    matched = {number: table.match(label) for number, label in enumerate(labels) if label.names}
    return [matched[number] if label.names else table.match(label) for number, label in enumerate(labels)]


def _plain(name: str) -> str:
    return _SEPARATORS.sub(" ", name.strip()).casefold()


def _no_name(file: str, value: int, name: str, other: str) -> InputError:
    return InputError(
        f"{file}: its label {value} has no name, and {value} is '{name}' in {other}", "name every segment"
    )


def _renumbered(label: Volume, changes: Mapping[int, int]) -> Volume:
    data = label.data.astype(np.int32)
    for value, target in changes.items():
        data[label.data == value] = target
    names = {changes.get(value, value): name for value, name in label.names.items()}
    colours = {changes.get(value, value): colour for value, colour in label.colours.items()}
    return replace(label, data=data, names=names, colours=colours)
