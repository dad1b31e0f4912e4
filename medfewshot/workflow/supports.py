"""Labelled scans: find them on disk, read them once, check them, and collect warnings for the user."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.datasets import Dataset, ignored_value, read_dataset
from medfewshot.errors import InputError, some
from medfewshot.io import (
    Example,
    ReadImage,
    VolumeLike,
    as_2d,
    as_volume,
    in_frame_of,
    in_voxels,
    match_names,
    read_examples,
    read_image,
)
from medfewshot.learners.hybrid_fusion import TRAINING_DICE
from medfewshot.planning import voxel_for_voxel
from medfewshot.structures import mark_ignored
from medfewshot.types import Case, Plan, Progress, Volume
from medfewshot.workflow.volumes import check_order

SupportSource = str | PathLike[str] | Dataset | Sequence[Case] | Sequence[tuple[VolumeLike, VolumeLike]]
"""A folder, ``dataset.json`` or CSV, what :func:`find_supports` returned, cases, or (image, label) pairs."""


@dataclass(frozen=True)
class LabelledScans:
    """Labelled scans in memory.

    Args:
        images: K images ``(C, *S)``.
        labels: Their label maps ``(1, *S)``.
        names: Label value -> name, as far as the dataset knows.
        seconds: Time that reading took.
        unused: What was found beside them and is not used, one line each.
    """

    images: Sequence[Volume]
    labels: Sequence[Volume]
    names: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    unused: tuple[str, ...] = ()

    def ignoring(self, value: int | None) -> LabelledScans:
        """Return the same where voxels with the label ``value`` count as not annotated; None changes nothing."""
        return self if value is None else replace(self, labels=[mark_ignored(label, value) for label in self.labels])

    def placed_like(self, plan: Plan, profile: Mapping[str, Any]) -> LabelledScans:
        """Return the same on the grid of earlier supports: see :func:`medfewshot.planning.voxel_for_voxel`."""
        placed = [voxel_for_voxel(image, plan, profile) for image in self.images]
        images = [replace(image, warnings=(*image.warnings, *more)) for image, more in placed]
        pairs = zip(images, self.labels, strict=True)
        labels = [replace(label, affine=image.affine, has_spacing=image.has_spacing) for image, label in pairs]
        return replace(self, images=images, labels=labels)

    def as_2d_if_planar(self) -> LabelledScans:
        """Return the same as 2D images if every scan is a 2D image or a volume of one slice."""
        images = [as_2d(image) for image in self.images]
        planar = all(image.spatial_dims == 2 for image in images)
        return replace(self, images=images, labels=[as_2d(label) for label in self.labels]) if planar else self


def find_supports(folder: Path | None = None, pairs: Sequence[tuple[Path, Path]] = ()) -> Dataset:
    """Labelled cases of a folder (or ``dataset.json``, or CSV), or of (image, label) paths. Reads no voxels.

    Raises:
        InputError: The folder contains no labelled scan.
    """
    if folder is None:
        cases = tuple(Case(image.name, image.name, None, (image,), label) for image, label in pairs)
        return Dataset("pairs", None, {}, cases)
    dataset = read_dataset(folder)
    if not dataset.labelled:
        raise InputError(f"{folder}: contains no labelled scan", f"medfewshot inspect {folder} shows what was found")
    return dataset


def read_supports(
    source: SupportSource, *, frame: int | None = None, read: ReadImage = read_image, progress: Progress | None = None
) -> LabelledScans:
    """Read labelled scans, each once, and bring each label into the frame of its image.

    Args:
        source: A folder, a dataset, cases, or (image, label) pairs.
        frame: Frame of a film that a label map of one volume belongs to, from 0. A film whose label map has frames too
            gives one example per labelled frame.
        read: Reads the image of one case from its channel files.
        progress: Receives one event per scan.

    Raises:
        InputError: A file cannot be read, or an image and its label are on different grids; names the file.
    """
    begun = time.perf_counter()
    progress = (progress or Progress()).at("reading labelled scans")
    if isinstance(source, (str, PathLike)):
        source = read_dataset(Path(source))
    names = dict(source.labels) if isinstance(source, Dataset) else {}
    ignore = source.ignore if isinstance(source, Dataset) else None
    entries: Sequence[Any] = source.labelled if isinstance(source, Dataset) else list(source)
    images, labels, blank = [], [], []
    for number, entry in enumerate(entries):
        if isinstance(source, Dataset):
            check_order(entry)
        for image, label in _examples(entry, frame=frame, ignore=ignore, read=read):
            label = mark_ignored(label, ignore if ignore is not None else ignored_value(label.names))
            if (label.data < 0).all():
                blank.append(image.name)
                continue
            images.append(image)
            labels.append(label)
        progress.update(number + 1, len(entries), image.name)
    if blank and not images:
        raise InputError(f"{some(blank)}: nothing is annotated", "draw the structures in at least one slice")
    if frame is not None and all(image.frame is None for image in images):
        raise InputError("a frame is named, but no labelled scan is a film", "name no frame", setting="frame")
    labels = match_names(labels, names)
    found = {value: name for label in labels for value, name in label.names.items()}
    if len({image.has_spacing for image in images}) > 1:
        images, labels = [in_voxels(image) for image in images], [in_voxels(label) for label in labels]
    unused = _unused(source) if isinstance(source, Dataset) else ()
    unused += (f"{some(blank)}: nothing is annotated, so not used",) if blank else ()
    return LabelledScans(images, labels, found | names, round(time.perf_counter() - begun, 3), unused)


def _unused(dataset: Dataset) -> tuple[str, ...]:
    alone = [case.case_id for case in dataset.cases if not case.label_path]
    return (*dataset.notes, *([f"{len(alone)} scan(s) have no label and are not used: {some(alone)}"] if alone else []))


def _examples(entry: Any, *, frame: int | None, ignore: int | None, read: ReadImage) -> list[Example]:
    """Read a case or an (image, label) pair; a film gives several examples."""
    if not isinstance(entry, Case) and (isinstance(entry, (str, PathLike, Mapping)) or len(entry) != 2):
        raise InputError(f"a {type(entry).__name__} is no labelled scan", "give a list of pairs: [(image, label), ...]")
    if not isinstance(entry, Case) and all(isinstance(one, (str, PathLike)) for one in entry):
        scan, labels = (Path(one) for one in entry)
        entry = Case(scan.name, scan.name, None, (scan,), labels)
    if isinstance(entry, Case):
        return read_examples(entry, frame=frame, ignore=ignore, read=read)
    image = as_volume(entry[0])
    return [(image, in_frame_of(image, as_volume(entry[1], label=True, image=image)))]


def check_marked(labels: Sequence[Volume]) -> None:
    """Check that every support contains a structure."""
    for label in labels:
        if not (label.data > 0).any():
            raise InputError(f"{label.name}: no structure is marked", "label the structure or remove this scan")


def check_background(labels: Sequence[Volume], values: Sequence[int]) -> None:
    """Check that every support contains background besides the structures with these label values."""
    for label in labels:
        known = label.data >= 0
        if np.isin(label.data, values)[known].all():
            what = "covers the whole image" if known.all() else "has no background where it is annotated"
            raise InputError(
                f"{label.name}: the label {what}" + (", so there is no background" if known.all() else ""),
                "set the background to 0 and export the labels again" if known.all() else "finish at least one slice",
            )


def ignore_warnings(scans: LabelledScans, value: int | None) -> tuple[str, ...]:
    """Say so if no support has the label value that was to be ignored."""
    if value is None or any((label.data == value).any() for label in scans.labels):
        return ()
    return (f"no support has the label {value}, which was to be ignored",)


def unnamed_warnings(scans: LabelledScans, plan: Plan) -> list[str]:
    """Name the label values to learn that have no name where others have one, or the name of another value."""
    unnamed = [value for value in plan.labels if value not in scans.names]
    known = {name.casefold(): value for value, name in scans.names.items()}
    warnings = [
        f"label value {value} is to be called {name}, the name of {known[name.casefold()]} in the labelled scans"
        for value, name in plan.labels.items()
        if known.get(name.casefold(), value) != value and scans.names.get(value, "").casefold() != name.casefold()
    ]
    if not scans.names or not unnamed:
        return warnings
    return [
        *warnings,
        f"label value {some(unnamed)} has no name in the data set; learned under the name 'label {unnamed[0]}'",
    ]


def scan_warnings(scans: LabelledScans) -> list[str]:
    """Warnings of reading, with the file's name; scans that are given twice and would count twice; unused scans."""
    warnings = [
        text if volume.name in text else f"{volume.name}: {text}"
        for volume in (*scans.images, *scans.labels)
        for text in volume.warnings
    ]
    for number, image in enumerate(scans.images):
        twin = next((one for one in scans.images[:number] if np.array_equal(one.data, image.data)), None)
        if twin is not None:
            same = "" if twin.name == image.name else f" (as {twin.name})"
            warnings.append(f"{image.name}: is given twice{same} and counts twice; remove one")
    for number, (image, label) in enumerate(pairs := list(zip(scans.images, scans.labels, strict=True))):
        of = next((one.name for one, its in pairs[:number] if its.path == label.path and one.path != image.path), "")
        if of and label.path is not None:
            warnings.append(f"{label.name}: is given as the label of {of} and of {image.name}; give each scan its own")
    return [*warnings, *scans.unused]


