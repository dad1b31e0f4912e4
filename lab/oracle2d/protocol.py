"""The choices of the protocol, each a pure function with its source.

Sources: Ouyang et al., "Self-Supervision with Superpixels: Training Few-shot Medical Image Segmentation without
Annotation", ECCV 2020 (SSL-ALPNet); Roy et al., "'Squeeze & Excite' Guided Few-Shot Segmentation of Volumetric Images",
MedIA 2020; Hansen et al., "Anomaly Detection-Inspired Few-Shot Medical Image Segmentation Through Self-Supervision With
Supervoxels", MedIA 2022 (ADNet).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medfewshot.errors import InputError

FOLDS = 5
"""Cross-validation over scans (Ouyang et al. 2020, section 4.1)."""
PARTS = 3
"""Support slices, and chunks of the query (Roy et al. 2020, section 4.4; Ouyang et al. 2020, section 4.1)."""
Setting = Literal[1, 2]
"""1: the test classes may be in training images, unlabelled (Roy et al. 2020). 2: no training slice shows any of them
(Ouyang et al. 2020, section 4.1)."""


@dataclass(frozen=True)
class Fold:
    """Indices of scans, in file-name order. The three never share a scan."""

    query: tuple[int, ...]
    support: int
    training: tuple[int, ...]


def make_folds(scans: int, folds: int = FOLDS) -> tuple[Fold, ...]:
    """Consecutive blocks of scans as queries; the support is the first scan of the next block, as in SSL-ALPNet's code.

    Everything else is for training. Raises InputError for fewer than two scans a fold.
    """
    if scans < 2 * folds:
        raise InputError(f"{folds} folds of {scans} scans: give at least {2 * folds} scans")
    edges = [index * scans // folds for index in range(folds + 1)]
    found = []
    for first, end in itertools.pairwise(edges):
        query, support = tuple(range(first, end)), end % scans
        training = tuple(index for index in range(scans) if index not in query and index != support)
        found.append(Fold(query, support, training))
    return tuple(found)


def slices_with(label: np.ndarray, value: int) -> np.ndarray:
    """Indices of the slices of ``label (Z, X, Y)`` that show ``value``, in order: the oracle of this protocol."""
    return np.flatnonzero((label == value).any(axis=(1, 2)))


def support_slices(label: np.ndarray, value: int, parts: int = PARTS) -> list[int]:
    """Slices of ``label (Z, X, Y)`` at 1/6, 1/2 and 5/6 of those that show ``value`` (ADNet, section 4.2).

    Raises InputError where none shows it.
    """
    found = slices_with(label, value)
    if not len(found):
        raise InputError(f"label {value}: the support scan of this fold does not show it; leave the label out")
    return [int(found[(2 * part + 1) * len(found) // (2 * parts)]) for part in range(parts)]


def query_chunks(label: np.ndarray, value: int, parts: int = PARTS) -> list[np.ndarray]:
    """Return the slices of ``label (Z, X, Y)`` with ``value`` in equal chunks; support slice i belongs to chunk i."""
    found = slices_with(label, value)
    edges = [part * len(found) // parts for part in range(parts + 1)]
    return [found[first:end] for first, end in itertools.pairwise(edges)]


def training_slices(label: np.ndarray, setting: Setting, test_labels: Collection[int]) -> np.ndarray:
    """Indices of the slices of ``label (Z, X, Y)`` that training may use.

    Setting 2 omits every slice with *any* test class. Public code combines the classes with AND and so omits
    only slices that show them all: a leak that this does not have.
    """
    if setting == 1:
        return np.arange(len(label))
    return np.flatnonzero(~np.isin(label, list(test_labels)).any(axis=(1, 2)))


def pooled_dice(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """Dice of all scored slices of one scan together; NaN where neither shows the class."""
    total = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / total if total else float("nan")
