"""The scan that the page shows: its voxels and what the page must know about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from medfewshot.intensities import looks_like_hounsfield, robust_window
from medfewshot.report.planes import Grid, grid_of
from medfewshot.types import Volume
from medfewshot.workbench.masks import display_file
from medfewshot.workbench.project import Project

_OPEN_SCANS = 2


@dataclass(frozen=True)
class OpenScan:
    """A scan in memory, and the stamp of its file."""

    volume: Volume
    stamp: str = ""

    @cached_property
    def grid(self) -> Grid:
        """How the page shows it."""
        return grid_of(self.volume.spatial_shape, self.volume.affine)

    def image(self, channel: int = 0) -> np.ndarray:
        """View one channel on the RAS axes of the page, ``(X, Y, Z)`` float32."""
        return self.grid.to_ras(self._channel(channel))

    def _channel(self, number: int) -> np.ndarray:
        return self.volume.data[min(max(0, number), len(self.volume.data) - 1)]

    def file(self, channel: int = 0) -> Iterator[bytes]:
        """Yield the NIfTI file of one channel for the viewer, in parts."""
        return display_file(self._channel(channel), self.grid)

    def facts(self, channel: int = 0) -> dict[str, Any]:
        """Collect what the page must know: shape, affine, kind of intensities and the window of a channel."""
        shown = self._channel(channel)
        low, high = robust_window(shown)
        is_ct = self.volume.modality == "CT" or (self.volume.modality is None and looks_like_hounsfield([shown]))
        return {
            "shape": self.grid.shape,
            "affine": self.grid.affine.tolist(),
            "flat": int(self.grid.orientation[2, 0]) if self.volume.spatial_dims == 2 else None,
            "channels": len(self.volume.data),
            "ct": is_ct,
            "window": [float(low), float(high)],
            "range": [float(shown.min()), float(shown.max())],
            "millimetres": self.volume.has_spacing,
            "warnings": list(self.volume.warnings),
            "stamp": self.stamp,
        }


class OpenScans:
    """The scans that were opened last, so that they are read once, and again if the file is replaced."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._open = lru_cache(_OPEN_SCANS)(self._read)

    def get(self, name: str) -> OpenScan:
        """Read the scan of a case, or take the one in memory.

        Raises:
            InputError: The project has no such case, or its scan cannot be read.
        """
        with self._lock:
            return self._open(name, self._project.scan(name).stamp)

    def _read(self, name: str, stamp: str) -> OpenScan:
        return OpenScan(self._project.read_scan(name), stamp)
