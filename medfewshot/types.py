"""Data types that all rooms share. The contracts of learners and segmenters are in ``learners/base.py``.

``*S`` below is the spatial shape, ``(X, Y)`` or ``(X, Y, Z)``: array axis ``i`` is voxel axis ``i`` of the file, as
nibabel orders it. World coordinates are RAS+ millimetres. This module imports neither torch nor MONAI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from medfewshot.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """An image or a label map with its geometry.

    Attributes:
        data: ``(C, *S)`` array; float32 for images, an integer dtype (C = 1) for labels.
        affine: ``(4, 4)`` float64, voxel index -> RAS mm. In 2D only the affine has a third axis, of length 1.
        header: What the writer needs to restore grid and format; opaque outside ``io``.
        path: File or folder; None for arrays.
        modality: ``"CT"``, ``"MR"``, ... if the file states it (DICOM), else None.
        warnings: One line each, from reading.
        has_spacing: False if the file states no millimetres (a photograph, a PNG); the affine then counts pixels.
        names: Label value -> name, for a label map whose file names its structures (3D Slicer).
        colours: Label value -> red, green and blue, each from 0 to 1, for such a label map.
        frame: Number of this frame in the time series of the file, from 0; None if the file contains one volume.
        slice_of: Shape ``(X, Y, Z)`` in the file if this 2D image was a volume of one slice; otherwise None.
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
    frame: int | None = None
    slice_of: tuple[int, ...] | None = None

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
        return tuple(np.sqrt((self.affine[:3, : self.spatial_dims] ** 2).sum(axis=0)).tolist())

    @property
    def name(self) -> str:
        """Path of the file, and the frame, for messages; ``array`` if there is no file."""
        name = str(self.path) if self.path is not None else "array"
        return name if self.frame is None else f"{name} frame {self.frame}"


@dataclass(frozen=True)
class Case:
    """One scan of one subject, as paths only.

    Attributes:
        case_id: Name of the scan.
        subject_id: Name of the subject.
        modality: ``"CT"``, ``"MR"``, ... if it is known.
        image_paths: One path per channel (usually one).
        label_path: The label map, if there is one.
        channels: Channels of the image; more than one with a single path: its volumes are the channels.
        frame: Frame of a film that a label map of one volume belongs to, from 0; None if that is not known.
    """

    case_id: str
    subject_id: str
    modality: str | None
    image_paths: tuple[Path, ...]
    label_path: Path | None = None
    channels: int = 1
    frame: int | None = None

    @property
    def image_path(self) -> Path:
        """Path of the first channel."""
        return self.image_paths[0]


