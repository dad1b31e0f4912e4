"""Scores of films: pair their labelled frames, and compare how structures change over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.evaluation.scores import NAN, flat_row, mean
from medfewshot.io import Film, labelled_frames, open_film, read_label_pair
from medfewshot.structures import dice
from medfewshot.types import Volume

MOST_NEIGHBOURS = 50
"""Pairs of neighbouring frames that are registered. Each takes about a second."""


@dataclass(frozen=True)
class FilmScore:
    """How one structure changes in one film.

    Attributes:
        case_id: Name of the film.
        label: Value of the structure.
        frames: Number of frames.
        labelled_frames: Number of frames with a reference.
        consistency: Mean Dice between neighbouring frames of the prediction, without compensation of motion.
        motion_consistency: The same after registration of the earlier frame to the later one, in the scan; over at most
            :data:`MOST_NEIGHBOURS` pairs at even distances. NaN without the scan.
        change_percent: Largest minus smallest size of the prediction over all frames, in percent of the largest: the
            ejection fraction of a cavity.
        reference_change_percent: The same of the reference, over its labelled frames; NaN for fewer than two.
        curve_error_percent: Mean absolute difference of the sizes of prediction and reference over the labelled frames,
            in percent of the largest size of the reference; NaN if the reference lacks the structure.
    """

    case_id: str
    label: int
    frames: int
    labelled_frames: int
    consistency: float
    motion_consistency: float
    change_percent: float
    reference_change_percent: float
    curve_error_percent: float

    def row(self) -> dict[str, Any]:
        """Return the columns of ``films.csv``; None for an undefined value."""
        error = self.change_percent - self.reference_change_percent
        return flat_row(self, "") | {"change_error_points": None if np.isnan(error) else error}


@dataclass(frozen=True)
class FilmPair:
    """A segmented film, and the frames of its reference that are labelled.

    Attributes:
        prediction: Label maps of all frames.
        references: Frame number -> label map.
        scan: The film that was segmented, if it is known.
    """

    prediction: Film
    references: Mapping[int, Volume]
    scan: Film | None = None

    def volumes(self) -> Iterator[tuple[Volume, Volume]]:
        """Yield prediction and reference of each labelled frame."""
        for volume in self.prediction.frames(sorted(self.references)):
            yield replace(volume, data=volume.data.astype(np.int32)), self.references[volume.frame or 0]

    def scores(self, case: str) -> list[FilmScore]:
        """Score each structure of the prediction or of the references, background excluded."""
        sizes: dict[int, list[int]] = defaultdict(list)
        overlaps: dict[int, list[float]] = defaultdict(list)
        true = {n: _counts(volume.data) for n, volume in self.references.items()}
        values = {value for counts in true.values() for value in counts}
        before: np.ndarray | None = None
        for number, volume in enumerate(self.prediction.frames()):
            counts = _counts(volume.data)
            for value in values | counts.keys() | sizes.keys():
                # A structure that appears for the first time had no voxels in the frames before.
                sizes[value] += [0] * (number - len(sizes[value])) + [counts.get(value, 0)]
                if before is not None:
                    overlaps[value].append(dice(before == value, volume.data == value))
            before = volume.data
        moved = self._motion_overlaps()
        return [
            FilmScore(
                case, value, self.prediction.count, len(true), mean(overlaps[value]), mean(moved[value]),
                _change(found), _change([counts.get(value, 0) for counts in true.values()]),
                _curve_error([(found[number], counts.get(value, 0)) for number, counts in true.items()]),
            )
            for value, found in sorted(sizes.items())
        ]  # fmt: skip

    def _motion_overlaps(self) -> Mapping[int, list[float]]:
        """Return label value -> Dice between neighbouring frames after registration."""
        overlaps: dict[int, list[float]] = defaultdict(list)
        if self.scan is None or self.prediction.count < 2:
            return overlaps
        pairs = self.prediction.count - 1
        firsts = sorted({int(n) for n in np.linspace(0, pairs - 1, min(pairs, MOST_NEIGHBOURS))})
        numbers = sorted({number for first in firsts for number in (first, first + 1)})
        before: tuple[int, Volume, Volume] | None = None
        for number, image, label in zip(
            numbers, self.scan.frames(numbers), self.prediction.frames(numbers), strict=True
        ):
            if before is not None and before[0] == number - 1:
                carried = _carried(before[1], before[2].data[0], image)
                for value in {*np.unique(carried).tolist(), *np.unique(label.data).tolist()} - {0}:
                    overlaps[value].append(dice(carried == value, label.data[0] == value))
            before = number, image, label
        return overlaps


def label_pairs(
    case: str, predicted: Path, reference: Path, *, ignore: int | None, scan: Path | None = None
) -> tuple[list[tuple[str, Volume, Volume]], FilmPair | None]:
    """Read the label maps of a case: of a film, each labelled frame with a name of its own.

    Args:
        case: Name of the case.
        predicted: The segmentation.
        reference: The reference; frames that are not labelled are 0, 255 or ``ignore`` everywhere.
        ignore: Label value of voxels that are not annotated.
        scan: The film that was segmented, if it is known.

    Returns:
        Name, prediction and reference of each; and the film, if it is one.

    Raises:
        InputError: The numbers of frames differ, or no frame of the reference is labelled.
    """
    prediction, truth = (open_film(path, is_label=True) for path in (predicted, reference))
    if prediction is None and truth is None:
        return [(case, *read_label_pair(predicted, reference))], None
    found, expected = (1 if film is None else film.count for film in (prediction, truth))
    if prediction is None or truth is None or found != expected:
        raise InputError(
            f"case {case}: {predicted} has {found} frame(s), but {reference} has {expected}",
            "give a reference with a frame for each; frames that are not labelled are 0 or 255",
        )
    film = open_film(scan) if scan is not None and scan.exists() else None
    fits = film is not None and (film.count, film.first.spatial_shape) == (found, prediction.first.spatial_shape)
    pair = FilmPair(prediction, labelled_frames(truth, ignore=ignore), film if fits else None)
    return [(f"{case} frame {one.frame}", one, true) for one, true in pair.volumes()], pair


def _carried(before: Volume, labels: np.ndarray, image: Volume) -> np.ndarray:
    """Return the labels ``(*S)`` of the frame ``before`` where registration puts them in the next one."""
    import torch
    import torch.nn.functional as F

    from medfewshot.registration import FRAMES, register

    first, second = (torch.from_numpy(volume.data.astype(np.float32)) for volume in (before, image))
    axes = tuple(range(1, first.ndim))
    mean, deviation = first.mean(axes, keepdim=True), first.std(axes, keepdim=True).clamp_min(1e-6)
    first, second = (first - mean) / deviation, (second - mean) / deviation
    transform, _ = register([first], second, image.spacing_mm, FRAMES)
    stored = torch.from_numpy(labels.astype(np.float32))[None, None]
    grid = transform.grid(labels.shape)
    carried = F.grid_sample(stored, grid, mode="nearest", padding_mode="border", align_corners=False)
    return carried[0, 0].numpy().astype(np.int32)


def _curve_error(sizes: list[tuple[int, int]]) -> float:
    largest = max(reference for _, reference in sizes)
    return 100 * float(np.mean([abs(found - reference) for found, reference in sizes])) / largest if largest else NAN


def _counts(data: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(data[data > 0], return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _change(sizes: list[int]) -> float:
    largest = max(sizes)
    return 100 * (largest - min(sizes)) / largest if len(sizes) > 1 and largest else NAN
