"""NRRD, through SimpleITK."""

from __future__ import annotations

from dataclasses import replace

from medfewshot.io.formats.base import Format
from medfewshot.io.itk import read_volume, write_volume

NRRD = Format(
    name="NRRD", suffixes=(".nrrd", ".nhdr"), read=read_volume, results=".nrrd", writes=(".nrrd",), write=write_volume
)
SEG_NRRD = replace(
    NRRD, name="3D Slicer's segmentation", suffixes=(".seg.nrrd",), writes=(".seg.nrrd",), labels_only=True
)
