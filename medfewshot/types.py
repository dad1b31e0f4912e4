"""The data types that every room shares. The contracts of learners and segmenters are in ``learners/base.py``.

``*S`` below is the spatial shape, ``(X, Y)`` or ``(X, Y, Z)``: array axis ``i`` is voxel axis ``i`` of the file, as
nibabel orders it. World coordinates are RAS+ millimetres everywhere. This module imports neither torch nor MONAI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medfewshot.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """An image or a label map with its geometry.

    ``data``: ``(C, *S)`` array; float32 for images, an integer dtype (C = 1) for labels.
    ``affine``: ``(4, 4)`` float64, voxel index -> RAS mm. A 2D image has a third axis of length 1 in its affine only.
    ``header``: what the writer needs to give the same grid and format back; opaque outside ``io``.
    ``modality``: ``"CT"``, ``"MR"``, ... where the file itself says so (DICOM), else None.
    ``has_spacing``: False if the file states no millimetres (a photograph, a PNG); the affine then counts pixels.
    ``names``: of a label map whose file names its structures (3D Slicer): label value -> name.
    ``colours``: of such a label map: label value -> red, green and blue, each from 0 to 1.
    """

    data: np.ndarray
    affine: np.ndarray
    header: Any = None
    path: Path | None = None
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    has_spacing: bool = True
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Size of the spatial axes ``*S`` in voxels."""
        return tuple(int(n) for n in self.data.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.data.ndim - 1

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel edge lengths in mm, derived from the affine, one per spatial axis."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return tuple(float(length) for length in lengths[: self.spatial_dims])

    @property
    def name(self) -> str:
        """Path of the file for messages; ``array`` if there is none."""
        return str(self.path) if self.path is not None else "array"


@dataclass(frozen=True)
class Case:
    """One scan of one subject, as paths only. ``image_paths`` holds one path per channel (usually one)."""

    case_id: str
    subject_id: str
    modality: str | None
    image_paths: tuple[Path, ...]
    label_path: Path | None = None

    @property
    def image_path(self) -> Path:
        """Path of the first channel."""
        return self.image_paths[0]


@dataclass(frozen=True)
class Normalization:
    """How intensities become network input.

    ``window``: clip to ``[low, high]`` (CT, in HU), then ``(x - mean) / std``; the four numbers come from the support.
    ``zscore``: per volume: clip to its own 0.5-99.5 percentiles, then zero mean, unit variance over the body.
    """

    kind: Literal["window", "zscore"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What is derived from the support alone, and written beside every result.

    ``axes``: 3x3 direction cosines (columns) of the support's frame; queries are brought to the nearest of the 48 axis
    orders and flips. ``spacing_mm``: target spacing per planned axis. ``patch_size``: voxels of the planned grid.
    ``labels``: file label value -> name; channel ``i + 1`` of the logits is the i-th key, channel 0 is background.
    ``keep_largest``: label values whose supports all consist of one connected component.
    """

    spatial_dims: int
    channels: int
    axes: tuple[tuple[float, float, float], ...]
    spacing_mm: tuple[float, ...]
    patch_size: tuple[int, ...]
    normalization: tuple[Normalization, ...]
    labels: Mapping[int, str]
    keep_largest: tuple[int, ...] = ()
    median_shape: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values of classes 1..N, in the order of the logit channels."""
        return tuple(self.labels)

    @property
    def classes(self) -> int:
        """Number of logit channels, background included."""
        return len(self.labels) + 1


@dataclass(frozen=True)
class Support:
    """K labelled examples on the plan's grid; shapes may differ from example to example.

    ``images``: K float32 tensors ``(C, *S)``. ``labels``: K int64 tensors ``(*S)`` with 0 = background, 1..N = classes,
    :data:`IGNORED` = not annotated.
    ``classes``: N + 1. ``patch_size``: the plan's window, or None for "the whole field of view".
    """

    images: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    classes: int
    patch_size: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None

    @property
    def shots(self) -> int:
        """Number of labelled examples K."""
        return len(self.images)

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.images[0].ndim - 1

    @property
    def channels(self) -> int:
        """Number of image channels C."""
        return int(self.images[0].shape[0])

    @property
    def window(self) -> tuple[int, ...]:
        """The patch size; without one, a box that holds every support."""
        shapes = (image.shape[1:] for image in self.images)
        return self.patch_size or tuple(max(sizes) for sizes in zip(*shapes, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing in mm per axis; 1 mm if it is unknown."""
        return self.spacing_mm or (1.0,) * self.spatial_dims

    def to(self, device: torch.device) -> Support:
        """The same support with its tensors on ``device``."""
        images, labels = (tuple(one.to(device) for one in these) for these in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def of(self, examples: Sequence[int]) -> Support:
        """The support that consists of these examples."""
        images, labels = (tuple(these[number] for number in examples) for these in (self.images, self.labels))
        return replace(self, images=images, labels=labels)


@dataclass(frozen=True)
class Query:
    """``image (B, C, *S)`` float32 on the plan's grid; ``label (B, *S)`` int64 or None where it is not known."""

    image: Tensor
    label: Tensor | None = None


@dataclass(frozen=True)
class Episode:
    """A task with its support and query, from disjoint subjects."""

    support: Support
    query: Query
    task: str = ""
    support_subjects: tuple[str, ...] = ()
    query_subjects: tuple[str, ...] = ()

    @property
    def truth(self) -> Tensor:
        """The query's label ``(B, *S)``.

        Raises:
            InputError: The query has none, so there is nothing to learn from.
        """
        if self.query.label is None:
            raise InputError(f"episode {self.task}: its query has no label", "meta-training needs one")
        return self.query.label


IGNORED = -1
"""Label of voxels that nobody annotated: they are neither background nor a structure, and nothing learns from them."""

WHOLE_VALUES = 60_000_000
"""Planned probabilities (classes x voxels) up to which the whole field of view is taken: memory holds several such
arrays."""

Colour = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""

Doubt = tuple[int, str]
"""The class index that is in doubt and a phrase that says why, to stand behind the structure's name and "is"."""


class Cancelled(BaseException):
    """The user cancelled the work: see :class:`Progress`. No ``except Exception`` takes it for a failure."""


@dataclass(frozen=True)
class Event:
    """One step of long work: ``done`` of ``total`` in a named stage, with a text for people."""

    stage: str
    done: float
    total: float
    text: str = ""


@dataclass(frozen=True)
class Progress:
    """Where long work reports events, and where it learns that the user wants it to stop. Silent by default.

    Args:
        report: Receives every :class:`Event`.
        cancelled: Returns True if the work is to stop; asked at every ``update``.
        stage: Name of the stage in the events, e.g. ``"training"``.
    """

    report: Callable[[Event], None] = field(default=lambda event: None)
    cancelled: Callable[[], bool] = field(default=lambda: False)
    stage: str = ""

    def update(self, done: float, total: float, text: str = "") -> None:
        """Report ``done`` of ``total``.

        Raises:
            Cancelled: The user wants the work to stop.
        """
        if self.cancelled():
            raise Cancelled
        self.report(Event(self.stage, done, total, text))

    def at(self, stage: str) -> Progress:
        """The same with the name of a stage."""
        return replace(self, stage=stage)

    def part(self, number: int, total: int) -> Progress:
        """Progress of the part with index ``number`` of ``total`` parts; its own total counts as one."""

        def report(event: Event) -> None:
            share = event.done / event.total if event.total else 0.0
            self.report(replace(event, done=number + share, total=total))

        return replace(self, report=report)
