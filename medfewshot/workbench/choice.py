"""Which scan to label: at first the one most like all others, then the one that the segmenter knows least about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.intensities import robust_window
from medfewshot.io import first_volume
from medfewshot.quality import support_distance
from medfewshot.types import Case, Progress, Volume
from medfewshot.workflow.one_case import seen_warnings

T = TypeVar("T")
BLOCKS = 12
"""Edge of the coarse picture in which scans are compared."""


@dataclass(frozen=True)
class Assessment:
    """How much a label of a scan would teach.

    Args:
        uncertainty: 1 minus the expected Dice, mean over structures; 1 for a structure that was not found.
        distance: Of its intensities to the nearest support's, see :func:`medfewshot.quality.support_distance`.
    """

    uncertainty: float
    distance: float


def assess(segmenter: VolumeSegmenter, volume: Volume, done: Segmentation) -> Assessment:
    """Judge a scan by its segmentation ``done``."""
    expected = done.predicted_dice
    doubts = [1 - (expected.get(value) or 0.0) for value in segmenter.plan.label_values]
    distance = support_distance(volume, segmenter.plan, segmenter.record.get("profile") or {})
    return Assessment(sum(doubts) / len(doubts), distance)


def in_order_of_need(assessments: Mapping[str, Assessment]) -> list[str]:
    """Names of scans, the one to label next first: high in both ranks, by uncertainty and by distance."""
    ranks = dict.fromkeys(assessments, 0)
    for measure in (attrgetter("uncertainty"), attrgetter("distance")):
        ordered = sorted(map(measure, assessments.values()))
        for name, found in assessments.items():
            ranks[name] += ordered.index(measure(found))
    return sorted(assessments, key=lambda name: (-ranks[name], -assessments[name].uncertainty, name))


def suggest(
    cases: Sequence[Case], segmenter: VolumeSegmenter, progress: Progress | None = None
) -> tuple[list[tuple[Case, Assessment]], list[str]]:
    """Order scans by what to label next.

    Args:
        cases: The scans; those that the segmenter learned from are ignored, and copies of them.
        segmenter: What was learned so far.
        progress: Receives one event per scan; may cancel.

    Returns:
        The scans in order, and one line for each scan that cannot be segmented.
    """

    def judge(case: Case) -> Assessment | None:
        volume = first_volume(case.image_paths, channels=segmenter.channels)
        learned = seen_warnings(case, volume, segmenter)
        return None if learned else assess(segmenter, volume, segmenter.segment(volume))

    found, skipped = _judged(cases, judge, progress)
    known = {cases[number].case_id: (cases[number], each) for number, each in found.items() if each is not None}
    return [known[name] for name in in_order_of_need({name: each for name, (_, each) in known.items()})], skipped


def _judged(
    cases: Sequence[Case], judge: Callable[[Case], T], progress: Progress | None
) -> tuple[dict[int, T], list[str]]:
    """Judge scans by their positions; one line for each scan that cannot be judged."""
    progress = (progress or Progress()).at("looking at scans")
    found: dict[int, T] = {}
    skipped: list[str] = []
    for number, case in enumerate(cases):
        progress.update(number, len(cases), case.case_id)
        try:
            found[number] = judge(case)
        except InputError as error:
            skipped.append(str(error))
    progress.update(len(cases), len(cases), "done")
    return found, skipped


def coarse_picture(volume: Volume) -> np.ndarray:
    """Return the scan in blocks ``(BLOCKS**D,)``, its axes nearest to right, anterior, superior, gray values in [0, 1].

    It shows body and organs where they lie in the field of view; gray values are scaled by percentiles.
    """
    data = volume.data[0]
    if volume.spatial_dims == 3:
        data = nib.orientations.apply_orientation(data, nib.orientations.io_orientation(volume.affine))
    low, high = robust_window(data)
    step = tuple(slice(None, None, max(1, size // (4 * BLOCKS))) for size in data.shape)
    scaled = torch.from_numpy(np.clip((data[step].astype(np.float32) - low) / (high - low), 0, 1))[None, None]
    pool = F.adaptive_avg_pool2d if data.ndim == 2 else F.adaptive_avg_pool3d
    return pool(scaled, BLOCKS).flatten().numpy()


def mean_distances(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean distance ``(n,)`` of every scan to the others: 1 minus the correlation of coarse pictures."""
    with np.errstate(invalid="ignore"):  # a scan without contrast has no correlation
        distance = 1 - np.nan_to_num(np.atleast_2d(np.corrcoef(np.stack(pictures))))
    np.fill_diagonal(distance, 0)
    return distance.sum(1) / max(1, len(pictures) - 1)


def most_typical_first(
    cases: Sequence[Case], progress: Progress | None = None
) -> tuple[list[tuple[Case, float]], list[str]]:
    """Order scans by how much they are like all others: the first is the medoid.

    Returns:
        Scans with their mean distance to the others, and one line for each scan that cannot be read.
    """
    pictures, skipped = _judged(cases, lambda case: coarse_picture(first_volume(case.image_paths)), progress)
    if len({len(picture) for picture in pictures.values()}) > 1:
        raise InputError("some scans are 2D and others 3D", "give scans of one kind")
    found = mean_distances(list(pictures.values())) if pictures else np.zeros(0)
    ordered = sorted(zip(pictures, found.tolist(), strict=True), key=lambda one: one[1])
    return [(cases[number], distance) for number, distance in ordered], skipped
