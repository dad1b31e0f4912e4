"""Pack the planned volumes of real base tasks into one file, so that another machine needs no raw data.

Images are stored in 256 steps (0.01 to 0.02 standard deviations, less than the noise of any scan), labels as uint8.
Label values that are neither base nor validation labels become background, so a pack never reveals where a novel
structure is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medfewshot.datasets import Dataset, read_dataset
from medfewshot.episodes import FIXED_SPLITS, Example, LabelledTask, fixed_split
from medfewshot.errors import InputError
from medfewshot.io import in_frame_of, read_image, read_label
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors
from medfewshot.planning import labels_to_plan, make_plan, to_plan
from medfewshot.settings import PlanSettings
from medfewshot.training.settings import BaseDataset
from medfewshot.types import Case, Progress

FORMAT_VERSION = 2
CODES = 255


def encode_volume(subject: str, image: Tensor, label: Tensor, spacing_mm: tuple[float, ...]) -> Example:
    """Store ``image (C, *S)`` as uint8, in :data:`CODES` even steps from its lowest to its highest value."""
    low, high = float(image.min()), float(image.max())
    step = max((high - low) / CODES, 1e-8)
    return Example(subject, ((image.float() - low) / step).round_().to(torch.uint8), label, spacing_mm, low, step)


def pack_datasets(
    datasets: Mapping[str, BaseDataset], root: Path | None, *, progress: Progress | None = None
) -> tuple[LabelledTask, ...]:
    """Read and plan the data sets.

    Args:
        datasets: Name -> which labels and subjects.
        root: Folder of the data sets; None takes their own ``folder``.
        progress: Receives the number of data sets that are packed.

    Raises:
        InputError: A data set is missing or cannot be used.
    """
    progress = progress or Progress()
    packed: list[LabelledTask] = []
    for name, wanted in datasets.items():
        dataset = read_dataset((root or Path()) / (wanted.folder or name)).complete()  # an absolute folder stays
        cases = _pool(name, wanted, dataset)
        progress.update(len(packed), len(datasets), f"packing {name}")
        packed.append(_pack(name, wanted, dataset, cases))
    return tuple(packed)


def _pool(name: str, wanted: BaseDataset, dataset: Dataset) -> list[Case]:
    """List the cases that training may use: never one of the query set of a data set with a fixed split."""
    cases = sorted(dataset.labelled, key=lambda case: (case.image_path.name, str(case.image_path)))
    known = next((n for n in (name, dataset.name, Path(wanted.folder or "").name) if n in FIXED_SPLITS), None)
    if known is not None:
        pool, _ = fixed_split(known)
        cases = [cases[i] for i in pool if i < len(cases)]
    cases = cases[: wanted.subjects]
    if len({case.subject_id for case in cases}) < 2:
        raise InputError(f"{name}: has fewer than two labelled subjects", "add scans: an episode needs two subjects")
    return cases


def _pack(name: str, wanted: BaseDataset, dataset: Dataset, cases: list[Case]) -> LabelledTask:
    images, labels = [], []
    for case in cases:
        assert case.label_path is not None
        images.append(read_image(case.image_paths))
        labels.append(in_frame_of(images[-1], read_label(case.label_path, image=images[-1])))
    values = tuple(dict.fromkeys((*wanted.labels, *wanted.validation_labels))) or None
    settings = PlanSettings(modality=dataset.modality, spacing_mm=wanted.spacing_mm, labels=values)
    plan = make_plan(images, labels, names=dataset.labels, settings=settings)
    table = torch.tensor([0, *plan.label_values], dtype=torch.uint8)
    examples = tuple(
        encode_volume(case.subject_id, to_plan(image, plan).image, table[labels_to_plan(label, plan)], plan.spacing_mm)
        for case, image, label in zip(cases, images, labels, strict=True)
    )
    return LabelledTask(
        name, examples, wanted.labels, wanted.validation_labels, dict(plan.labels), wanted.patches, wanted.weight
    )


def write_pack(tasks: tuple[LabelledTask, ...], path: Path) -> None:
    """Write one safetensors file; the header contains what is no tensor, as JSON."""
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        for index, example in enumerate(task.examples):
            tensors[f"{number}.{index}.codes"] = example.image
            tensors[f"{number}.{index}.label"] = example.label
        facts.append(
            {
                "name": task.name,
                "spacing_mm": list(task.examples[0].spacing_mm or ()),
                "labels": list(task.labels or ()),
                "validation_labels": list(task.validation_labels),
                "names": {str(value): name for value, name in task.names.items()},
                "subjects": [example.subject_id for example in task.examples],
                "scales": [[example.low, example.step] for example in task.examples],
            }
        )
    write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "datasets": facts})


def read_pack(path: Path, wanted: Mapping[str, BaseDataset]) -> tuple[LabelledTask, ...]:
    """Read the tasks of a pack.

    Args:
        path: A file that :func:`write_pack` wrote.
        wanted: The data sets of the settings.

    Raises:
        InputError: The file is damaged, or made for other data sets or labels than ``wanted``.
    """
    with refuse_damage(f"{path}: is no pack of volumes", "delete it and pack again"):
        tensors, facts = read_tensors(path)
        if facts["format_version"] != FORMAT_VERSION:
            raise InputError(f"{path}: is a pack of another version", "delete it and pack again")
        found = tuple(_unpack(tensors, number, task) for number, task in enumerate(facts["datasets"]))
    asked = {name: (tuple(d.labels), tuple(d.validation_labels)) for name, d in wanted.items()}
    if asked != {task.name: (task.labels, task.validation_labels) for task in found}:
        raise InputError(
            f"{path}: was packed for other data sets or labels than the settings name", "delete it and pack again"
        )
    settings = [wanted[task.name] for task in found]
    return tuple(replace(t, patches=s.patches, weight=s.weight) for t, s in zip(found, settings, strict=True))


def _unpack(tensors: Mapping[str, Tensor], number: int, facts: Mapping[str, Any]) -> LabelledTask:
    spacing_mm = tuple(facts["spacing_mm"])

    def example(index: int, subject: str) -> Example:
        codes, label = (tensors[f"{number}.{index}.{what}"] for what in ("codes", "label"))
        low, step = facts["scales"][index]
        return Example(subject, codes, label, spacing_mm, low, step)

    return LabelledTask(
        name=facts["name"],
        examples=tuple(example(index, subject) for index, subject in enumerate(facts["subjects"])),
        labels=tuple(facts["labels"]),
        validation_labels=tuple(facts["validation_labels"]),
        names={int(value): name for value, name in facts["names"].items()},
    )
