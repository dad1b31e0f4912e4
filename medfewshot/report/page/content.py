"""Content of the report page, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from medfewshot.report.paint import colour_of

MISSED, FALSE_POSITIVE, ABSENT = "missed", "false_alarm", "absent"


@dataclass(frozen=True)
class StructureRow:
    """One structure of one case.

    Attributes:
        label: Label value.
        name: Name of the structure.
        size: In the unit of the page; None if it was not measured.
        predicted_dice: The calibrated confidence, shown as such.
        status: ``found``, ``missed``, ``false_alarm`` or ``absent`` in comparison with the reference; None without one.
        scores: Metric name -> value; None if undefined.
        reference_size: Like ``size``.
        flags: Reasons to review this structure, in a few words.
    """

    label: int
    name: str
    size: float | None = None
    predicted_dice: float | None = None
    status: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reference_size: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def quality(self) -> float:
        """Dice if there is a reference, or else the predicted Dice; 0 for a missing structure, 1 if unknown."""
        if self.status == ABSENT:
            return 1.0
        if self.status is not None:
            return self.scores.get("dice") or 0.0
        if self.size == 0:
            return 0.0
        return 1.0 if self.predicted_dice is None else self.predicted_dice


@dataclass(frozen=True)
class Viewer:
    """Base64 NIfTI files (gzip): the image, label maps in which rank i is the i-th structure, uncertainty in 0..1.

    Attributes:
        centre_mm: Where the viewer opens: a labelled voxel in the middle of the structures, in RAS mm.
        note: The resolution, in words.
        frames: Number of each frame of the film that the viewer plays; empty for one volume.
        paused: Place in ``frames`` where it opens; the reference belongs to this frame.
    """

    image: str
    labels: str
    reference: str | None = None
    uncertainty: str | None = None
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    note: str = ""
    frames: tuple[int, ...] = ()
    paused: int = 0


@dataclass(frozen=True)
class PageCase:
    """One scan and its result.

    Attributes:
        name: Name of the case.
        failed: Whether there is no result.
        structures: One row per structure.
        seconds: Time that the case took.
        files: Names of the files of the result.
        warnings: One line each.
        details: The reasons to review it, in sentences with figures.
        preview: The whole preview, as a data URI.
        picture: One slice with contours, as a data URI.
        viewer: The volumes for the viewer.
    """

    name: str
    failed: bool = False
    structures: tuple[StructureRow, ...] = ()
    seconds: float | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    preview: str | None = None
    picture: str | None = None
    viewer: Viewer | None = None

    @property
    def reasons(self) -> dict[str, list[StructureRow]]:
        """Reasons to review the case -> the structures that they concern, the worst first."""
        found: dict[str, list[StructureRow]] = {}
        for row in sorted(self.structures, key=lambda row: row.quality):
            if row.flags:
                found.setdefault("; ".join(row.flags), []).append(row)
        return found

    @property
    def worst(self) -> StructureRow | None:
        """The structure to look at first: the flagged one, or else any, of the lowest quality."""
        rows = [row for row in self.structures if row.flags] or list(self.structures)
        return min(rows, key=lambda row: row.quality, default=None)


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    Attributes:
        title: Name of the run.
        structures: Label value -> name, in the order of the ranks.
        cases: In the order of the run.
        unit: Unit of the sizes.
        facts: Facts about the run, in order.
        summary: Rows of :meth:`medfewshot.evaluation.Evaluation.summary_rows`.
        warnings: Warnings that belong to no case.
        volume_plot: Bland-Altman plots, as a data URI.
    """

    title: str
    structures: Mapping[int, str]
    cases: tuple[PageCase, ...]
    unit: str = "ml"
    facts: Mapping[str, str] = field(default_factory=dict)
    summary: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    volume_plot: str | None = None

    @cached_property
    def colours(self) -> dict[int, str]:
        """Label value -> colour."""
        return {value: colour_of(rank) for rank, value in enumerate(self.structures, start=1)}

    @cached_property
    def scored(self) -> bool:
        """Whether any structure was compared with a reference."""
        return any(row.status is not None for case in self.cases for row in case.structures)
