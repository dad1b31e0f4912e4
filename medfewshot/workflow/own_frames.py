"""Labelled frames of the film that is segmented: their labels help its other frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.inference import LabelTracker, frames_around
from medfewshot.io import Film, read_examples
from medfewshot.planning import make_support
from medfewshot.structures import mark_ignored
from medfewshot.types import Case, Volume

BLOCK = 16
"""Frames in memory while a film is read backwards, because most formats are read forwards."""


def digest_of(labels: Tensor) -> str:
    """Digest of a planned label map ``(*P)``, which shows later that its file has changed."""
    return hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16]


def trackers_of(film: Film, segmenter: VolumeSegmenter) -> tuple[dict[int, LabelTracker], tuple[str, ...]]:
    """Read the labels of the frames that the segmenter learned from.

    Args:
        film: The film.
        segmenter: Its record names the labelled frames.

    Returns:
        Labelled frame -> what carries its labels to other frames; and warnings.
    """
    found: dict[int, LabelTracker] = {}
    warnings = []
    path = film.first.path
    own = [one for one in segmenter.record.get("supports", ()) if "digest" in one and path is not None]
    for one in (one for one in own if path is not None and one["image"] == str(path.resolve())):
        tracker = _tracker(one, film, segmenter)
        if tracker is None:
            text = f"frame {one['frame']}: its label file {one['label']} is missing or has changed since the adaptation"
            warnings.append(f"{text}, so it does not help the other frames")
        else:
            found[one["frame"]] = tracker
    return dict(sorted(found.items())), tuple(warnings)


def frames_with_tracker(
    film: Film, trackers: dict[int, LabelTracker]
) -> Iterator[tuple[int, Volume, LabelTracker | None]]:
    """Yield number, frame and tracker of all frames, in the order in which labels are carried."""
    if not trackers:
        yield from ((number, volume, None) for number, volume in enumerate(film.frames()))
        return
    for labelled, numbers in frames_around(tuple(trackers), film.count):
        trackers[labelled].restart()
        for volume in _read(film, numbers):
            yield volume.frame or 0, volume, trackers[labelled]


def _read(film: Film, numbers: Sequence[int]) -> Iterator[Volume]:
    """Yield frames in a forward or backward order."""
    if len(numbers) < 2 or numbers[0] < numbers[1]:
        yield from film.frames(numbers)
        return
    for start in range(0, len(numbers), BLOCK):
        block = sorted(numbers[start : start + BLOCK])
        yield from reversed(list(film.frames(block)))


def _tracker(support: dict[str, Any], film: Film, segmenter: VolumeSegmenter) -> LabelTracker | None:
    """Return the tracker of a labelled frame; None if its label file is not what the segmenter learned from."""
    plan, number = segmenter.plan, support["frame"]
    ignore = (segmenter.record.get("settings") or {}).get("ignore")
    case = Case(film.name, film.name, None, (Path(film.name),), Path(support["label"]), plan.channels, number)
    try:
        examples = {image.frame: (image, label) for image, label in read_examples(case, ignore=ignore)}
    except (InputError, OSError):
        return None
    if number not in examples:
        return None
    image, label = examples[number]
    planned = make_support([image], [mark_ignored(label, ignore)], plan)
    if digest_of(planned.labels[0]) != support["digest"]:
        return None
    return LabelTracker(planned.images[0], planned.labels[0], classes=plan.classes, spacing_mm=plan.spacing_mm)
