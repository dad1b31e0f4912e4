"""The file formats that are read and written. To add one, write a module here and list its ``Format`` in FORMATS."""

from __future__ import annotations

from medfewshot.io.formats.base import Format
from medfewshot.io.formats.dicom import DICOM
from medfewshot.io.formats.dicom_seg import DICOM_SEG
from medfewshot.io.formats.film import Film
from medfewshot.io.formats.freesurfer import FREESURFER
from medfewshot.io.formats.itk import METAIMAGE, NRRD
from medfewshot.io.formats.nifti import NIFTI
from medfewshot.io.formats.pictures import BMP, JPEG, PNG, TIFF
from medfewshot.io.formats.rtstruct import RTSTRUCT
from medfewshot.io.formats.slicer import SEG_NRRD
from medfewshot.io.formats.video import VIDEO

FORMATS: tuple[Format, ...] = (
    NIFTI, NRRD, SEG_NRRD, METAIMAGE, FREESURFER, PNG, JPEG, TIFF, BMP, VIDEO, DICOM_SEG, RTSTRUCT, DICOM
)  # fmt: skip
"""The first format stores the results that an image's own format cannot hold. DICOM's special kinds come before it."""

__all__ = ["FORMATS", "Film", "Format"]
