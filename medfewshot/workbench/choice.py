"""Which scan to label next: the one that the segmenter knows least about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.io import read_image
from medfewshot.quality import support_distance
from medfewshot.types import Case, Progress, Volume


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
    for values in (
        {name: found.uncertainty for name, found in assessments.items()},
        {name: found.distance for name, found in assessments.items()},
    ):
        ordered = sorted(values.values())
        for name, value in values.items():
            ranks[name] += ordered.index(value)
    return sorted(assessments, key=lambda name: (-ranks[name], -assessments[name].uncertainty, name))


def suggest(
    cases: Sequence[Case], segmenter: VolumeSegmenter, progress: Progress | None = None
) -> tuple[list[tuple[Case, Assessment]], list[str]]:
    """Order scans by what to label next.

    Args:
        cases: The scans; those that the segmenter learned from are ignored.
        segmenter: What was learned so far.
        progress: Receives one event per scan; may cancel.

    Returns:
        The scans in order, and one line for each scan that cannot be segmented.
    """
    known = {support.get("image") for support in segmenter.record.get("supports", ())}
    waiting = {case.case_id: case for case in cases if str(Path(case.image_path).resolve()) not in known}
    progress = (progress or Progress()).at("looking at scans")
    assessments: dict[str, Assessment] = {}
    skipped: list[str] = []
    for number, (name, case) in enumerate(waiting.items()):
        progress.update(number, len(waiting), name)
        try:
            volume = read_image(case.image_paths)
            assessments[name] = assess(segmenter, volume, segmenter.segment(volume))
        except InputError as error:
            skipped.append(str(error))
    progress.update(len(waiting), len(waiting), "done")
    return [(waiting[name], assessments[name]) for name in in_order_of_need(assessments)], skipped
