"""Masks and drafts of a project on disk: every version whole, and the newest one never lost.

A new version of a mask is first written to ``history/CASE/0007.nii.gz`` (before it ``0007.json``, its facts) and then
copied to ``labels/CASE.nii.gz``. If the program is killed in between, :meth:`MaskStore.recover` copies it again. A mask
that another program changed in ``labels/`` becomes a version of its own.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.datasets import IGNORE_VALUE
from medfewshot.errors import InputError
from medfewshot.io import atomic_path, in_frame_of, read_label, write_label, write_text
from medfewshot.types import Volume
from medfewshot.workbench.mask_checks import count_voxels, finished_slices, read_stored

SUFFIX = ".nii.gz"
RECENT_VERSIONS = 30
"""Versions of a mask that are always kept. Older ones are removed unless they were reviewed."""


@dataclass(frozen=True)
class MaskFacts:
    """What is known about one version of a mask without reading it.

    Args:
        version: Counts from 1; 0 if there is no mask.
        drawn: Indices of the finished slices along ``axis``; None if the whole scan is annotated.
        axis: Voxel axis that ``drawn`` counts along.
        source: ``"drawn"`` (by hand), ``"draft"`` (an accepted draft) or ``"file"`` (by another program).
        voxels: Structure value -> number of voxels.
        time: When it was saved, in UTC.
        scan: Digest of the voxels of its scan then; empty if it is not known.
    """

    version: int = 0
    drawn: tuple[int, ...] | None = None
    axis: int | None = None
    source: str = "drawn"
    voxels: Mapping[int, int] = field(default_factory=dict)
    time: str = ""
    scan: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing is annotated: there is no mask, or what was drawn was undone."""
        return not self.version or (self.drawn == () and not any(self.voxels.values()))

    @property
    def complete(self) -> bool:
        """Whether the whole scan is annotated."""
        return self.version > 0 and self.drawn is None

    @property
    def teaches(self) -> bool:
        """Whether it is an example to learn from: drawn by hand, with a structure marked."""
        return self.version > 0 and self.source != "draft" and any(self.voxels.values())


def now() -> str:
    """Return the time in UTC as text, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class MaskStore:
    """Masks of a project, by the name of the case. Not safe for several threads: the project has the lock."""

    def __init__(self, folder: Path) -> None:
        self.labels, self.history = folder / "labels", folder / "history"
        self._facts: dict[str, MaskFacts] = {}
        self.scans: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """Return where the mask of a case is, if there is one."""
        return self.labels / f"{name}{SUFFIX}"

    def facts(self, name: str) -> MaskFacts:
        """Return what is known about the newest version."""
        return self._facts.get(name, MaskFacts())

    def save(self, name: str, labels: np.ndarray, like: Volume, facts: MaskFacts) -> MaskFacts:
        """Write a version whole, or not at all; return ``facts`` with the digest of the scan in ``scans``."""
        facts = replace(facts, scan=self.scans.get(name, ""))
        version = self._version_path(name, facts.version)
        write_text(version.with_name(f"{facts.version:04d}.json"), json.dumps(asdict(facts)) + "\n")
        write_label(version, labels, like)
        self._publish(name, version)
        self._facts[name] = facts
        return facts

    def recover(self, names: Sequence[str], grid: Callable[[str], Volume]) -> None:
        """Read the facts of all masks; complete what was interrupted, and adopt masks that other programs changed.

        Raises:
            InputError: Such a mask does not fit the ``grid`` of its scan, or has a value above 255.
        """
        for name in names:
            newest = max(self._versions(name), default=0)
            if newest:
                self._facts[name] = self._read_facts(name, newest)
            with contextlib.suppress(OSError):  # what cannot be written to can still be looked at
                self._complete(name, newest, grid)

    def _complete(self, name: str, newest: int, grid: Callable[[str], Volume]) -> None:
        """Publish the newest version if it is not, or adopt what is published if it is another mask."""
        stored, shown = self._version_path(name, newest), self.path(name)
        saved, changed = (path.stat().st_mtime_ns if path.exists() else -1 for path in (stored, shown))
        interrupted = changed < saved and (changed < 0 or _left(shown, self._version_path(name, newest - 1), stored))
        if interrupted:
            self._publish(name, stored)
        elif changed != saved and not _same(shown, stored):
            self._adopt(name, shown, newest + 1, grid)

    def prune(self, name: str, reviewed: set[int]) -> None:
        """Remove old versions that were not reviewed."""
        for version in sorted(self._versions(name))[:-RECENT_VERSIONS]:
            if version not in reviewed:
                self._version_path(name, version).unlink(missing_ok=True)
                self._version_path(name, version).with_name(f"{version:04d}.json").unlink(missing_ok=True)

    def _adopt(self, name: str, path: Path, version: int, grid: Callable[[str], Volume]) -> None:
        try:
            like = grid(name)
        except InputError:  # the scan is missing, and the page says so: the mask waits for it
            return
        label = in_frame_of(like, read_label(path))
        if (highest := int(label.data.max())) > IGNORE_VALUE:
            raise InputError(
                f"{path}: has the value {highest}", f"give structures values below {IGNORE_VALUE}, or delete the file"
            )
        labels = label.data[0].astype(np.uint8)
        self.save(name, labels, like, _facts_of(labels, version))

    def _publish(self, name: str, version: Path) -> None:
        """Make a version the mask that everybody reads; the same time tells later that both are in step."""
        with atomic_path(self.path(name)) as temporary:
            shutil.copy2(version, temporary)

    def _versions(self, name: str) -> list[int]:
        files = (self.history / name).glob(f"[0-9]*{SUFFIX}") if (self.history / name).is_dir() else ()
        return [int(file.name.split(".")[0]) for file in files if file.name.split(".")[0].isdigit()]

    def _version_path(self, name: str, version: int) -> Path:
        return self.history / name / f"{version:04d}{SUFFIX}"

    def _read_facts(self, name: str, version: int) -> MaskFacts:
        path = self._version_path(name, version).with_name(f"{version:04d}.json")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            voxels = {int(value): int(count) for value, count in content["voxels"].items()}
            drawn = None if content["drawn"] is None else tuple(int(index) for index in content["drawn"])
            axis = None if drawn is None else (0, 1, 2).index(content["axis"])
            scan = str(content.get("scan", ""))
            return MaskFacts(version, drawn, axis, str(content["source"]), voxels, str(content["time"]), scan)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The mask says nearly as much.
            return _facts_of(read_stored(self._version_path(name, version)), version)


def _left(mask: Path, previous: Path, newest: Path) -> bool:
    """Whether a mask is the previous version, and nobody put it there after the newest one was written."""
    return mask.stat().st_ctime_ns <= newest.stat().st_ctime_ns and _same(mask, previous)


def _same(mask: Path, version: Path) -> bool:
    return version.exists() and filecmp.cmp(mask, version, shallow=False)


def _facts_of(labels: np.ndarray, version: int) -> MaskFacts:
    """Return the facts that a mask ``(*S)`` itself tells."""
    drawn, axis = finished_slices(labels == IGNORE_VALUE)
    return MaskFacts(version, drawn, axis, "file", count_voxels(labels), now())
