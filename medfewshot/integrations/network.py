"""A saved segmenter as a torch module, and the images of a folder: what a bundle's inference config asks for."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.cohort import find_cases
from medfewshot.cohort.inputs import check_channels
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.io.naming import format_of
from medfewshot.types import Plan


class SegmenterNetwork(nn.Module):
    """A segmenter as a module on planned tensors: ``(B, C, *S)`` float32 -> ``(B, N + 1, *S)`` float32 logits.

    Background first. ``plan`` says what a planned tensor is: see :class:`~medfewshot.integrations.ToPlan`.
    """

    def __init__(self, segmenter: VolumeSegmenter) -> None:
        super().__init__()
        self.plan: Plan = segmenter.plan
        self._segmenter: Any = segmenter.segmenter
        self._expose()

    @property
    def whole_volume(self) -> bool:
        return bool(getattr(self._segmenter, "whole_volume", False))

    def __getattr__(self, name: str) -> Any:
        """What inference asks of a segmenter beyond a call, where the one inside has it."""
        inside = self.__dict__.get("_segmenter")
        if name in ("windowed", "examine", "calibration", "device") and hasattr(inside, name):
            return getattr(inside, name)
        return super().__getattr__(name)

    def forward(self, image: Tensor) -> Tensor:
        plain = image.as_tensor() if hasattr(image, "as_tensor") else image
        return self._segmenter(plain)

    def to(self, *args: Any, **kwargs: Any) -> SegmenterNetwork:
        """Move to a device, the segmenter's other tensors (prototypes, say) included. Its number format stays."""
        device = kwargs.get("device", args[0] if args else None)
        if not isinstance(device, (str, int, torch.device)):
            raise TypeError("SegmenterNetwork.to takes a device; the number format is the segmenter's own")
        self._segmenter = self._segmenter.to(torch.device(device))
        self._expose()
        return self

    def _expose(self) -> None:
        network = getattr(self._segmenter, "network", None)
        if isinstance(network, nn.Module):
            self.network = network  # registered, so that parameters() tells the truth


def load_network(folder: str | PathLike[str], device: str | None = None) -> SegmenterNetwork:
    """The network of the segmenter in ``folder``, with its plan. Raises InputError where there is none."""
    return SegmenterNetwork(load_segmenter(Path(folder), resolve_device(device) if device is not None else None))


def list_images(folder: str | PathLike[str], channels: int = 1) -> list[dict[str, str | list[str]]]:
    """``[{"image": path}, ...]`` for every NIfTI image in ``folder``; a list of paths where channels are several.

    With several channels the files are ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... Raises InputError where the
    folder holds no NIfTI image, or channels are missing.
    """
    cases = [case for case in find_cases([Path(folder)], channels) if format_of(case.image_path) == "nifti"]
    if not cases:
        raise InputError(f"{folder}: holds no NIfTI image (.nii, .nii.gz); for other formats use medfewshot segment")
    for case in cases:
        check_channels(case, channels)
    return [
        {"image": str(case.image_path) if channels == 1 else [str(path) for path in case.image_paths]} for case in cases
    ]
