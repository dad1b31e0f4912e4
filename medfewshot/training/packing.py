"""Planned volumes of the base tasks, packed once into one file: another machine needs no raw data.

Images lie on each data set's plan in 256 steps (a hundredth of a standard deviation or two: less than the noise of
any scan), labels as uint8; label values that are neither base nor validation labels
are background, so that a pack holds nothing of a novel class but its image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medfewshot.datasets import Dataset, read_dataset
from medfewshot.episodes import FIXED_SPLITS, fixed_split
from medfewshot.errors import InputError
from medfewshot.io import atomic_path, in_frame_of, read_image, read_label
from medfewshot.planning import make_plan, native_labels_to_plan, to_plan
from medfewshot.settings import PlanSettings
from medfewshot.types import Case, Progress

FORMAT_VERSION = 2
CODES = 255
_FACTS = "facts"


@dataclass(frozen=True)
class BaseDataset:
    """A data set whose classes are declared as base."""

    labels: tuple[int, ...]
    """Label values that may become classes in training."""
    validation_labels: tuple[int, ...] = ()
    """Label values that become classes in validation only."""
    folder: str | None = None
    """Where it lies, absolute or under the data root; None: a folder of its own name."""
    subjects: int | None = None
    """How many, first in file-name order; None: all of them, or the support pool of a data set with a fixed split."""
    spacing_mm: float | None = None
    """In-plane resolution; None derives it as for any support."""
    patches: tuple[tuple[int, ...], ...] | None = None
    """Patch sizes (voxels) of its episodes; None takes those of all real tasks."""
    weight: float = 1.0
    """How often it is drawn, relative to the other data sets."""

    def __post_init__(self) -> None:
        if not self.labels or min((*self.labels, *self.validation_labels)) < 1:
            raise InputError("labels: name at least one base label, all of them from 1 up (0 is background)")
        both = sorted(set(self.labels) & set(self.validation_labels))
        if both:
            raise InputError(f"labels {both} are both base and validation labels; put each on one side")


@dataclass(frozen=True, eq=False)
class PackedVolume:
    """``codes (C, *S)`` uint8: an image of ``low + step * codes``. ``label (*S)`` uint8 with the file's values."""

    subject: str
    codes: Tensor
    label: Tensor
    low: float
    step: float

    def read(self, box: tuple[slice, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Image ``(C, *box)`` and label ``(1, *box)`` of a part, float32, on ``device``."""
        image = self.codes[(slice(None), *box)].to(device).float().mul_(self.step).add_(self.low)
        return image, self.label[box].to(device).float()[None]


def encode_volume(subject: str, image: Tensor, label: Tensor) -> PackedVolume:
    """``image (C, *S)`` in :data:`CODES` even steps from its lowest to its highest value; ``label (*S)`` uint8."""
    low, high = float(image.min()), float(image.max())
    step = max((high - low) / CODES, 1e-8)
    return PackedVolume(subject, ((image.float() - low) / step).round_().to(torch.uint8), label, low, step)


@dataclass(frozen=True, eq=False)
class PackedDataset:
    name: str
    spacing_mm: tuple[float, ...]
    labels: tuple[int, ...]
    validation_labels: tuple[int, ...]
    names: Mapping[int, str]
    volumes: tuple[PackedVolume, ...] = field(repr=False)


def pack_datasets(
    datasets: Mapping[str, BaseDataset], root: Path | None, progress: Progress | None = None
) -> tuple[PackedDataset, ...]:
    """Read and plan all that ``datasets`` names. Raises InputError for what is missing or cannot be used."""
    progress = progress or Progress()
    packed: list[PackedDataset] = []
    for name, wanted in datasets.items():
        dataset = read_dataset(_folder(name, wanted, root))
        cases = _pool(name, wanted, dataset)
        progress.update(len(packed), len(datasets), f"packing {name}")
        packed.append(_pack(name, wanted, dataset, cases))
    return tuple(packed)


def _folder(name: str, wanted: BaseDataset, root: Path | None) -> Path:
    folder = Path(wanted.folder or name)
    return folder if folder.is_absolute() or root is None else root / folder


def _pool(name: str, wanted: BaseDataset, dataset: Dataset) -> list[Case]:
    """Subjects that may be trained on: never one of a known data set's query set."""
    cases = sorted(dataset.labelled, key=lambda case: (case.image_path.name, str(case.image_path)))
    known = next((n for n in (name, dataset.name, Path(wanted.folder or "").name) if n in FIXED_SPLITS), None)
    if known is not None:
        pool, _ = fixed_split(known)
        cases = [cases[i] for i in pool if i < len(cases)]
    cases = cases[: wanted.subjects]
    if len({case.subject_id for case in cases}) < 2:
        raise InputError(f"{name}: has fewer than two labelled subjects; an episode needs a support and a query")
    return cases


def _pack(name: str, wanted: BaseDataset, dataset: Dataset, cases: list[Case]) -> PackedDataset:
    pairs = []
    for case in cases:
        assert case.label_path is not None
        image, label = read_image(case.image_paths), read_label(case.label_path)
        pairs.append((image, in_frame_of(image, label)))
    images, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    values = tuple(dict.fromkeys((*wanted.labels, *wanted.validation_labels))) or None
    settings = PlanSettings(modality=dataset.modality, spacing_mm=wanted.spacing_mm, labels=values)
    plan = make_plan(images, labels, names=dataset.labels, settings=settings)
    table = torch.tensor([0, *plan.label_values], dtype=torch.uint8)
    volumes = tuple(
        encode_volume(case.subject_id, to_plan(image, plan).image, table[native_labels_to_plan(label, plan)])
        for case, image, label in zip(cases, images, labels, strict=True)
    )
    return PackedDataset(name, plan.spacing_mm, wanted.labels, wanted.validation_labels, dict(plan.labels), volumes)


def write_pack(datasets: tuple[PackedDataset, ...], path: Path) -> None:
    """One safetensors file; what is no tensor is JSON in its header."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, Any]] = []
    for number, dataset in enumerate(datasets):
        for index, volume in enumerate(dataset.volumes):
            tensors[f"{number}.{index}.codes"] = volume.codes.contiguous()
            tensors[f"{number}.{index}.label"] = volume.label.contiguous()
        facts.append(
            {
                "name": dataset.name,
                "spacing_mm": list(dataset.spacing_mm),
                "labels": list(dataset.labels),
                "validation_labels": list(dataset.validation_labels),
                "names": {str(value): name for value, name in dataset.names.items()},
                "subjects": [volume.subject for volume in dataset.volumes],
                "scales": [[volume.low, volume.step] for volume in dataset.volumes],
            }
        )
    header = json.dumps({"format_version": FORMAT_VERSION, "datasets": facts})
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_FACTS: header})


def read_pack(path: Path, wanted: Mapping[str, BaseDataset]) -> tuple[PackedDataset, ...]:
    """The packed data sets. Raises InputError where the file is damaged or made for other data sets or labels."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            if facts["format_version"] != FORMAT_VERSION:
                raise InputError(f"{path}: is a pack of another version; delete it and pack anew")
            found = tuple(_unpack(file, number, f) for number, f in enumerate(facts["datasets"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        raise InputError(f"{path}: is no pack of volumes ({reason}); delete it and pack anew") from None
    asked = {n: (tuple(d.labels), tuple(d.validation_labels)) for n, d in wanted.items()}
    if asked != {d.name: (d.labels, d.validation_labels) for d in found}:
        raise InputError(f"{path}: was packed for other data sets or labels than the settings name; pack anew")
    return found


def _unpack(file: Any, number: int, facts: Mapping[str, Any]) -> PackedDataset:
    def volume(index: int, subject: str) -> PackedVolume:
        codes, label = (file.get_tensor(f"{number}.{index}.{what}") for what in ("codes", "label"))
        return PackedVolume(subject, codes, label, *facts["scales"][index])

    return PackedDataset(
        name=facts["name"],
        spacing_mm=tuple(facts["spacing_mm"]),
        labels=tuple(facts["labels"]),
        validation_labels=tuple(facts["validation_labels"]),
        names={int(value): name for value, name in facts["names"].items()},
        volumes=tuple(volume(index, subject) for index, subject in enumerate(facts["subjects"])),
    )
