"""``project.json``: the structures, scans and settings of a project, checked when read."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medfewshot.datasets import IGNORE_VALUE, PROJECT_FILE
from medfewshot.errors import InputError
from medfewshot.io import open_film, read_image, write_text
from medfewshot.settings import AdaptSettings
from medfewshot.types import Case, Volume

FORMAT_VERSION = 1
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe")
"""Colours of structures that have none, in this order."""
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_MOST_LETTERS = 200


class VersionConflict(Exception):
    """A mask was changed by someone else since it was read.

    Args:
        current: The version that is stored now.
    """

    def __init__(self, current: int) -> None:
        super().__init__(f"the mask has version {current} by now")
        self.current = current


@dataclass(frozen=True)
class Structure:
    """A structure to segment: its name, its value in masks (1 to 254; 0: not chosen) and its colour (``"#rrggbb"``)."""

    name: str
    value: int
    color: str


@dataclass(frozen=True)
class Scan:
    """Where the scan of a case is: its path, and the number of its frame in a film (None: the file is no film)."""

    path: Path
    frame: int | None = None

    @property
    def stamp(self) -> str:
        """Return time and size of the file, which change if it is replaced; empty if it is missing."""
        with contextlib.suppress(OSError, ValueError):  # the system refuses some paths
            found = self.path.stat()
            return f"{found.st_mtime_ns}-{found.st_size}"
        return ""

    def read(self) -> Volume:
        """Read the image ``(C, *S)``. Raises InputError if it cannot be read."""
        if self.frame is None:
            return read_image(self.path)
        film = open_film(self.path)
        if film is None:
            raise InputError(f"{self.path}: contains one volume now, and was a film", "restore the film")
        volume = film.frame(self.frame)
        if film.times_s or self.frame:
            return volume
        doubt = f"the {film.count} volumes of its file are taken as frames; the file states no time between them"
        return replace(volume, warnings=(*volume.warnings, doubt))


def scans_of(cases: Iterable[Case]) -> dict[str, Scan]:
    """Name each scan, and each frame of a film. Raises InputError if a name is no file name, or given twice."""
    found: dict[str, Scan] = {}
    for case in cases:
        frames = _frames_of(check_case_name(case.case_id), case.image_path.absolute())
        if twice := sorted(found.keys() & frames):
            raise InputError(f"case {twice[0]}: is a frame of a film, and another scan", "rename the scan")
        found |= frames
    return found


def _frames_of(name: str, path: Path) -> dict[str, Scan]:
    """Name each frame of a film, or else the one scan of a file or folder, which need not be readable."""
    film = None
    with contextlib.suppress(InputError):
        film = open_film(path)
    if film is None:
        return {name: Scan(path)}
    digits = len(str(film.count - 1))
    return {f"{name} frame {number:0{digits}d}": Scan(path, number) for number in range(film.count)}


@dataclass(frozen=True)
class ProjectFile:
    """Content of ``project.json``.

    Args:
        scans: Name of each case -> its scan.
        structures: The structures to segment.
        settings: Settings of the adaptation that differ from the defaults.
        removed: Values of removed structures. Drafts may contain them, so no new structure gets one.
    """

    scans: Mapping[str, Scan] = field(default_factory=dict)
    structures: tuple[Structure, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> ProjectFile:
        """Read and check the file.

        Raises:
            InputError: The file is missing, damaged, of another version, or contradicts itself.
        """
        path = folder / PROJECT_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{folder}: contains no {PROJECT_FILE}", "give the folder of a project") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({error})", "restore it from a copy") from None
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise InputError(
                f"{path}: has format version {_short(version)}, this program reads version {FORMAT_VERSION}",
                "open it with the program that wrote it",
            )
        try:
            return cls(*_checked(folder, content))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{path}: {error.problem}", error.remedy) from None
            raise InputError(f"{path}: an entry has an unexpected form ({error})", "correct it there") from None

    def write(self, folder: Path) -> None:
        """Write the file. Scans inside or beside the folder get relative paths, so that both can be moved."""
        scans = [
            {"name": name, "path": _relative(scan.path, folder)} | ({} if scan.frame is None else {"frame": scan.frame})
            for name, scan in self.scans.items()
        ]
        content = {
            "format_version": FORMAT_VERSION,
            "structures": [vars(one) for one in self.structures],
            "scans": scans,
            "settings": dict(self.settings),
            "removed": sorted(self.removed),
        }
        write_text(folder / PROJECT_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def new_scans(self, cases: Iterable[Case]) -> dict[str, Scan]:
        """Return the scans that the project lacks, by name; also those of its cases whose scan is missing.

        Raises:
            InputError: A case of the same name has another scan.
        """
        known = {os.path.realpath(scan.path) for scan in self.scans.values()}
        new = scans_of(case for case in cases if os.path.realpath(case.image_path) not in known)
        for name in new.keys() & self.scans.keys():
            if os.path.exists(self.scans[name].path):
                problem = f"{new[name].path}: case {name} of the project has another scan, {self.scans[name].path}"
                raise InputError(problem, "rename one of them, or give another folder of the project")
        return new

    def with_structures(self, structures: Sequence[Structure]) -> ProjectFile:
        """Return the same with other structures; one with the value 0 gets a free value."""
        before = {one.value for one in self.structures}
        free = 1 + max(before | self.removed, default=0)
        checked = check_structures([replace(one, value=free) if one.value == 0 else one for one in structures])
        return replace(self, structures=checked, removed=self.removed | before - {one.value for one in checked})


def check_structures(structures: Sequence[Structure]) -> tuple[Structure, ...]:
    """Return the structures, checked."""
    names: set[str] = set()
    values: set[int] = set()
    for one in structures:
        name, value = one.name, one.value
        if not isinstance(name, str) or not name.strip() or len(name) > _MOST_LETTERS or not name.isprintable():
            raise InputError(f"structure {_short(name)}: is no name", f"write 1 to {_MOST_LETTERS} letters in one line")
        if name.strip().casefold() == "ignore":
            raise InputError(f"structure {name}: the name has a meaning of its own", "give it another name")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < IGNORE_VALUE:
            raise InputError(f"structure {name}: has the value {_short(value)}", f"give 1 to {IGNORE_VALUE - 1}")
        if not isinstance(one.color, str) or not _COLOR.fullmatch(one.color):
            raise InputError(f"structure {name}: has the colour {_short(one.color)}", "write it as #rrggbb")
        if name.strip().casefold() in names or value in values:
            raise InputError(f"structure {name}: its name or its value {value} is given twice", "make each unique")
        names.add(name.strip().casefold())
        values.add(value)
    return tuple(structures)


def named_structures(names: Mapping[int, str]) -> tuple[Structure, ...]:
    """Structures from label value -> name, with colours."""
    return tuple(Structure(name, value, COLORS[i % len(COLORS)]) for i, (value, name) in enumerate(names.items()))


def check_case_name(name: object) -> str:
    """Return the name of a case, which is also a file name inside the project."""
    good = isinstance(name, str) and 0 < len(name) <= _MOST_LETTERS and not set(name) & {"/", "\\", "\0"}
    if not good or not isinstance(name, str) or name.startswith(".") or not name.strip():
        raise InputError(f"case {_short(name)}: cannot be a file name", "rename the scan")
    return name


def _checked(folder: Path, content: Mapping[str, Any]) -> tuple[Any, ...]:
    scans: dict[str, Scan] = {}
    for entry in content["scans"]:
        name = check_case_name(entry["name"])
        if name in scans:
            raise InputError(f"case {_short(name)}: is given twice", "remove one entry")
        if not isinstance(entry["path"], str) or "\0" in entry["path"] or not 0 < len(entry["path"]) < 4096:
            raise InputError(f"case {_short(name)}: has no path", "give the path of its scan")
        frame = entry.get("frame")
        if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int) or frame < 0):
            raise InputError(f"case {_short(name)}: has the frame {_short(frame)}", "give its number, from 0")
        scans[name] = Scan(Path(os.path.normpath(folder.absolute() / entry["path"])), frame)
    structures = [Structure(one["name"], one["value"], one["color"]) for one in content["structures"]]
    settings = dict(content.get("settings") or {})
    AdaptSettings(**settings)
    return scans, check_structures(structures), settings, frozenset(map(int, content.get("removed", ())))


def _relative(path: Path, folder: Path) -> str:
    path, base = path.absolute(), folder.absolute()
    near = path.is_relative_to(base) or path.is_relative_to(base.parent)
    return Path(os.path.relpath(path, base)).as_posix() if near else str(path)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
