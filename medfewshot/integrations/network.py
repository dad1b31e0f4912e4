"""Functions that the inference config of a saved bundle calls: read the segmenter, list the images of a folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.io import format_of
from medfewshot.io.formats.nifti import NIFTI
from medfewshot.workflow import check_channels, find_cases


def load_network(folder: str | PathLike[str], device: str | None = None) -> VolumeSegmenter:
    """Read the segmenter in ``folder``: a torch module on planned tensors, with its ``plan``.

    Raises:
        InputError: ``folder`` contains no segmenter.
    """
    return load_segmenter(Path(folder), resolve_device(device) if device is not None else None)


def list_images(folder: str | PathLike[str], channels: int = 1) -> list[dict[str, str | list[str]]]:
    """``[{"image": path}, ...]`` for every NIfTI image in ``folder``; a list of paths where channels are several.

    With several channels the files are ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... Raises InputError where the
    folder holds no NIfTI image, or channels are missing.
    """
    cases = [case for case in find_cases([Path(folder)], channels) if format_of(case.image_path) == NIFTI]
    if not cases:
        raise InputError(f"{folder}: holds no NIfTI image (.nii, .nii.gz)", "for other formats use medfewshot segment")
    for case in cases:
        check_channels(case, channels)
    return [
        {"image": str(case.image_path) if channels == 1 else [str(path) for path in case.image_paths]} for case in cases
    ]
