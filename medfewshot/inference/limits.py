"""Limits of the memory that inference takes."""

from __future__ import annotations

from dataclasses import dataclass

from medfewshot.types import WHOLE_VALUES


@dataclass(frozen=True)
class MemoryLimits:
    """Largest numbers of probabilities (classes x voxels) in memory; no result depends on the first two.

    Attributes:
        slab_values: On the planned grid, brought back at once: 480 MB in float32, and the windows around them.
        native_values: On the native grid, while labels are written.
        whole_values: On the planned grid, up to which a segmenter of the whole volume gets the whole volume.
    """

    slab_values: int = 120_000_000
    native_values: int = 60_000_000
    whole_values: int = WHOLE_VALUES
