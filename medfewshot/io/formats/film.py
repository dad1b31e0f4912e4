"""A time series of volumes on one grid, whose frames are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfewshot.errors import InputError
from medfewshot.types import Volume


@dataclass(frozen=True)
class TimeAxis:
    """The time axis of a file without a NIfTI header, which its results get too.

    Attributes:
        step: Time from frame to frame, in the unit of the file.
        origin: Time of the first frame.
        seconds: Length of the unit; 0 if it is unknown.
    """

    step: float
    origin: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Film:
    """A time series of images, or of label maps, on one grid.

    Attributes:
        first: The first frame, with the grid of all frames.
        count: Number of frames.
        read: ``read(numbers)`` yields the data ``(C, *S)`` of these frames. Ascending numbers read the file once.
        times_s: Seconds from the first frame, one per frame; empty if the file does not state them.
    """

    first: Volume
    count: int
    read: Callable[[Sequence[int]], Iterator[np.ndarray]]
    times_s: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Path of the file for messages."""
        return str(self.first.path)

    def frames(self, numbers: Sequence[int] | None = None) -> Iterator[Volume]:
        """Yield frames, all of them by default, with the header and, in the first one, the warnings of the file.

        Raises:
            InputError: The film has no such frame.
        """
        numbers = range(self.count) if numbers is None else numbers
        for number in numbers:
            if not 0 <= number < self.count:
                raise InputError(
                    f"{self.name}: has no frame {number}, its frames are 0 to {self.count - 1}",
                    "name one of these",
                    setting="frame",
                )
        for number, data in zip(numbers, self.read(numbers), strict=True):
            yield replace(self.first, data=data, frame=number, warnings=self.first.warnings if number == 0 else ())

    def frame(self, number: int) -> Volume:
        """Return one frame, counted from 0."""
        return next(self.frames([number]))

    def as_channels(self) -> Volume:
        """Return the volumes of the file as the channels of one image."""
        return replace(self.first, data=np.concatenate([*self.read(range(self.count))]), frame=None)
