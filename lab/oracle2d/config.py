"""The ``oracle-2d`` benchmark file and its cells: one (dataset, learner, fold, seed)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lab.oracle2d.protocol import FOLDS
from lab.peers import SCAN_PEERS
from medfewshot.benchmark.cells import fingerprint_of
from medfewshot.benchmark.config import Blobs, Entry, LearnerEntry, Name, Seed, check_names, check_numbers
from medfewshot.learners import read_seen


class OracleDataset(Entry):
    """A data set and its groups of test classes."""

    name: Name
    folder: Name | None = None
    modality: Literal["CT", "MR"]
    """CT is normalised by its training scans, MR scan by scan."""
    groups: tuple[tuple[int, ...], ...] = Field(min_length=1)
    """Test classes; those of one group are unseen together in setting 2 (upper and lower abdomen)."""
    blobs: Blobs | None = None

    @property
    def source(self) -> str:
        """Folder of the data set below the data directory."""
        return self.folder or self.name

    @property
    def test_labels(self) -> tuple[int, ...]:
        """Label values of all test classes."""
        return tuple(value for group in self.groups for value in group)

    @model_validator(mode="after")
    def _check(self) -> OracleDataset:
        values = self.test_labels
        if not values or min(values) < 1 or len(set(values)) < len(values):
            raise ValueError("groups: name each class once, from 1 up (0 is background)")
        return self


class OracleConfig(Entry):
    """Cells run fold by fold: the first fold on everything, then the next."""

    protocol: Literal["oracle-2d"]
    datasets: tuple[OracleDataset, ...] = Field(min_length=1)
    learners: tuple[LearnerEntry, ...] = Field(min_length=1)
    folds: tuple[int, ...] = tuple(range(FOLDS))
    seeds: tuple[Seed, ...] = (0,)
    """Of the learner: the protocol leaves no choice of supports."""
    data: str | None = None

    _unique_names = field_validator("datasets", "learners")(check_names)
    _unique_numbers = field_validator("folds", "seeds")(check_numbers)

    @model_validator(mode="after")
    def _check(self) -> OracleConfig:
        if not set(self.folds) <= set(range(FOLDS)):
            raise ValueError(f"folds: there are {FOLDS}, counted from 0")
        for learner in self.learners:
            if learner.settings.learner in SCAN_PEERS:
                raise ValueError(f"learner {learner.name}: takes whole scans; leave it out of this protocol")
            if learner.shots is not None:
                raise ValueError(f"learner {learner.name}: this protocol is 1-shot; leave out shots")
            mine = [entry for entry in self.datasets if entry.name in (learner.datasets or (entry.name,))]
            seen = read_seen(learner.settings.weights) if learner.settings.weights is not None else {}
            met = [entry.name for entry in mine if entry.source in seen]
            if met:  # nothing says which folds they were trained on, and which setting they kept
                raise ValueError(f"learner {learner.name}: its weights have seen {met[0]}; leave it out")
            unknown = sorted(set(learner.datasets or ()) - {entry.name for entry in self.datasets})
            if unknown:
                raise ValueError(f"learner {learner.name}: dataset {unknown[0]} is not among the datasets")
        return self


class OracleCell(BaseModel):
    """All that decides the result, except the machine."""

    model_config = ConfigDict(frozen=True)
    protocol: ClassVar[str] = "oracle-2d"

    dataset: OracleDataset
    learner: LearnerEntry
    fold: int
    seed: int

    @property
    def id(self) -> str:
        """Name of the cell, e.g. ``abd-mr-chaos/prototype/f0/s0``."""
        return f"{self.dataset.name}/{self.learner.name}/f{self.fold}/s{self.seed}"

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the scores depend on."""
        return fingerprint_of(self, {"learner": ("datasets", "shots")})

    def folder(self, run: Path) -> Path:
        """Folder of the cell in the run directory ``run``."""
        return run / "oracle-2d" / self.id


def plan_oracle_cells(config: OracleConfig) -> list[OracleCell]:
    """Return all cells, in the order in which they run: seed, then fold, then dataset, then learner."""
    return [
        OracleCell(dataset=dataset, learner=learner, fold=fold, seed=seed)
        for seed in config.seeds
        for fold in config.folds
        for dataset in config.datasets
        for learner in config.learners
        if learner.datasets is None or dataset.name in learner.datasets
    ]
