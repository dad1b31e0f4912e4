"""Formats of segmentations that are written on request, beside the label map: for archives, planning and 3D Slicer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfewshot.io.dicom_seg_writer import write_dicom_seg
from medfewshot.io.dicom_source import source_of
from medfewshot.io.rtstruct_writer import write_rtstruct
from medfewshot.io.slicer_writer import write_seg_nrrd
from medfewshot.io.terminology import check_available
from medfewshot.types import Colour, Volume


@dataclass(frozen=True, kw_only=True)
class Export:
    """A format that is written on request.

    Attributes:
        name: Of the setting that asks for it, and of the folder of its files.
        title: As users know it.
        suffix: Of its files.
        write: ``write(path, labels, names, source, colours)`` writes ``labels (X, Y, Z)`` on the grid of the image
            ``source``, of a DICOM series if ``needs_series``, and returns warnings of the source. ``names`` are label
            value -> name, ``colours`` label value -> red, green and blue from 0 to 1. The file appears whole or not at
            all.
        needs_series: Whether it refers to a DICOM series, and needs the extra ``dicom``.
    """

    name: str
    title: str
    suffix: str
    write: Callable[[Path, np.ndarray, Mapping[int, str], Volume, Mapping[int, Colour]], tuple[str, ...]]
    needs_series: bool

    def file_of(self, case: str) -> str:
        """Return the file of a case, relative to the folder of the run."""
        return f"{self.name}/{case}{self.suffix}"

    def check_available(self) -> None:
        """Raise InputError if a library is missing."""
        if self.needs_series:
            check_available(self.name)

    def refusal(self, volume: Volume) -> str | None:
        """Why there can be no such file of a volume; None if there can."""
        if self.needs_series and not source_of(volume):
            return f"{volume.name}: is no folder with a DICOM series of one volume, so no {self.title} was written"
        if volume.spatial_dims != 3:
            return f"{volume.name}: is 2D, so no {self.title} was written"
        return None


EXPORTS = {
    one.name: one
    for one in (
        Export(
            name="dicom_seg", title="DICOM segmentation", suffix=".dcm", write=write_dicom_seg, needs_series=True
        ),
        Export(name="rtstruct", title="RT structure set", suffix=".dcm", write=write_rtstruct, needs_series=True),
        Export(
            name="seg_nrrd", title="3D Slicer segmentation", suffix=".seg.nrrd", write=write_seg_nrrd,
            needs_series=False,
        ),
    )
}  # fmt: skip
"""Name -> format."""
