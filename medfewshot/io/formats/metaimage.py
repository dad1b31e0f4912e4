"""MetaImage, through SimpleITK."""

from __future__ import annotations

from medfewshot.io.formats.base import Format
from medfewshot.io.itk import read_volume, write_volume

METAIMAGE = Format(
    name="MetaImage", suffixes=(".mha", ".mhd"), read=read_volume, results=".mha", writes=(".mha",), write=write_volume
)
