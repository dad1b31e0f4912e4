"""Configuration of a benchmark, read from a YAML file and validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from medfewshot.episodes import FIXED_SPLITS, fixed_split
from medfewshot.errors import InputError, some
from medfewshot.learners import LEARNERS, LearnerSpec, make_learner
from medfewshot.metrics import DEFAULT_TOLERANCE_MM
from medfewshot.settings import AdaptSettings, read_yaml

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Names become folders and are matched by ``--only``."""
ALL: Final = "all"


def _number_or_all(value: Any) -> Any:
    if value != ALL and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{value} is no number of labelled scans; give 1 or more, or {ALL} for the whole pool")
    return value


Shots = Annotated[int | Literal["all"], BeforeValidator(_number_or_all)]
"""K, or ``all``: every scan of the support pool, an upper bound for what few supports can give."""
Seed = Annotated[int, Field(ge=0)]
OF_THE_CELL = {"seed", "device", "labels", "modality"}
"""Settings of an adaptation that a file cannot give to a learner: they follow from the cell and from where it runs."""
T = TypeVar("T", bound=BaseModel)


class Entry(BaseModel):
    """A part of a benchmark file; settings that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_names(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``entries`` if their names differ."""
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the name {twice[0]} comes twice; give each entry its own")
    return entries