def learner_warnings(record: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return warnings that follow from the learner's record."""
    warnings = _unlearned(record, plan)
    if record.get("trained") is False:
        warnings = [
            "the model did not learn the structure: do not use it; check the labels of your labelled scans, or train "
            "with more steps"
        ]
    elif record.get("restarts"):
        warnings.append(
            f"training failed at first and was restarted (restarts: {record['restarts']}): look closely at the "
            "results, or add labelled scans"
        )
    if record.get("stopped_by") == "budget":
        warnings.append(
            f"the time limit ended training after {record['steps']} steps: give it more time for a better and "
            "repeatable result"
        )
    return warnings


def _unlearned(record: Mapping[str, Any], plan: Plan) -> list[str]:
    """Structures that training did not find even in the scans that it learned from."""
    dice = record.get("training_dice", ())
    if not record.get("steps") or len(dice) != len(plan.labels):
        return []
    missed = [name for name, value in zip(plan.labels.values(), dice, strict=True) if value < TRAINING_DICE[0]]
    registered = " (until then, registration alone finds them)" if "network_trust" in record else ""
    reason = f"hardly learned (Dice below {TRAINING_DICE[0]} on your labelled scans); train with more steps{registered}"
    return [f"{some(missed)}: {reason}"] if missed else []


def scan_path(volume: Volume) -> str:
    """Return the absolute path of a scan as the record has it; the name of an array."""
    return str(volume.path.resolve()) if volume.path is not None else volume.name
