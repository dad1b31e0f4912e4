"""Labelled frames of films: registration carries their labels to the other frames, to learn from and to segment."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.inference import LabelTracker, frames_around
from medfewshot.io import Film, open_film, read_examples
from medfewshot.planning import make_support, to_plan
from medfewshot.structures import mark_ignored
from medfewshot.types import IGNORED, MAX_WHOLE_VALUES, Case, Plan, Progress, Support, Volume
from medfewshot.workflow.supports import LabelledScans

BLOCK = 16
"""Frames in memory while a film is read backwards, because most formats are read forwards."""
TRACKED = 6
"""Frames of a film with one labelled frame that the network learns from too; ``lab/notes/films.md``."""
REACH = 30
"""Frames before and after the labelled one that are tracked for that. Each takes a second."""
SURE = 0.9
"""Voxels of such a frame that no label reaches with this share do not count."""


def with_tracked_frames(
    support: Support, scans: LabelledScans, plan: Plan, *, progress: Progress | None = None
) -> Support:
    """Add frames of the films that have one labelled frame, with the labels that registration carries there."""
    progress = (progress or Progress()).at("tracking frames")
    own = Counter(image.path for image in scans.images if image.frame is not None and image.path is not None)
    images, labels = list(support.images), list(support.labels)
    for image, planned, label in zip(scans.images, support.images, support.labels, strict=True):
        film = open_film(image.path) if image.path is not None and own[image.path] == 1 else None
        if film is None or image.frame is None or planned[0].numel() * plan.classes > MAX_WHOLE_VALUES:
            continue
        tracker = LabelTracker(planned, label, classes=plan.classes, spacing_mm=plan.spacing_mm)
        near = range(max(0, image.frame - REACH), min(film.count, image.frame + REACH + 1))
        chosen = {near[round((n + 1) * (len(near) - 1) / (TRACKED + 1))] for n in range(TRACKED)} - {image.frame}
        following = frames_with_tracker(film, {image.frame: tracker}, near)
        for done, (number, volume, one) in enumerate(following, start=1):
            progress.update(done, len(near), film.name)
            frame = to_plan(replace(image, data=volume.data.reshape(image.data.shape)), plan).image
            votes = one.carry(frame) if one is not None else None
            if votes is not None and number in chosen:
                images.append(frame)
                labels.append(votes.argmax(0).where(votes.amax(0) >= SURE, IGNORED))
    return replace(support, images=tuple(images), labels=tuple(labels), derived=len(images) - support.shots)


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
    film: Film, trackers: dict[int, LabelTracker], numbers: range | None = None
) -> Iterator[tuple[int, Volume, LabelTracker | None]]:
    """Yield number, frame and tracker of all frames, or of ``numbers``, in the order in which labels are carried."""
    if not trackers:
        yield from ((number, volume, None) for number, volume in enumerate(film.frames()))
        return
    wanted = range(film.count) if numbers is None else numbers
    for labelled, around in frames_around(tuple(trackers), film.count):
        chosen = [number for number in around if number in wanted]
        trackers[labelled].restart()
        for volume in _read(film, chosen):
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
    others = np.setdiff1d(label.data, (0, *plan.label_values)).tolist()
    for value in dict.fromkeys((ignore, *others)):  # the data set may have named the ignored value
        planned = make_support([image], [mark_ignored(label, value)], plan)
        if digest_of(planned.labels[0]) == support["digest"]:
            return LabelTracker(planned.images[0], planned.labels[0], classes=plan.classes, spacing_mm=plan.spacing_mm)
    return None