def check_numbers(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``values`` if there is at least one and none is repeated."""
    if not values or len(set(values)) < len(values):
        raise ValueError("give at least one, and each once")
    return values


class Blobs(Entry):
    """A synthetic dataset, written into the run directory (see ``medfewshot.synthetic.write_blob_dataset``)."""

    cases: int = Field(8, ge=2)
    labels: int = Field(2, ge=1)
    shape: tuple[int, int, int] = (24, 20, 16)
    seed: int = Field(0, ge=0)


class DatasetEntry(Entry):
    """A dataset, or a part of its labels under another name."""

    name: Name
    folder: Name | None = None
    """Its folder below the data root; null: the same as ``name``."""
    labels: tuple[int, ...] | dict[int, str] | None = None
    """Label values to learn and score, the others being background; null: all."""
    modality: Literal["CT", "MR"] | None = None
    pool: tuple[int, int] | None = None
    """First index and end of the support pool, cases by file name; null: the fixed split of its name or folder."""
    queries: tuple[int, int] | None = None
    blobs: Blobs | None = None
    distances: bool = True
    """Whether its spacing is known: without it, no table shows distances or surface Dice."""

    @property
    def source(self) -> str:
        """Folder of the data set below the data directory."""
        return self.folder or self.name

    @property
    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        """Indices of (support pool, query set)."""
        if self.pool is not None and self.queries is not None:
            return range(*self.pool), range(*self.queries)
        return fixed_split(self.name if self.name in FIXED_SPLITS else self.source)

    @model_validator(mode="after")
    def _check(self) -> DatasetEntry:
        values = list(self.labels or ())
        if self.labels is not None and (not values or min(values) < 1 or len(set(values)) < len(values)):
            raise ValueError("labels: name each value once, from 1 up (0 is background)")
        if (self.pool is None) != (self.queries is None):
            raise ValueError("give both pool and queries, or neither")
        pool, queries = self.split
        if not pool or not queries or min(pool[0], queries[0]) < 0:
            raise ValueError("pool and queries are [first, end): neither may be empty")
        if set(pool) & set(queries):
            raise ValueError("pool and queries overlap: a subject may be on one side only")
        return self


class LearnerEntry(Entry):
    """A learner with its settings, under the name that the tables give it.

    In a file the settings follow the name: ``{name: a, learner: finetune, steps: 100}``. They are those of
    :class:`~medfewshot.settings.AdaptSettings`, without what a cell decides itself; here the default is no time budget
    and no weights.
    """

    name: Name
    settings: AdaptSettings
    datasets: tuple[Name, ...] | None = None
    """Datasets it runs on; null: all."""
    shots: tuple[Shots, ...] | None = None
    """Values of K it runs with; null: every one of the file."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "settings" in content:
            return content
        own = {key: value for key, value in content.items() if key in cls.model_fields}
        given = {key: value for key, value in content.items() if key not in own}
        if "learner" not in given:
            raise ValueError("learner: is missing; name the algorithm")
        decided = sorted(OF_THE_CELL & given.keys())
        if decided:
            raise ValueError(f"{decided[0]}: is decided by the cell; remove it")
        settings = AdaptSettings(**given)
        unset = {"budget_seconds", "weights"} - settings.model_fields_set
        return {**own, "settings": settings.replace(**dict.fromkeys(unset))}

    @model_serializer(mode="plain")
    def _flat(self) -> dict[str, Any]:
        """Write the settings beside the name, as in a file."""
        settings = self.settings.model_dump(mode="json", exclude=OF_THE_CELL)
        return {"name": self.name, **settings, "datasets": self.datasets, "shots": self.shots}


class BenchmarkConfig(Entry):
    """The file itself. Cells run seed by seed: the first seed on everything, then the next."""

    protocol: Literal["volume"] = "volume"
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    learners: tuple[LearnerEntry, ...] = Field(min_length=1)
    shots: tuple[Shots, ...] = (1, 5)
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Support draws; the seed is also the learner's."""
    queries: int | None = Field(None, ge=1)
    """At most this many of each query set, the first ones; null: all."""
    tolerance_mm: float = Field(DEFAULT_TOLERANCE_MM, ge=0)
    """Of the surface Dice."""
    data: str | None = None
    """Folder of the datasets; null: MEDFEWSHOT_DATA."""
    pictures: bool = False
    """Also paint every query, about a second each; the page then shows best, median and worst cases."""

    _unique_names = field_validator("datasets", "learners")(check_names)
    _unique_numbers = field_validator("shots", "seeds")(check_numbers)

    @model_validator(mode="after")
    def _check(self) -> BenchmarkConfig:
        known = {entry.name for entry in self.datasets}
        for learner in self.learners:
            unknown = sorted(set(learner.datasets or ()) - known)
            if unknown:
                raise ValueError(f"learner {learner.name}: dataset {unknown[0]} is not among {some(sorted(known))}")
        made: dict[str, Blobs | None] = {}
        for dataset in self.datasets:
            if made.setdefault(dataset.source, dataset.blobs) != dataset.blobs:
                raise ValueError(f"dataset {dataset.name}: another one in {dataset.source} is made otherwise")
            if max((k for k in self.shots if k != ALL), default=1) > len(dataset.split[0]):
                raise ValueError(f"dataset {dataset.name}: its pool of {len(dataset.split[0])} is less than K")
        return self


def load_benchmark(path: Path, *, learners: Mapping[str, LearnerSpec] = LEARNERS) -> BenchmarkConfig:
    """Read and check a benchmark file.

    Args:
        path: YAML file.
        learners: Learners that the file may name.

    Raises:
        InputError: The file cannot be read or has a wrong setting; names the file and the setting.
    """
    config = validate(BenchmarkConfig, read_yaml(path), path)
    check_learners(config.learners, learners, path)
    return config


def validate(kind: type[T], content: Mapping[str, Any], path: Path) -> T:
    """Validate ``content`` of the file ``path`` as a ``kind``.

    Raises:
        InputError: A setting is wrong; names the file and the setting.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_first_problem(error, content)}") from None


def check_learners(entries: Iterable[LearnerEntry], learners: Mapping[str, LearnerSpec], path: Path) -> None:
    """Check that every learner exists and accepts its settings."""
    for entry in entries:
        try:
            make_learner(entry.settings.replace(device="cpu"), learners=learners)
        except InputError as error:
            where = f"{path}: learners: {entry.name}"
            raise InputError(f"{where}: {error.problem}", error.remedy, setting=error.settings) from None


def _first_problem(error: ValidationError, content: Any) -> str:
    """Format the first problem as ``learners: a: steps -1: ...``, with names of entries instead of numbers."""
    first = error.errors()[0]
    where = []
    for part in first["loc"]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):  # a setting that is missing, or the name of a type
            content = None
        name = content.get("name", part) if isinstance(content, dict) else part
        where.append(str(name))
    cause = first.get("ctx", {}).get("error")
    said = str(cause) if cause is not None else first["msg"].removeprefix("Input ")
    if isinstance(cause, InputError):  # "where" has the name of the setting
        said = "; ".join(part for part in (cause.problem, cause.remedy) if part)
    if first["type"] == "extra_forbidden":
        said = "is no setting here; remove it"
    return f"{': '.join(where)}: {said}" if where else said
