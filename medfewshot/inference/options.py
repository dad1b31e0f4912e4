"""What a user chooses about inference, and how much memory it may take."""

from __future__ import annotations

from dataclasses import dataclass

from medfewshot.types import WHOLE_VALUES


@dataclass(frozen=True)
class InferenceOptions:
    """Choices of the user.

    Attributes:
        overlap: Share of a window that the next one covers again. Segmenters of the whole volume have no windows.
        probabilities: Whether to return them.
        uncertainty: Whether to return it.
        keep_largest: Whether to drop all but the largest connected component of structures that are in one piece in
            every support.
    """

    overlap: float = 0.5
    probabilities: bool = False
    uncertainty: bool = False
    keep_largest: bool = True


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
