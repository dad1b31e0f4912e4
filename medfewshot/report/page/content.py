"""What the page shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["look", "error"]


@dataclass(frozen=True)
class Flag:
    """Why a case deserves a look. ``error``: there is no usable result."""

    text: str
    severity: Severity = "look"


@dataclass(frozen=True)
class Score:
    """Agreement with a reference. ``values``: metric name -> value; None if undefined."""

    status: str
    values: Mapping[str, float | None] = field(default_factory=dict)
    reference_size: float | None = None

    @property
    def dice(self) -> float:
        """Dice, 0 if undefined."""
        return self.values.get("dice") or 0.0


@dataclass(frozen=True)
class StructureRow:
    """One structure of one case. ``size`` in the page's unit, None where it was not measured."""

    label: int
    name: str
    size: float | None = None
    predicted_dice: float | None = None
    score: Score | None = None


@dataclass(frozen=True)
class Viewer:
    """Base64 NIfTI files (gzip): the image, label maps in which rank i is the i-th structure, uncertainty in 0..1."""

    image: str
    labels: str
    reference: str | None = None
    uncertainty: str | None = None
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where the viewer opens: a marked voxel in the middle of what is marked, in RAS mm."""
    note: str = ""


@dataclass(frozen=True)
class PageCase:
    """One volume. ``preview``: a data URI."""

    name: str
    status: str = "done"
    structures: tuple[StructureRow, ...] = ()
    seconds: float | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    preview: str | None = None
    viewer: Viewer | None = None


@dataclass(frozen=True)
class Page:
    """``structures``: label value -> name, in the order of the ranks. ``facts``: what is told of the run, in order."""

    title: str
    structures: Mapping[int, str]
    cases: tuple[PageCase, ...]
    unit: str = "ml"
    facts: Mapping[str, str] = field(default_factory=dict)
    summary: tuple[Mapping[str, Any], ...] = ()
    """Rows of :meth:`medfewshot.evaluation.Evaluation.summary_rows`."""
    warnings: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether any structure has a score against a reference."""
        return any(row.score is not None for case in self.cases for row in case.structures)