@dataclass(frozen=True)
class Normalization:
    """How intensities become network input.

    Attributes:
        kind: ``window``: clip to ``[low, high]`` (CT, in HU), then ``(x - mean) / std``; the four numbers come from the
            support. ``zscore``: per volume, clip to the 0.5 and 99.5 percentiles, then zero mean and unit variance over
            the body.
        low: Lower end of the window.
        high: Upper end of the window.
        mean: Mean of the window.
        std: Standard deviation of the window.
        reason: Why this kind was chosen.
        extremes: Of ``zscore``: values beyond the percentiles stay, because a structure of the support lies there.
    """

    kind: Literal["window", "zscore"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    reason: str = ""
    extremes: bool = False


@dataclass(frozen=True)
class Plan:
    """What is derived from the support alone, and written beside every result.

    Attributes:
        spatial_dims: 2 or 3.
        channels: Number of image channels.
        axes: 3x3 direction cosines (columns) of the support's frame; queries are reoriented to the nearest of the 48
            axis orders and flips.
        spacing_mm: Target spacing per planned axis.
        patch_size: Voxels of a patch on the planned grid.
        normalization: One entry per channel.
        labels: Label value of the file -> name; channel ``i + 1`` of the logits is the i-th key, channel 0 is
            background.
        keep_largest: Label values with a single connected component in all supports.
        median_shape: Median shape of the supports on the planned grid.
        notes: Warnings about the supports.
        ceilings: Label value -> the best Dice that the grid allows, measured on the supports; empty in older plans.
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
    ceilings: Mapping[int, float] = field(default_factory=dict)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values of classes 1..N, in the order of the logit channels."""
        return tuple(self.labels)

    @property
    def classes(self) -> int:
        """Number of logit channels, background included."""
        return len(self.labels) + 1


class Warp(NamedTuple):
    """Deforms an example of a support to the shape of another: maps the voxels ``(D, *P)`` of ``like`` to its own."""

    example: int
    like: int
    points: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Support:
    """K labelled examples on the plan's grid; shapes may differ from example to example.

    Attributes:
        images: K float32 tensors ``(C, *S)``.
        labels: K int64 tensors ``(*S)`` with 0 = background, 1..N = classes.
        classes: N + 1.
        patch_size: Window of the network in voxels; None for the whole field of view.
        spacing_mm: Spacing of the grid; None if unknown.
        derived: Number of last examples that only networks learn from: other frames of a film, to which
            registration carried the labels, or copies with another contrast.
        warps: Ways to deform examples, which training uses to see more shapes.

    Raises:
        InputError: The numbers or the shapes of images and labels differ.
    """

    images: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    classes: int
    patch_size: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    derived: int = 0
    warps: tuple[Warp, ...] = ()

    def __post_init__(self) -> None:
        images, labels = ([tuple(one.shape) for one in these] for these in (self.images, self.labels))
        shapes, axes = [shape[1:] for shape in images], len(self.patch_size or labels[0])
        if shapes != labels or any(len(shape) != axes for shape in shapes):
            given = f"images {images}, labels {labels} and patch size {self.patch_size}"
            raise InputError(f"support: {given} do not fit", "give images (C, *S), labels (*S) and one size per axis")

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
        """The patch size; if there is none, a box that covers every support."""
        shapes = (image.shape[1:] for image in self.images)
        return self.patch_size or tuple(max(sizes) for sizes in zip(*shapes, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing in mm per axis; 1 mm if it is unknown."""
        return self.spacing_mm or (1.0,) * self.spatial_dims

    def to(self, device: torch.device) -> Support:
        """Return the same support with its tensors on ``device``."""
        images, labels = (tuple(one.to(device) for one in these) for these in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def of(self, examples: Sequence[int]) -> Support:
        """Return the support that consists of these examples, without warps. None of them counts as derived."""
        images, labels = (tuple(these[number] for number in examples) for these in (self.images, self.labels))
        return replace(self, images=images, labels=labels, derived=0, warps=())


@dataclass(frozen=True)
class Query:
    """Images to segment, on the plan's grid.

    Attributes:
        image: ``(B, C, *S)`` float32.
        label: ``(B, *S)`` int64; None if unknown.
    """

    image: Tensor
    label: Tensor | None = None


@dataclass(frozen=True)
class Episode:
    """A task with support and query from disjoint subjects, whose names it may have."""

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

MAX_WHOLE_VALUES = 60_000_000
"""Most planned probabilities (classes x voxels) for the whole field of view. Memory needs several such arrays."""

Colour = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""

UncertainStructure = tuple[int, str]
"""Class index of an uncertain structure, and the reason; completes the sentence "<structure> is ..."."""


class Cancelled(BaseException):
    """The user cancelled the work: see :class:`Progress`. It is no ``Exception``, so it is not handled as a failure."""


@dataclass(frozen=True)
class Event:
    """One step of long work: ``done`` of ``total`` of a stage, and a text for people."""

    stage: str
    done: float
    total: float
    text: str = ""


@dataclass(frozen=True)
class Progress:
    """Receives events of long work and can cancel it. Silent by default.

    Args:
        report: Receives every :class:`Event`.
        cancelled: Returns True if the work must stop; called at every ``update``.
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
        """Return the same with the name of a stage."""
        return replace(self, stage=stage)

    def part(self, number: int, total: int) -> Progress:
        """Return the progress of part ``number`` (from 0) of ``total`` parts; the part's own total counts as one."""

        def report(event: Event) -> None:
            share = event.done / event.total if event.total else 0.0
            self.report(replace(event, done=number + share, total=total))

        return replace(self, report=report)
