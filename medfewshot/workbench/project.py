"""A project: a folder of plain files with masks, drafts, segmenters and reviews of a set of scans.

``project.json``    structures (name, value, colour), scans (name, path) and settings
``labels/``         masks by hand, ``CASE.nii.gz`` on the scan's grid; 255 is "not annotated yet"
``drafts/``         masks by machine, and what the machine says about each (``CASE.json``)
``history/``        versions of every mask; those that were reviewed are kept for good
``segmenters/``     what the project learned, the newest last
``reviews.csv``     one row per review: time, case, status, version, dice, note

Every file is written beside its name and then renamed, so that it is whole whenever the program stops.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.datasets import PROJECT_FILE
from medfewshot.errors import GridMismatchError, InputError
from medfewshot.intensities import voxel_digest
from medfewshot.io import StructureNames
from medfewshot.settings import AdaptSettings
from medfewshot.types import Case, Volume
from medfewshot.workbench import mask_checks
from medfewshot.workbench.drafts import DraftFacts, DraftStore
from medfewshot.workbench.mask_store import MaskFacts, MaskStore, now
from medfewshot.workbench.project_file import ProjectFile, Scan, Structure, VersionConflict, named_structures, scans_of
from medfewshot.workbench.reviews import STATUSES, Review, ReviewLog
from medfewshot.workbench.state import CaseState, in_order, status_of
from medfewshot.workflow import find_cases
from medfewshot.workflow.reviews import REVIEWS

_KEPT_GRIDS = 8


class Project:
    """A project on disk. Safe to call from several threads of one process."""

    def __init__(self, folder: Path, content: ProjectFile) -> None:
        self.folder, self._content = folder, content
        self._lock = threading.RLock()
        self._store = MaskStore(folder)
        self._drafts = DraftStore(folder / "drafts")
        self._reviews = ReviewLog(folder / REVIEWS)
        self._grids: dict[tuple[str, str], Volume] = {}
        self._load()

    @classmethod
    def create(cls, folder: Path, scans: Sequence[Path], *, structures: Sequence[Structure] = ()) -> Project:
        """Make a new project.

        Args:
            folder: Where; it must not contain a project yet.
            scans: Files, DICOM folders, or folders of them. They stay in place. Each frame of a film is a case.
            structures: What to segment.

        Raises:
            InputError: There is a project already, or no scan is found.
        """
        folder = Path(folder)
        if (folder / PROJECT_FILE).exists():
            raise InputError(f"{folder}: is a project already", "open it, or give another folder")
        content = ProjectFile(scans_of(find_cases(list(scans)))).with_structures(structures)
        folder.mkdir(parents=True, exist_ok=True)
        content.write(folder)
        return cls(folder, content)

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Open a project, and complete what was interrupted when it was last used.

        Raises:
            InputError: There is none, it is of another version, or ``project.json`` is wrong.
        """
        return cls(Path(folder), ProjectFile.read(Path(folder)))

    def _load(self) -> None:
        for part in ("labels", "drafts", "history"):
            for left in (self.folder / part).rglob(".*"):  # halves of files, of a program that was killed
                with contextlib.suppress(OSError):
                    left.unlink()
        self._adopt(list(self._content.scans))
        self._drafts.load(self._content.scans)

    def _adopt(self, names: Sequence[str]) -> None:
        """Make masks that other programs changed versions, and their new values structures."""
        self._store.recover(names, self.grid)
        unknown = {value for name in names for value in self._store.facts(name).voxels} - set(self._values)
        extra = named_structures({value: f"label {value}" for value in sorted(unknown)})
        self._content = self._content.with_structures((*self.structures, *extra))

    def _check_version(self, name: str, version: int) -> None:
        """Raise VersionConflict if a mask has another version by now, or another program changed it meanwhile."""
        self._adopt([name])
        if version != (current := self._store.facts(name).version):
            raise VersionConflict(current)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What is segmented."""
        return self._content.structures

    @property
    def _values(self) -> list[int]:
        return [one.value for one in self.structures]

    def set_structures(self, structures: Sequence[Structure]) -> None:
        """Replace the structures; one with the value 0 gets a free value.

        Raises:
            InputError: One is invalid or has the value of a removed one, or one that is drawn in a mask is missing.
        """
        with self._lock:
            content = self._content.with_structures(structures)
            kept = {one.value for one in content.structures}
            if reused := (kept - set(self._values)) & content.removed:
                raise InputError(f"structure with value {min(reused)}: a removed one had this value", "give another")
            drawn = {value: name for name in self._content.scans for value in self._store.facts(name).voxels}
            if lost := drawn.keys() - kept:
                raise InputError(f"structure {min(lost)}: is drawn in {drawn[min(lost)]}", "erase it there first")
            self._keep(content)

    def _keep(self, content: ProjectFile) -> None:
        content.write(self.folder)
        self._content = content

    @property
    def settings(self) -> dict[str, object]:
        """Settings of the adaptation that differ from the defaults."""
        return dict(self._content.settings)

    def change_settings(self, changes: Mapping[str, object]) -> None:
        """Change settings of the adaptation. Raises InputError if one is unknown or out of bounds."""
        with self._lock:
            settings = {**self._content.settings, **changes}
            AdaptSettings(**settings)
            self._keep(replace(self._content, settings=settings))

    def add_scans(self, cases: Iterable[Case]) -> list[str]:
        """Add scans that came since, and find moved ones again; their names. Raises InputError if a name is taken."""
        with self._lock:
            new = self._content.new_scans(cases)
            if new:
                self._keep(replace(self._content, scans={**self._content.scans, **new}))
                self._adopt(list(new))
                self._drafts.load(new)
            return list(new)

    def cases(self) -> list[CaseState]:
        """All cases, in the order of what to label next."""
        with self._lock:
            return in_order([self.case(name) for name in self._content.scans])

    def case(self, name: str) -> CaseState:
        """The state of one case. Raises InputError if there is none of this name."""
        with self._lock:
            scan, facts, draft = self.scan(name), self._store.facts(name), self._drafts.facts(name)
            given = self._reviews.current(name, version=facts.version, draft=draft.number if facts.empty else None)
            status, reason = status_of(facts, draft, given)
            if not scan.stamp:
                reason = "the scan is missing: restore it, or correct its path in project.json"
            return CaseState(
                name, scan.path, status, reason, facts.version, draft.confidence, self._reviews.note(name),
                draft.distance, draft.number, scan.frame,
            )  # fmt: skip

    def facts(self, name: str) -> MaskFacts:
        """What is known about the mask of a case: version, finished slices, voxels per structure."""
        with self._lock:
            self.scan(name)
            return self._store.facts(name)

    def reviews(self) -> list[Review]:
        """All reviews, oldest first."""
        with self._lock:
            return list(self._reviews.rows)

    def mask_path(self, name: str) -> Path | None:
        """File of the mask by hand, on the scan's grid; None if there is none."""
        return None if self.facts(name).empty else self._store.path(name)

    def read_labels(self, name: str) -> np.ndarray | None:
        """The mask, or else the draft, ``(*S)`` uint8 in file order; ignored voxels are 0. None without either.

        Raises:
            InputError: The mask cannot be read, or lies on another grid than the scan, which was replaced.
        """
        with self._lock:
            self.scan(name)
            self._adopt([name])
        path = self.mask_path(name)
        return self.read_draft(name) if path is None else mask_checks.read_mask(path, scan=self.grid(name))

    def read_draft(self, name: str) -> np.ndarray | None:
        """The draft ``(*S)`` uint8, without removed structures; None if there is none on the grid of the scan."""
        if self._drafts.facts(name).number:
            with contextlib.suppress(GridMismatchError):
                return mask_checks.read_mask(self._drafts.path(name), self._values, scan=self.grid(name))
        return None

    def save_mask(
        self, name: str, labels: np.ndarray, *, version: int, drawn: Sequence[int] | None = None,
        axis: int | None = None,
    ) -> int:  # fmt: skip
        """Save what was drawn.

        Args:
            name: The case.
            labels: ``(*S)`` whole numbers, 0 or a structure's value, on the scan's grid in file order.
            version: Of the mask that was changed; 0 if there was none.
            drawn: Indices of the finished slices along ``axis``; None if the whole scan is annotated.
            axis: Voxel axis.

        Returns:
            The new version.

        Raises:
            VersionConflict: The stored mask has another version.
            InputError: Shape, values or slices do not fit.
        """
        with self._lock:
            like = self.grid(name)
            self._check_version(name, version)
            labels, voxels = mask_checks.fitting(name, np.asarray(labels), like, self._values)
            finished = mask_checks.check_drawn(drawn, axis, labels.shape)
            facts = MaskFacts(version + 1, finished, axis if finished is not None else None, "drawn", voxels, now())
            self._store.save(name, mask_checks.with_ignored(labels, finished, axis), like, facts)
            self._store.prune(name, {review.version for review in self._reviews.of(name)})
            return facts.version

    def import_mask(
        self, name: str, mask: Path | Volume, *, ignore: int | None = None, table: StructureNames | None = None
    ) -> int:
        """Copy a mask that another program made; its new version. Raises InputError if it does not fit the scan.

        Structures that it names get the values of these names in ``table``, by default those of the project.
        """
        with self._lock:
            table = table or StructureNames({one.value: one.name for one in self.structures}, source="the project")
            label, drawn, axis = mask_checks.foreign_mask(mask, self.grid(name), ignore)
            label = table.match(label)
            new = sorted({int(value) for value in np.unique(label.data)} - {0, *self._values})
            if new:
                names = {value: {**table.names, **label.names}.get(value, f"label {value}") for value in new}
                self.set_structures((*self.structures, *named_structures(names)))
            return self.save_mask(name, label.data[0], version=self.facts(name).version, drawn=drawn, axis=axis)

    def review(self, name: str, *, status: str = "", note: str = "", seen: tuple[int, int] | None = None) -> None:
        """Add a review.

        Args:
            name: The case.
            status: ``"accepted"``, ``"rejected"``, ``"needs review"``, or ``""`` for a note alone. An accepted draft
                becomes the mask of the case, or what was missing of it; rejected later, it is a draft again.
            note: For people.
            seen: Version of the mask and number of the draft that the reviewer saw; None: the newest.

        Raises:
            VersionConflict: The mask or the draft changed meanwhile.
            InputError: The status is unknown, or there is nothing to accept or reject.
        """
        if status and status not in STATUSES:
            raise InputError(f"status {status}: is unknown", f"give {', '.join(STATUSES)}")
        with self._lock:
            draft, facts = self._drafts.facts(name), self.facts(name)
            if status:
                self._check_version(name, facts.version)
                if seen not in (None, (facts.version, draft.number)):
                    raise VersionConflict(facts.version)
            if status in STATUSES[:2] and facts.empty and not draft.number:
                raise InputError(f"{name}: has neither a mask nor a draft", "draw one, or learn first")
            same = self.agreement(name)
            if status == "accepted" and draft.number and not facts.complete:
                facts = self._complete(name, facts)
            if status == "rejected" and facts.source == "draft":  # the next draft replaces it
                nothing = np.zeros(self.grid(name).spatial_shape, np.uint8)
                self.save_mask(name, nothing, version=facts.version, drawn=(), axis=0)
            same = 1.0 if facts.source == "draft" and draft.number else same
            self._reviews.add(Review(now(), name, status, self.facts(name).version, draft.number, same, note))

    def _complete(self, name: str, facts: MaskFacts) -> MaskFacts:
        """Make the draft the mask, or fill with it what is not annotated yet."""
        grid, source = self.grid(name), "draft" if facts.empty else "drawn"
        labels = mask_checks.completed(self.mask_path(name), self._drafts.path(name), self._values, grid)
        facts = MaskFacts(facts.version + 1, source=source, voxels=mask_checks.count_voxels(labels), time=now())
        return self._store.save(name, labels, grid, facts)

    def agreement(self, name: str) -> float | None:
        """Mean Dice between draft and mask of a case, over annotated voxels; None if one of them is missing."""
        mask = self.mask_path(name) if self._drafts.facts(name).number else None
        return None if mask is None else mask_checks.agreement(mask, self._drafts.path(name), self._values)

    def write_draft(
        self, name: str, labels: np.ndarray, *, confidence: float | None, reason: str = "",
        distance: float | None = None, segmenter: str = "",
    ) -> bool:  # fmt: skip
        """Write a draft ``(*S)`` beside the mask, with its :class:`DraftFacts`.

        A case whose mask is complete keeps the draft that it was corrected from.

        Returns:
            Whether it was written.
        """
        with self._lock:
            if self.facts(name).complete:
                return False
            number = self._drafts.facts(name).number + 1
            facts = DraftFacts(number, confidence, reason, distance, segmenter, now())
            self._drafts.write(name, labels, self.grid(name), facts)
            return True

    def examples(self) -> list[Case]:
        """Scan and mask of every case to learn from, oldest mask first. A complete mask that was rejected is none."""
        with self._lock:
            found = [
                Case(name, name, None, (scan.path,), self._store.path(name), frame=scan.frame)
                for name, scan in self._content.scans.items()
                if self._teaches(name) and scan.stamp
            ]
            return sorted(found, key=lambda case: self._store.facts(case.case_id).time)

    def _teaches(self, name: str) -> bool:
        facts = self._store.facts(name)
        given = self._reviews.current(name, version=facts.version) if facts.complete else None
        return facts.teaches and (given is None or given.status != "rejected")

    def read_scan(self, name: str) -> Volume:
        """Read the scan of a case. Raises InputError if it cannot be read."""
        scan = self.scan(name)
        key, volume = (name, scan.stamp), scan.read()
        with self._lock:
            self._grids = {**dict(list(self._grids.items())[1 - _KEPT_GRIDS :]), key: mask_checks.grid_of(volume)}
            self._store.scans[name] = voxel_digest(volume.data)
        return volume

    def grid(self, name: str) -> Volume:
        """The scan of a case without its voxels: shape, affine and header. Raises InputError if it cannot be read."""
        return self._grids.get((name, self.scan(name).stamp)) or mask_checks.grid_of(self.read_scan(name))

    def scan(self, name: str) -> Scan:
        """Return where the scan of a case is. Raises InputError if there is no such case."""
        try:
            return self._content.scans[name]
        except KeyError:
            raise InputError(f"case {' '.join(str(name).split())[:60]}: is not in the project") from None
