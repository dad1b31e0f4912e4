"""Scans as stacks of normalised slices, and the slices that a learner may be trained on before the test."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lab.oracle2d.protocol import Fold, Setting, training_slices
from medfewshot.episodes import Example
from medfewshot.errors import InputError
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.types import Case

CT_WINDOW_HU = (-125.0, 275.0)
"""Abdominal CT is clipped to this (Ouyang et al. 2020, section 4.1)."""


@dataclass(frozen=True)
class Stack:
    """``image (Z, X, Y)`` float32, ``label (Z, X, Y)`` integer, across the axis of the largest spacing."""

    case_id: str
    subject_id: str
    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float]
    """In the plane of a slice."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of intensities."""

    mean: float
    std: float


def read_stack(case: Case, modality: str) -> Stack:
    """Read the slices as they are on disk, CT clipped to its window, not yet normalised.

    Raises:
        InputError: The image is 2D.
    """
    if case.label_path is None:
        raise InputError(f"{case.image_path}: has no label; this protocol needs one")
    image, label = read_image(case.image_paths), read_label(case.label_path)
    check_same_grid(image, label)
    if image.spatial_dims != 3:
        raise InputError(f"{case.image_path}: is {image.spatial_dims}D; this protocol cuts volumes into slices")
    axis = 2 - int(np.argmax(image.spacing_mm[::-1]))  # the last one where all are equal
    voxels = np.moveaxis(image.data[0], axis, 0)
    if modality == "CT":
        voxels = np.clip(voxels, *CT_WINDOW_HU)
    in_plane = tuple(length for index, length in enumerate(image.spacing_mm) if index != axis)
    return Stack(
        case.case_id,
        case.subject_id,
        np.ascontiguousarray(voxels, dtype=np.float32),
        np.ascontiguousarray(np.moveaxis(label.data[0], axis, 0)),
        (in_plane[0], in_plane[1]),
    )


def normalise(stack: Stack, training: Statistics | None) -> np.ndarray:
    """Normalise ``(Z, X, Y)`` to zero mean and unit variance, of the ``training`` scans (CT) or the scan (MR)."""
    statistics = training or statistics_of([stack.image])
    return ((stack.image - statistics.mean) / max(statistics.std, 1e-6)).astype(np.float32)


def statistics_of(images: Iterable[np.ndarray]) -> Statistics:
    """Over all voxels of all images, one in memory at a time."""
    count, total, squares = 0, 0.0, 0.0
    for image in images:
        count += image.size
        total += float(image.sum(dtype=np.float64))
        squares += float(np.square(image, dtype=np.float64).sum())
    mean = total / count
    return Statistics(mean, float(np.sqrt(max(0.0, squares / count - mean**2))))


def training_examples(
    stacks: Sequence[Stack], fold: Fold, setting: Setting, test_labels: Collection[int], modality: str
) -> list[Example]:
    """Slices for :class:`~medfewshot.episodes.EpisodeSampler`: training scans of ``fold`` only, test classes erased.

    ``stacks``: all scans of the dataset, in file-name order. Labels keep their file values; those of ``test_labels``
    become background (which in setting 2 no slice shows anyway). Image ``(1, X, Y)``, label ``(X, Y)``.
    """
    chosen = [stacks[index] for index in fold.training]
    statistics = statistics_of([stack.image for stack in chosen]) if modality == "CT" else None
    examples = []
    for stack in chosen:
        image = normalise(stack, statistics)
        for index in training_slices(stack.label, setting, test_labels):
            label = np.where(np.isin(stack.label[index], list(test_labels)), 0, stack.label[index])
            examples.append(
                Example(
                    stack.subject_id,
                    torch.from_numpy(image[index].copy())[None],
                    torch.from_numpy(label.astype(np.int64)),
                    stack.spacing_mm,
                )
            )
    return examples
