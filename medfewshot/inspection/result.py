"""Result of an inspection, and its two files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medfewshot.data_dictionary import check_dictionary, write_table
from medfewshot.errors import counted
from medfewshot.io import write_text

_INTENSITIES = ("minimum", "percentile_1", "median", "percentile_99", "maximum")


@dataclass(frozen=True)
class LabelStats:
    """One structure in one case; ``ml`` is None in 2D and without millimetres, ``centroid_mm`` is RAS."""

    value: int
    voxels: int
    ml: float | None
    components: int
    touches_border: bool
    centroid_mm: tuple[float, float, float]


@dataclass(frozen=True)
class CaseRow:
    """One case. Fields that need the image are None if it could not be read.

    Attributes:
        usable: Whether it can be a support: readable, one grid, some contrast, some but not all voxels labelled.
        spacing_mm: None if the image states no millimetres.
        orientation: Direction of each voxel axis, e.g. RAS; None in 2D.
        intensity: Minimum, 1st percentile, median, 99th percentile and maximum over all channels.
    """

    case_id: str
    subject_id: str
    image: str
    label: str | None
    usable: bool = False
    shape: tuple[int, ...] | None = None
    channels: int | None = None
    spacing_mm: tuple[float, ...] | None = None
    orientation: str | None = None
    intensity: tuple[float, float, float, float, float] | None = None
    modality: str | None = None
    image_hash: str | None = None
    labels: tuple[LabelStats, ...] = ()


@dataclass(frozen=True)
class Problem:
    """An ``error`` means that the case cannot be used as it is; a ``warning`` that it can, but look at it."""

    severity: Literal["error", "warning"]
    file: str
    text: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}" + (f". {self.way_out}" if self.way_out else "")


@dataclass(frozen=True)
class Inspection:
    """Cases and problems, errors first; ``labels``: value -> name as far as the dataset names them."""

    name: str
    labels: Mapping[int, str]
    cases: tuple[CaseRow, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that make a case unusable."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def summary(self) -> dict[str, int]:
        """Number of cases, of usable supports, of errors and of warnings."""
        return {
            "cases": len(self.cases),
            "labelled": sum(case.label is not None for case in self.cases),
            "usable_supports": sum(case.usable for case in self.cases),
            "errors": len(self.errors),
            "warnings": len(self.problems) - len(self.errors),
        }

    @property
    def summary_text(self) -> str:
        """One line, for example ``"toy: 4 of 5 cases can be used as labelled scans; 1 error, 2 warnings"``."""
        count = self.summary
        return (
            f"{self.name}: {count['usable_supports']} of {counted(count['cases'], 'case')} can be used as labelled "
            f"scans; {counted(count['errors'], 'error')}, {counted(count['warnings'], 'warning')}"
        )

    def label_values(self) -> list[int]:
        """Return all values that are named or found, sorted."""
        return sorted({*self.labels, *(stats.value for case in self.cases for stats in case.labels)})

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``inspection.csv`` (one row a case) and ``inspection.json`` (everything); return both paths."""
        folder = Path(folder)
        check_dictionary(folder)
        write_table(folder / "inspection.csv", map(self._row, self.cases))
        content = {
            "name": self.name,
            "summary": self.summary,
            "labels": {str(value): self.label_name(value) for value in self.label_values()},
            "problems": [asdict(problem) for problem in self.problems],
            "cases": [asdict(case) for case in self.cases],
        }
        write_text(folder / "inspection.json", json.dumps(content, indent=1) + "\n")
        return folder / "inspection.csv", folder / "inspection.json"

    def label_name(self, value: int) -> str:
        """Name of a label value; ``label 3`` if the data set names none."""
        return self.labels.get(value, f"label {value}")

    def _row(self, case: CaseRow) -> dict[str, Any]:
        """Return one flat row, with four columns a label."""
        row: dict[str, Any] = {
            "case_id": case.case_id,
            "subject_id": case.subject_id,
            "image": case.image,
            "label": case.label,
            "usable": case.usable,
            "shape": "x".join(map(str, case.shape or ())),
            "channels": case.channels,
            "spacing_mm": "x".join(f"{length:.4g}" for length in case.spacing_mm or ()),
            "orientation": case.orientation,
            "modality": case.modality,
            **dict(zip(_INTENSITIES, case.intensity or (None,) * 5, strict=True)),
            "label_values": " ".join(str(stats.value) for stats in case.labels),
        }
        found = {stats.value: stats for stats in case.labels}
        for value in self.label_values():
            name, stats = f"{self.label_name(value)} ({value})", found.get(value)
            row[f"{name} voxels"] = stats and stats.voxels
            row[f"{name} ml"] = round(stats.ml, 3) if stats and stats.ml is not None else None
            row[f"{name} components"] = stats and stats.components
            row[f"{name} touches border"] = stats and stats.touches_border
        return row
