"""Labels of one frame of a film, carried from frame to frame by registration.

The labelled frame is registered to every other frame, beginning with the displacement of the frame before, so that
errors do not add up. Its labels vote in each frame, as registered supports do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.learners.hybrid_fusion import product_of_experts
from medfewshot.registration import FRAMES, Transform, register

WEIGHT = 0.3
"""Exponent of the carried labels; ``lab/notes/films.md`` says how it was chosen."""


class LabelTracker:
    """Carries the labels of one frame to its neighbours, one after the other.

    Args:
        image: The labelled frame ``(C, *P)`` on the planned grid.
        labels: Its classes ``(*P)``, negative if unknown.
        classes: N + 1.
        spacing_mm: Voxel edges of the planned grid.
    """

    def __init__(self, image: Tensor, labels: Tensor, *, classes: int, spacing_mm: Sequence[float]) -> None:
        self.image, self.labels, self.classes, self.spacing_mm = image, labels, classes, spacing_mm
        self._last: Transform | None = None

    def restart(self) -> None:
        """Go back to the labelled frame, to continue in the other direction."""
        self._last = None

    def fuse(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """Multiply the probabilities of the next frame with the carried labels.

        Args:
            image: The frame ``(C, *P)``.
            probabilities: Of the segmenter, ``(N + 1, *P)``.

        Returns:
            Probabilities ``(N + 1, *P)``.
        """
        votes = self.carry(image)
        votes += (1 - votes.sum(0, keepdim=True)).clamp_min(0) * probabilities  # no votes where labels are not known
        trust = [1.0] * (self.classes - 1)
        return product_of_experts(probabilities, votes, WEIGHT, trust, trust).softmax(0)

    @torch.no_grad()
    def carry(self, image: Tensor) -> Tensor:
        """Return the votes ``(N + 1, *P)`` of the labels in the next frame ``(C, *P)``."""
        if self._last is not None or not torch.equal(image, self.image):
            self._last, _ = register([self.image], image, self.spacing_mm, FRAMES, start=self._last)
        size = image.shape[1:]
        votes = image.new_zeros((self.classes, *size))
        grid = None if self._last is None else self._last.grid(size)
        for index in range(self.classes):
            mask = (self.labels == index).to(image)[None, None]
            if grid is not None:
                mask = F.grid_sample(mask, grid, padding_mode="border", align_corners=False)
            votes[index] = mask[0, 0]
        return votes


def frames_around(labelled: Sequence[int], count: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Divide the frames of a film between its labelled frames: each belongs to the nearest one.

    Args:
        labelled: Numbers of the labelled frames, ascending.
        count: Number of frames.

    Yields:
        A labelled frame, and frames in the order of their distance from it; forwards, it is the first one itself.
    """
    for place, number in enumerate(labelled):
        end = count if number == labelled[-1] else (number + labelled[place + 1]) // 2 + 1
        begin = 0 if place == 0 else (labelled[place - 1] + number) // 2 + 1
        yield number, range(number, end)
        if begin < number:
            yield number, range(number - 1, begin - 1, -1)
