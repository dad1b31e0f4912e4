"""Names of structures that a run's record and the ``dataset.json`` of the references state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medfewshot.datasets import read_names
from medfewshot.errors import InputError, some
from medfewshot.workflow.record import RUN_RECORD, read_record

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
    return [str(one["case"]) for one in record.get("outputs", ()) if learned & set(one["inputs"])]


def learned_names(record: Mapping[str, Any]) -> dict[int, str]:
    """Label value -> name of what a run learned."""
    return {int(value): str(name) for value, name in record["plan"]["labels"].items()}
