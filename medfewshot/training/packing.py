"""One file with the planned volumes of a training run, so that another machine needs no raw data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from medfewshot.episodes import Example, LabelledTask
from medfewshot.errors import InputError
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors
from medfewshot.training.reading import Tasks
from medfewshot.training.settings import TaskSettings

FORMAT_VERSION = 3
LATE = {"folder", "patches", "weight"}
"""Settings of a data set that a pack does not depend on."""


def write_pack(tasks: Tasks, path: Path, settings: TaskSettings) -> None:
    """Write one safetensors file; the header contains what is no tensor, as JSON.

    Args:
        tasks: What :func:`medfewshot.training.reading.read_tasks` made of ``settings``.
        path: The file.
        settings: Kept, so that other settings do not take the pack.
    """
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, Any]] = []
    for kind, one_kind in tasks.items():
        for task in one_kind:
            described = {"kind": kind, **_describe(task)}
            for index, (example, image) in enumerate(zip(task.examples, described["images"], strict=True)):
                tensors[f"{len(facts)}.{index}.label"] = example.label
                tensors[f"{len(facts)}.{image}.codes"] = example.image
            facts.append(described)
    write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "datasets": facts, "settings": _chosen(settings)})


def _describe(task: LabelledTask) -> dict[str, Any]:
    images = [id(example.image) for example in task.examples]  # regions of several scales share one scan
    return {
        "name": task.name,
        "spacing_mm": list(task.examples[0].spacing_mm or ()),
        "labels": None if task.labels is None else list(task.labels),
        "validation_labels": list(task.validation_labels),
        "names": {str(value): name for value, name in task.names.items()},
        "tissues": None if task.tissues is None else {str(value): one for value, one in task.tissues.items()},
        "subjects": [example.subject_id for example in task.examples],
        "images": [images.index(image) for image in images],
        "scales": [[example.low, example.step] for example in task.examples],
    }


def _chosen(settings: TaskSettings) -> dict[str, Any]:
    """Return what the volumes depend on: kind -> data set -> settings."""
    return {
        kind: {name: one.model_dump(mode="json", exclude=LATE) for name, one in wanted.datasets.items()}
        for kind, wanted in settings.from_data.items()
    }


def read_pack(path: Path, settings: TaskSettings) -> Tasks:
    """Read the tasks of a pack.

    Args:
        path: A file that :func:`write_pack` wrote.
        settings: What to take from it, which may be a part of it. Patches and weights are those of these settings.

    Raises:
        InputError: The file is damaged, or made for other data sets, labels, subjects or spacings than ``settings``.
    """
    with refuse_damage(f"{path}: is no pack of volumes", "delete it and pack again"):
        tensors, facts = read_tensors(path)
        if facts["format_version"] != FORMAT_VERSION:
            raise InputError(f"{path}: is a pack of another version", "delete it and pack again")
        found = [(one["kind"], _unpack(tensors, number, one)) for number, one in enumerate(facts["datasets"])]
    asked = _chosen(settings)
    for kind, wanted in asked.items():
        unfit = [name for name, choice in wanted.items() if facts["settings"].get(kind, {}).get(name) != choice]
        if unfit:
            raise InputError(
                f"{path}: was packed for other data sets or labels than the settings name, e.g. for {kind} {unfit[0]}",
                "delete it and pack again",
            )
    tasks: dict[str, tuple[LabelledTask, ...]] = dict.fromkeys(asked, ())
    for kind, task in found:
        if task.name in asked.get(kind, {}):  # a pack may contain more
            one = settings.from_data[kind].datasets[task.name]
            tasks[kind] += (replace(task, patches=one.patches, weight=one.weight),)
    return tasks


def _unpack(tensors: Mapping[str, Tensor], number: int, facts: Mapping[str, Any]) -> LabelledTask:
    spacing_mm = tuple(facts["spacing_mm"])

    def example(index: int, subject: str) -> Example:
        codes, label = tensors[f"{number}.{facts['images'][index]}.codes"], tensors[f"{number}.{index}.label"]
        low, step = facts["scales"][index]
        return Example(subject, codes, label, spacing_mm, low, step)

    return LabelledTask(
        name=facts["name"],
        examples=tuple(example(index, subject) for index, subject in enumerate(facts["subjects"])),
        labels=None if facts["labels"] is None else tuple(facts["labels"]),
        validation_labels=tuple(facts["validation_labels"]),
        names={int(value): name for value, name in facts["names"].items()},
        tissues=None if facts["tissues"] is None else {int(value): one for value, one in facts["tissues"].items()},
    )
