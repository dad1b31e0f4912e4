"""What the viewer plays of a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.intensities import robust_window
from medfewshot.report.page.viewer import LARGEST_CASE, DisplayVolumes, display_volumes

MOST_FRAMES = 40
"""Frames of a film that the viewer plays."""


class FilmStrip:
    """Collects what the viewer plays of a film: at most :data:`MOST_FRAMES` frames, coarse if they are large.

    Args:
        count: Number of frames of the film.
        values: Label value of rank 1, 2, ...
    """

    def __init__(self, count: int, values: Sequence[int]) -> None:
        self.numbers = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int))
        self.values = values
        self._frames: dict[int, DisplayVolumes] = {}
        self._window: tuple[float, float] | None = None

    def add(self, number: int, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
        """Keep a frame ``(*S)`` and its labels if the viewer plays it."""
        if number in self.numbers:
            budget = max(1, LARGEST_CASE // len(self.numbers))
            self._window = self._window or robust_window(image)
            self._frames[number] = display_volumes(
                image, labels, affine, values=self.values, budget=budget, window=self._window
            )

    def played(self, number: int) -> DisplayVolumes:
        """Return the volumes of a film that is paused at the frame nearest to ``number``."""
        paused = int(np.abs(self.numbers - number).argmin())
        kept = [self._frames[int(one)] for one in self.numbers]
        return replace(
            kept[paused],
            film_grey=np.stack([one.grey for one in kept], -1),
            film_labels=np.stack([one.labels for one in kept], -1),
            film_frames=self.numbers,
            paused=paused,
        )
