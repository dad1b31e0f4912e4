"""Scores of one pair of files. Pairs may be scored in any order: names that the files give are compared afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medfewshot.datasets import ignored_value
from medfewshot.errors import some
from medfewshot.evaluation.films import FilmScore, label_pairs
from medfewshot.evaluation.scores import NAN, CaseScore, evaluate_arrays, label_names
from medfewshot.io import StructureNames, VolumeLike, in_common_frame
from medfewshot.metrics import DEFAULT_TOLERANCE_MM
from medfewshot.structures import boxes, mark_ignored
from medfewshot.types import IGNORED, Volume

Pair = tuple[str, VolumeLike, VolumeLike]
"""Case id, prediction and reference: both files, or both label maps in memory."""


@dataclass(frozen=True)
class FrameScores:
    """Scores of one volume, or of one frame of a film.

    Attributes:
        name: The case id, with the frame if there are several.
        scores: One per label.
        spatial_dims: 2 or 3.
        has_spacing: False if the reference states no millimetres.
        partly: Whether the reference has voxels that are not scored.
        notes: Warnings.
        matched: Label maps with one voxel of each value, as they were read and as they were scored.
    """

    name: str
    scores: tuple[CaseScore, ...]
    spatial_dims: int
    has_spacing: bool
    partly: bool
    notes: tuple[str, ...]
    matched: tuple[tuple[Volume, Volume], ...]


@dataclass(frozen=True)
class PairScores:
    """Scores of one pair.

    Attributes:
        frames: One, or one per frame of a film.
        films: Changes over time, for films.
    """

    frames: tuple[FrameScores, ...]
    films: tuple[FilmScore, ...]

    def agrees_with(self, table: StructureNames) -> bool:
        """Return whether a table of names gives the structures of this pair the values under which they were scored.

        Raises:
            InputError: Names and values contradict those of an earlier file.
        """
        again = [(table.match(before), after) for frame in self.frames for before, after in frame.matched]
        return all(np.array_equal(a.data, b.data) and a.warnings == b.warnings for a, b in again)


@dataclass(frozen=True)
class PairScorer:
    """Scores one pair of files; small enough to send to another process.

    Args:
        labels: Label values to score, with or without names; None for all.
        names: Label value -> name in the predictions.
        reference_names: Label value -> name in the references.
        tolerance_mm: Tolerance of the surface Dice.
        ignore: Label value in the references that is not scored; None for the label named ``ignore``.
        scans: Case id -> scan that was segmented, as far as they are known. Films need it to compensate motion.
    """

    labels: Mapping[int, str] | Sequence[int] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    reference_names: Mapping[int, str] = field(default_factory=dict)
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    ignore: int | None = None
    scans: Mapping[str, Path] = field(default_factory=dict)

    def new_table(self) -> StructureNames:
        """Return the names that are known before any file is read."""
        source = "the run" if self.names else "the data set"
        return StructureNames(self.names or self.reference_names, source=source, grows=False)

    def as_scored(self, reference: Volume) -> Volume:
        """Return a reference with the values under which it is scored. Raises InputError as the scorer does."""
        return self.new_table().match(self._reference(reference))

    def __call__(self, pair: Pair, *, table: StructureNames | None = None) -> PairScores:
        """Score a pair.

        Raises:
            InputError: A file cannot be read, the grids differ, or names and values contradict each other.
        """
        case, predicted, reference = pair
        volumes, film = [pair], None
        if not isinstance(reference, Volume):
            volumes, film = label_pairs(case, predicted, reference, ignore=self.ignore, scan=self.scans.get(case))
        table, apart = table or self.new_table(), self.new_table()
        scored = tuple(self._frame(name, found, reference, table, apart) for name, found, reference in volumes)
        if film is None:
            return PairScores(scored, ())
        references = {number: table.match(self._reference(one)) for number, one in film.references.items()}
        return PairScores(scored, tuple(replace(film, references=references).scores(case)))

    def _reference(self, label: Volume) -> Volume:
        """Return a reference without the voxels that are not scored, and with the names of its values."""
        label = mark_ignored(label, ignored_value(label.names) if self.ignore is None else self.ignore)
        return replace(label, names=self.reference_names) if self._differ and not label.names else label

    def _frame(
        self, name: str, prediction: Volume, reference: Volume, table: StructureNames, apart: StructureNames
    ) -> FrameScores:
        """Score one frame. ``apart`` knows only the names of this pair."""
        reference, prediction = in_common_frame(reference, prediction)
        reference = self._reference(reference)
        if self.names and not prediction.names:
            prediction = replace(prediction, names=self.names)
        small = [_one_voxel_a_value(reference), _one_voxel_a_value(prediction)]
        matched = tuple((volume, apart.match(volume)) for volume in small)
        reference, prediction = table.match(reference), table.match(prediction)
        scores = evaluate_arrays(
            prediction.data[0], reference.data[0], reference.spacing_mm, labels=self.labels, case_id=name,
            tolerance_mm=self.tolerance_mm,
        )  # fmt: skip
        if not reference.has_spacing:
            scores = [replace(one, volume_ml=NAN, reference_volume_ml=NAN) for one in scores]
        return FrameScores(
            name, tuple(scores), reference.spatial_dims, reference.has_spacing, bool((reference.data == IGNORED).any()),
            tuple(_case_warnings(name, (prediction, reference), self.labels)), matched,
        )  # fmt: skip

    @property
    def _differ(self) -> bool:
        values = {name.casefold(): value for value, name in self.names.items()}
        return any(values.get(name.casefold(), value) != value for value, name in self.reference_names.items())


def _one_voxel_a_value(label: Volume) -> Volume:
    """Return a label map with the same values, names and warnings, and few voxels."""
    values = np.array([[0, *boxes(label.data[0])]], dtype=label.data.dtype)
    return replace(label, data=values, header=None)


def _case_warnings(case: str, volumes: Sequence[Volume], labels: Mapping[int, str] | Sequence[int] | None) -> list[str]:
    warnings = [f"{volume.name}: {warning}" for volume in volumes for warning in volume.warnings]
    if labels is None:
        return warnings
    others = sorted({value for volume in volumes for value in boxes(volume.data[0])} - label_names(labels).keys())
    notes = f"case {case}: values [{some(others)}] are in its files but not among the labels, and are not scored"
    return [*warnings, notes] if others else warnings
