"""A MONAI inferer from images to results on the same grid, and the functions that a saved bundle's config calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import create_file_basename
from monai.inferers import Inferer
from monai.utils import ImageMetaKey, MetaKeys
from torch import Tensor

from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.inference import segment_volume
from medfewshot.io import format_of, labels_without_image
from medfewshot.io.formats.nifti import NIFTI
from medfewshot.learners.base import FunctionSegmenter, Segmenter
from medfewshot.planning import plan_from_dict
from medfewshot.settings import InferenceSettings
from medfewshot.types import Plan, Volume
from medfewshot.workflow import as_volume, check_channels, find_cases

Output = Literal["labels", "probabilities"]


class FewShotInferer(Inferer):
    """Plans an image, runs a network in sliding windows and restores the original grid.

    Args:
        plan: Plan of the segmenter: a :class:`~medfewshot.types.Plan` or its JSON data.
        output: ``"labels"`` with the supports' label values, or ``"probabilities"``, background first.
        overlap: Share of a window that the next one covers again.
        keep_largest: Drop stray pieces of structures that are in one piece in every support.

    Raises:
        ValueError: ``output`` is unknown.
    """

    def __init__(
        self, plan: Plan | Mapping[str, Any], output: Output = "labels", overlap: float = 0.5, keep_largest: bool = True
    ) -> None:
        if output not in ("labels", "probabilities"):
            raise ValueError(f"output {output!r}: choose 'labels' or 'probabilities'")
        self.plan = plan if isinstance(plan, Plan) else plan_from_dict(plan)
        self.output = output
        self.settings = InferenceSettings(
            overlap=overlap, keep_largest=keep_largest, probabilities=output == "probabilities"
        )

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment a batch of images on their original grid.

        Args:
            inputs: ``(B, C, *S)``, a MetaTensor with the affine of each image. A plain tensor has voxels of 1 mm; a
                :class:`~medfewshot.bundle.VolumeSegmenter` takes it voxel for voxel, as :func:`medfewshot.segment`.
            network: A segmenter, or any function of images on the plan's grid that returns logits.
            args: Further arguments of ``network``.
            kwargs: Further keywords of ``network``.

        Returns:
            MetaTensor on the same grid: labels ``(B, 1, *S)`` int32 or probabilities ``(B, N + 1, *S)`` float32.

        Raises:
            InputError: An image has other dimensions or channels than the supports.
        """
        segmenter = network
        if args or kwargs or not isinstance(network, Segmenter):
            whole = isinstance(network, Segmenter) and network.whole_volume
            segmenter = FunctionSegmenter(lambda part: network(part, *args, **kwargs), whole_volume=whole)
        assert isinstance(segmenter, Segmenter)
        results = [segment_tensor(image, self.plan, segmenter, self.settings) for image in _decollated(inputs)]
        batch = MetaTensor(torch.from_numpy(np.stack([arrays[self.output] for arrays in results])).to(inputs.device))
        if isinstance(inputs, MetaTensor):
            batch.copy_meta_from(inputs)
        return batch


def segment_tensor(image: Any, plan: Plan, segmenter: Segmenter, settings: InferenceSettings) -> dict[str, np.ndarray]:
    """Segment ``image (C, *S)``; for a 2D plan, ``S`` may have an axis of length 1. Warns as the segmenter does.

    Returns:
        ``labels (1, *S)`` int32; if asked for, ``probabilities (N + 1, *S)`` and ``uncertainty (1, *S)``, float32.
    """
    volume = volume_of(image)
    if isinstance(segmenter, VolumeSegmenter) and segmenter.plan == plan:
        done = segmenter.segment(volume, settings)
    else:
        done = segment_volume(volume, plan, segmenter, settings)
    for text in (*done.warnings, *done.flags):
        warnings.warn(f"{volume.name}: {text}", stacklevel=2)
    arrays = {"labels": done.labels[None].astype(np.int32)}
    if done.probabilities is not None:
        arrays["probabilities"] = done.probabilities.astype(np.float32)
    if done.uncertainty is not None:
        arrays["uncertainty"] = done.uncertainty[None]
    return arrays


def volume_of(image: Any) -> Volume:
    """Return ``image (C, *S)`` as a volume with the name of its file; it has a spacing if it is a MetaTensor."""
    known = isinstance(image, MetaTensor)
    path = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if known else None
    volume = as_volume(image if known else MetaTensor(image))
    return replace(volume, path=Path(path) if isinstance(path, (str, PathLike)) else None, has_spacing=known)


def _decollated(inputs: Tensor) -> list[Tensor]:
    """Split a batch into images with their own affines and file names."""
    if not isinstance(inputs, MetaTensor):
        return list(inputs)
    keys = (MetaKeys.SPACE, "xyzt_units", ImageMetaKey.FILENAME_OR_OBJ)  # the affine is of LPS or RAS coordinates
    kept = {key: inputs.meta[key] for key in keys if key in inputs.meta}  # collating makes them lists
    metas = [{key: one[i] if np.ndim(one) else one for key, one in kept.items()} for i in range(len(inputs))]
    affines = torch.as_tensor(inputs.affine)
    affines = affines if affines.ndim == 3 else affines.expand(len(inputs), *affines.shape)
    scans = zip(inputs.as_tensor(), affines, metas, strict=True)
    return [MetaTensor(image, affine=affine, meta=meta) for image, affine, meta in scans]


def load_network(folder: str | PathLike[str], device: str | None = None) -> VolumeSegmenter:
    """Read the segmenter in ``folder``: a torch module on planned tensors, with its ``plan``.

    Raises:
        InputError: ``folder`` contains no segmenter.
    """
    return load_segmenter(Path(folder), resolve_device(device) if device is not None else None)


def list_images(
    folder: str | PathLike[str],
    channels: int = 1,
    *,
    output_dir: str | PathLike[str] | None = None,
    output_postfix: str = "",
) -> list[dict[str, str | list[str]]]:
    """List every NIfTI image in ``folder`` as ``{"image": path}``; with several channels the value is a list of paths.

    With several channels the files are ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... Warns of files that are ignored.

    Raises:
        InputError: ``folder`` contains no NIfTI image, channels are missing, or a result that ``SaveImage`` writes into
            ``output_dir`` would replace a file.
    """
    found = find_cases([Path(folder)], channels)
    cases = [case for case in found if format_of(case.image_path) == NIFTI]
    ignored = [*labels_without_image(folder), *(case.image_path for case in found if case not in cases)]
    if ignored:
        text = f"{len(ignored)} file(s) ignored, such as {ignored[0]}: named like labels, or not in NIfTI format"
        warnings.warn(text, stacklevel=2)
    if not cases:
        raise InputError(
            f"{folder}: contains no NIfTI image (.nii, .nii.gz)", "for other formats use medfewshot segment"
        )
    for case in cases:
        check_channels(case, channels)
        if output_dir is not None:
            name = create_file_basename(output_postfix, case.image_path, output_dir, separate_folder=False)
            if Path(f"{name}.nii.gz").exists():
                raise InputError(f"{name}.nii.gz: exists already and would be replaced", "give another output_dir")
    return [
        {"image": str(case.image_path) if channels == 1 else [str(path) for path in case.image_paths]} for case in cases
    ]
