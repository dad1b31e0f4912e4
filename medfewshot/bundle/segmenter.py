"""A segmenter with its plan, which segments volumes on their own grid: save it to a folder and load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medfewshot.bundle.monai_files import TEMPLATES, write_monai_files
from medfewshot.errors import InputError
from medfewshot.inference import LabelTracker, Segmentation, segment_volume
from medfewshot.io import strict_json, write_text
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors
from medfewshot.learners import LEARNERS, LearnerSpec, Segmenter
from medfewshot.learners.base import OVERLAP
from medfewshot.planning import in_plan_dims, plan_from_dict, plan_to_dict, voxel_for_voxel
from medfewshot.quality import image_flags, reasons_to_review, size_flags
from medfewshot.settings import InferenceSettings
from medfewshot.types import Plan, Progress, UncertainStructure, Volume

FORMAT_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
DESCRIPTION = "segmenter.json"
WEIGHTS = "weights.safetensors"


class VolumeSegmenter(Segmenter):
    """A plan and the segmenter adapted on it, to segment a volume on its own grid.

    As a torch module it maps planned tensors ``(B, C, *S)`` to logits ``(B, N + 1, *S)``.

    Args:
        plan: How a volume becomes a planned tensor.
        segmenter: The segmenter of planned tensors.
        record: Plain data about the adaptation: supports, settings, seconds, warnings.
    """

    def __init__(self, plan: Plan, segmenter: Segmenter, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(record)
        self.plan, self.segmenter = plan, segmenter
        self.whole_volume, self.keeps_supports = segmenter.whole_volume, segmenter.keeps_supports

    @property
    def channels(self) -> int:
        """Number of image channels C."""
        return self.plan.channels

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice on the logit scale; see :attr:`Segmenter.calibration`."""
        return self.segmenter.calibration

    @property
    def windowed(self) -> Segmenter | None:
        """The part that works in windows; see :attr:`Segmenter.windowed`."""
        return self.segmenter.windowed

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits ``(B, N + 1, *S)`` of images ``(B, C, *S)`` on the plan's grid."""
        logits: Tensor = self.segmenter(image)
        return logits

    def examine(self, image: Tensor, *, overlap: float = OVERLAP) -> tuple[Tensor, Sequence[UncertainStructure]]:
        """Compute logits of a whole volume and list uncertain structures; see :meth:`Segmenter.examine`."""
        return self.segmenter.examine(image, overlap=overlap)

    def segment(
        self,
        volume: Volume,
        settings: InferenceSettings | None = None,
        progress: Progress | None = None,
        *,
        tracker: LabelTracker | None = None,
    ) -> Segmentation:
        """Segment ``volume (C, *S)`` on its original grid.

        Args:
            volume: The image.
            settings: What to compute besides the labels.
            progress: Receives one event per slab; may cancel.
            tracker: Labels of another frame of the same film, which vote here too.

        Returns:
            Labels ``(*S)`` with the supports' label values, and flags: differences from the supports and uncertain
            structures.

        Raises:
            InputError: The volume has other dimensions or channels than the supports.
        """
        profile = self.record.get("profile") or {}
        volume, warnings = voxel_for_voxel(in_plan_dims(volume, self.plan), self.plan, profile)
        result = segment_volume(volume, self.plan, self.segmenter, settings, progress=progress, tracker=tracker)
        scan = image_flags(volume, self.plan, profile)
        sizes = size_flags(result.voxels, volume, self.plan, profile)
        return replace(
            result,
            flags=(*(flag.text for flag in scan), *result.flags, *(flag.text for flag in sizes)),
            review=reasons_to_review(result.voxels, result.predicted_dice, result.doubted, (*sizes, *scan)),
            warnings=(*warnings, *result.warnings),
        )

    def save(self, folder: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the segmenter to ``folder``, in place of an earlier one.

        At no moment is a description beside weights of another segmenter.

        Args:
            folder: Where to write.
            overwrite: Replace files that no segmenter wrote too.

        Raises:
            InputError: This kind of segmenter cannot be saved, or it would replace such a file.
        """
        segmenter = self.segmenter
        if not segmenter.kind:
            raise InputError(f"{type(segmenter).__name__}: this kind of segmenter cannot be saved")
        folder = Path(folder)
        if not overwrite and not (folder / DESCRIPTION).exists():
            check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, segmenter.state_dict(), description=folder / DESCRIPTION)
        description = {
            "format_version": FORMAT_VERSION,
            "kind": segmenter.kind,
            "config": segmenter.config(),
            "plan": plan_to_dict(self.plan),
            "record": dict(self.record),
        }
        write_monai_files(folder, self.plan, self.record)
        write_text(folder / DESCRIPTION, strict_json(description))


def check_free(folder: Path) -> None:
    """Check that saving a segmenter in ``folder`` replaces no file."""
    if (folder / DESCRIPTION).exists():
        raise InputError(f"{folder}: already contains a segmenter", "replace it", setting="overwrite")
    for name in (WEIGHTS, *TEMPLATES):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: exists already, in a folder that contains no segmenter",
                "give another folder or replace it",
                setting=("output", "overwrite"),
            )


def load_segmenter(
    folder: str | PathLike[str], device: torch.device | None = None, learners: Mapping[str, LearnerSpec] = LEARNERS
) -> VolumeSegmenter:
    """Read what :meth:`VolumeSegmenter.save` wrote.

    Args:
        folder: The saved segmenter.
        device: Device of its tensors; None for the CPU.
        learners: Learners whose segmenters can be read.

    Returns:
        The segmenter.

    Raises:
        InputError: The folder contains no segmenter, or it is damaged or of an unknown version.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(f"{folder}: is no segmenter (it has no {DESCRIPTION})", "make one with medfewshot adapt")
    with refuse_damage(f"{folder}: the segmenter is damaged", "make it again with medfewshot adapt"):
        description = json.loads(path.read_text(encoding="utf-8"))
        if (version := description["format_version"]) not in READABLE_VERSIONS:
            problem = f"{path}: has format version {version}, this program reads {READABLE_VERSIONS}"
            raise InputError(problem, "make it again with medfewshot adapt")
        tensors = read_tensors(folder / WEIGHTS)[0]
        kinds = {spec.segmenter.kind: spec.segmenter for spec in learners.values() if spec.segmenter is not None}
        segmenter = kinds[description["kind"]].from_config(description["config"])
        segmenter.load_state_dict(tensors)
        plan = plan_from_dict(description["plan"])
    if device is not None:
        segmenter = segmenter.to(device)
    return VolumeSegmenter(plan, segmenter, description.get("record", {}))
