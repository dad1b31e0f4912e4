"""Read the data sets of a training run and bring them to their plan's grid.

Images are stored in 256 steps (0.01 to 0.02 standard deviations, less than the noise of any scan), labels as uint8, or
as int32 if one is above 255. Label values that are neither base nor validation labels become background, so a task
never reveals where a novel structure is. Of scans that are used without labels, no label file is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medfewshot.datasets import LAYOUTS, Dataset, read_dataset
from medfewshot.episodes import FIXED_SPLITS, Example, LabelledTask, find_regions, fixed_split
from medfewshot.errors import InputError
from medfewshot.intensities import robust_window
from medfewshot.io import case_id, find_images, format_of, match_names, read_complete_examples, read_image, read_label
from medfewshot.planning import labels_to_plan, make_plan, to_plan
from medfewshot.settings import PlanSettings
from medfewshot.synthetic import recombine_maps
from medfewshot.training.carrying import carry_regions
from medfewshot.training.settings import BaseDataset, ChosenDataset, LabelMapDataset, RegionDataset, TaskSettings
from medfewshot.types import Case, Plan, Progress, Volume

CODES = 255

Tasks = Mapping[str, tuple[LabelledTask, ...]]
"""Kind of tasks -> one task per data set."""


def read_tasks(settings: TaskSettings, data: Path | None, *, progress: Progress | None = None) -> Tasks:
    """Read and plan every data set of the settings.

    Args:
        settings: Which data sets, for which kind of tasks.
        data: Folder of the data sets of kinds without a ``root``; None takes their own ``folder``.
        progress: Receives the number of data sets that are done.

    Raises:
        InputError: A data set is missing or cannot be used.
    """
    progress = progress or Progress()
    total, done = sum(len(kind.datasets) for kind in settings.from_data.values()), 0
    tasks: dict[str, tuple[LabelledTask, ...]] = {}
    for kind, wanted in settings.from_data.items():
        root = Path(wanted.root) if wanted.root else data or Path()
        read: list[LabelledTask] = []
        for name, one in wanted.datasets.items():
            progress.update(done, total, f"packing {name}")
            read.append(_read(name, one, root / (one.folder or name)))  # an absolute folder stays
            done += 1
        tasks[kind] = tuple(read)
    return tasks


def _read(name: str, wanted: ChosenDataset, folder: Path) -> LabelledTask:
    if isinstance(wanted, BaseDataset):
        task = _read_base(name, wanted, folder)
    elif isinstance(wanted, RegionDataset):
        task = _read_regions(name, wanted, folder)
    else:
        assert isinstance(wanted, LabelMapDataset)
        task = _read_label_maps(name, wanted, folder)
    return replace(task, patches=wanted.patches, weight=wanted.weight)


def encode_volume(subject: str, image: Tensor, label: Tensor, spacing_mm: tuple[float, ...]) -> Example:
    """Store ``image (C, *S)`` as uint8, in :data:`CODES` even steps from its lowest to its highest value."""
    low, high = float(image.min()), float(image.max())
    step = max((high - low) / CODES, 1e-8)
    return Example(subject, ((image.float() - low) / step).round_().to(torch.uint8), label, spacing_mm, low, step)


def _read_base(name: str, wanted: BaseDataset, folder: Path) -> LabelledTask:
    dataset = read_dataset(folder)
    cases = _pool(name, wanted, dataset, dataset.labelled)
    if len({case.subject_id for case in cases}) < 2:
        raise InputError(f"{name}: has fewer than two labelled subjects", "add scans: an episode needs two subjects")
    ignore = dataset.ignore
    read = [(case.subject_id, *one) for case in cases for one in read_complete_examples(case, ignore=ignore)]
    images, labels = [image for _, image, _ in read], match_names([label for _, _, label in read], dataset.labels)
    values = tuple(dict.fromkeys((*wanted.labels, *wanted.validation_labels))) or None
    plan = _plan(images, labels, dataset, wanted, labels_used=values)
    table = torch.tensor([0, *plan.label_values], dtype=torch.uint8 if max(plan.labels) <= CODES else torch.int32)
    examples = tuple(
        encode_volume(subject, to_plan(image, plan).image, table[labels_to_plan(label, plan)], plan.spacing_mm)
        for (subject, image, _), label in zip(read, labels, strict=True)
    )
    return LabelledTask(name, examples, wanted.labels, wanted.validation_labels, dict(plan.labels))


def _read_regions(name: str, wanted: RegionDataset, folder: Path) -> LabelledTask:
    dataset = read_dataset(folder, layouts=(*LAYOUTS, _read_scans))
    cases = _pool(name, wanted, dataset, dataset.cases)
    images = [read_image(case.image_paths) for case in cases]
    plan = _plan(images, [_bright(image) for image in images], dataset, wanted)
    planned = [to_plan(image, plan).image for image in images]
    maps = [find_regions(image, plan.spacing_mm, wanted.volumes_ml) for image in planned]
    carried = carry_regions(maps, planned, plan.spacing_mm, wanted.neighbours)
    coded = [
        encode_volume(case.subject_id, image, found[0], plan.spacing_mm)
        for case, image, found in zip(cases, planned, maps, strict=True)
    ]
    examples = []
    for scan, found, others in zip(coded, maps, carried, strict=True):
        for scale, regions in enumerate(found):
            examples.append(replace(scan, label=regions))
            examples += [replace(coded[other], label=there[scale]) for other, there in others.items()]
    return LabelledTask(name, tuple(examples))


def _read_scans(folder: Path) -> Dataset | None:
    """Return a folder of scans without labels as a data set."""
    if not folder.is_dir():
        return None
    cases = tuple(Case(case_id(path), case_id(path), None, (path,)) for path in find_images(folder))
    return Dataset(folder.resolve().name, None, {}, cases)


def _read_label_maps(name: str, wanted: LabelMapDataset, folder: Path) -> LabelledTask:
    files = sorted(path for path in folder.glob("*") if format_of(path) is not None)
    paths = [files[i] for i in _allowed(len(files), (name, *folder.resolve().parts), wanted)]
    if len(paths) < 2:
        raise InputError(f"{folder}: has fewer than two label maps", "add maps: an episode needs two subjects")
    labels = match_names([read_label(path) for path in paths])
    values = sorted({int(value) for label in labels for value in np.unique(label.data)} - {0})
    unknown = sorted({*wanted.never, *(v for group in wanted.same_brightness for v in group)} - set(values))
    if unknown:
        raise InputError(f"{name}: no map has the label {unknown[0]}", "remove it from never or same_brightness")
    if len(values) > CODES:
        raise InputError(f"{name}: has {len(values)} labels", f"merge some: at most {CODES} can be used")
    images = [replace(label, data=label.data.astype(np.float32)) for label in labels]
    plan = _plan(images, labels, None, wanted, labels_used=tuple(values))
    if plan.spatial_dims != 3:
        raise InputError(f"{folder}: contains 2D label maps", "give 3D maps: 2D images are not generated from maps")
    maps = [labels_to_plan(label, plan).to(torch.uint8) for label in labels]
    mixed = recombine_maps(maps, wanted.recombined)
    number = {value: index for index, value in enumerate(plan.label_values, start=1)}
    like = {value: group[0] for group in wanted.same_brightness for value in group}
    coded = [*zip(map(case_id, paths), maps, strict=True), *((f"mixed {i + 1}", one) for i, one in enumerate(mixed))]
    return LabelledTask(
        name,
        tuple(Example(subject, one[None].clone(), one, plan.spacing_mm) for subject, one in coded),
        labels=tuple(index for value, index in number.items() if value not in wanted.never),
        names={index: f"label {value}" for value, index in number.items()},
        tissues={index: number[like.get(value, value)] for value, index in number.items()},
    )


def _pool(name: str, wanted: ChosenDataset, dataset: Dataset, cases: Sequence[Case]) -> list[Case]:
    """List the cases that training may use, in file-name order."""
    cases = sorted(cases, key=lambda case: (case.image_path.name, str(case.image_path)))
    return [cases[i] for i in _allowed(len(cases), (name, dataset.name, Path(wanted.folder or "").name), wanted)]


def _allowed(count: int, names: Sequence[str], wanted: ChosenDataset) -> list[int]:
    """List the files that training may use: of a data set with a fixed split, those of its support pool alone."""
    known = next((name for name in names if name in FIXED_SPLITS), None)
    pool = range(count) if known is None else fixed_split(known)[0]
    return [i for i in pool if i < count][: wanted.subjects]


def _plan(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    dataset: Dataset | None,
    wanted: ChosenDataset,
    *,
    labels_used: tuple[int, ...] | None = None,
) -> Plan:
    modality = None if dataset is None else dataset.modality
    if modality is not None and modality.upper() != "CT":
        modality = "MR"  # the data set may name a sequence; everything but CT is treated as MR
    settings = PlanSettings(modality=modality, spacing_mm=wanted.spacing_mm, labels=labels_used)
    return make_plan(images, labels, names=None if dataset is None else dataset.labels, settings=settings)


def _bright(image: Volume) -> Volume:
    """Return what stands in for labels when scans without labels are planned: the half of the window that is bright."""
    low, high = robust_window(image.data[0])
    return replace(image, data=(image.data[:1] > (low + high) / 2).astype(np.int16))
