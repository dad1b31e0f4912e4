"""Scores of a folder of results, with the names that its run's record and the ``dataset.json`` of the labels state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medfewshot.datasets import read_names
from medfewshot.errors import InputError, some
from medfewshot.evaluation import Evaluation, evaluate_pairs, match_cases
from medfewshot.planning import named_labels
from medfewshot.settings import EvaluateSettings
from medfewshot.types import Progress
from medfewshot.workers import Workers
from medfewshot.workflow.record import RUN_RECORD, read_record
from medfewshot.workflow.reviews import read_review_status

LEARNED = "the model learned from it, or from a frame of it; leave that out of the score"
FAILED = "its segmentation failed; the file comes from somewhere else"


@dataclass(frozen=True)
class KnownNames:
    """Label value -> name, as far as it is known before any label map is read.

    Args:
        predictions: Of the predictions, from the record of their run.
        references: Of the references, from their ``dataset.json``.
        ignore: Label value of voxels that the references do not annotate, by their data set or the run; or None.
        complete: Whether no names are lacking because a file cannot be read.
        warnings: Why names are not used.
        scans: Case id -> scan, of the predictions of a run.
        doubtful: Case id -> why its score says little.
    """

    predictions: Mapping[int, str]
    references: Mapping[int, str]
    ignore: int | None = None
    complete: bool = True
    warnings: tuple[str, ...] = ()
    scans: Mapping[str, Path] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)

    def doubts(self, cases: Collection[str]) -> tuple[str, ...]:
        """Warn of those of these cases whose score says little."""
        reasons = {
            why: [one for one in sorted(cases) if self.doubtful.get(one) == why] for why in self.doubtful.values()
        }
        return tuple(f"{some(found)}: {why}" for why, found in reasons.items() if found)

    @property
    def labels(self) -> dict[int, str]:
        """Of all structures; one that the record knows by number alone takes its name from ``dataset.json``."""
        if not self.predictions:
            return dict(self.references)
        known = self.predictions.items()
        return {v: self.references.get(v, name) if name == f"label {v}" else name for v, name in known}


def score(
    predictions: Path,
    reference: Path,
    settings: EvaluateSettings | None = None,
    *,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Score segmentations and write nothing; the arguments are those of :func:`medfewshot.workflow.evaluate`."""
    settings, known = settings or EvaluateSettings(), known_names(predictions, reference)
    names, asked = known.labels, named_labels(settings.labels, known.labels)
    pairs, unmatched = match_cases(predictions, reference)
    itself = (f"{predictions}: is scored against itself",) if predictions.resolve() == reference.resolve() else ()
    evaluation = evaluate_pairs(
        pairs, labels=asked or (names if known.complete else None) or None, names=known.predictions,
        reference_names=known.references, ignore=known.ignore if settings.ignore is None else settings.ignore,
        scans=known.scans, tolerance_mm=settings.tolerance_mm, expected=asked,
        warnings=(
            *itself, *_unfinished(predictions), *known.doubts({case for case, _, _ in pairs}), *known.warnings,
            *unmatched,
        ),
        progress=(progress or Progress()).at("scoring"), workers=workers,
    )  # fmt: skip
    return replace(evaluation, reviews=read_review_status(predictions))


def _unfinished(predictions: Path) -> tuple[str, ...]:
    """Warn if the run that made the predictions has not ended."""
    try:
        finished = read_record(predictions).get("finished")
    except InputError:  # no run, or a damaged record: known_names warns of it
        return ()
    return () if finished else (f"{predictions}: this run is not finished; evaluate it again when it has ended",)


def known_names(predictions: Path, reference: Path) -> KnownNames:
    """Read the names of the structures. A file that cannot be read gives a warning instead of names."""
    references: Mapping[int, str] = {}
    ignore, complete, warnings = None, True, []
    described = [folder for folder in (reference, reference.parent) if (folder / "dataset.json").is_file()]
    if described:
        try:
            references, ignore = read_names(described[0])
        except InputError as error:
            complete = False
            warnings.append(f"{error.problem}; structures are scored by number")
    learned: dict[int, str] = {}
    scans: dict[str, Path] = {}
    doubtful: dict[str, str] = {}
    if (predictions / RUN_RECORD).is_file():
        try:
            record = read_record(predictions)
            learned = learned_names(record)
            ignore = record.get("adaptation", {}).get("settings", {}).get("ignore") if ignore is None else ignore
            done = [one for one in record.get("outputs", ()) if len(one["inputs"]) == 1]
            scans = {str(one["case"]): Path(one["inputs"][0]) for one in done}
            doubtful = dict.fromkeys(learned_cases(record), LEARNED)
            doubtful |= {str(one["case"]): FAILED for one in record.get("outputs", ()) if one["status"] == "failed"}
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            warnings.append(f"{predictions / RUN_RECORD}: is damaged; its names of structures are not used")
    return KnownNames(learned, references, ignore, complete or bool(learned), tuple(warnings), scans, doubtful)


def learned_cases(record: Mapping[str, Any]) -> list[str]:
    """Return the segmented cases that the model learned from, and films if it learned from one of their frames."""
    earlier = record.get("adaptation", {}).get("earlier") or {}
    learned = {pair["image"] for pair in (*record["supports"], *earlier.get("supports", ()))}
    return [str(one["case"]) for one in record.get("outputs", ()) if learned & set(one["inputs"]) or one.get("learned")]


def learned_names(record: Mapping[str, Any]) -> dict[int, str]:
    """Label value -> name of what a run learned."""
    return {int(value): str(name) for value, name in record["plan"]["labels"].items()}
