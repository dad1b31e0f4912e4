"""Labelled volumes in memory, and the tasks that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medfewshot.errors import InputError


@dataclass(frozen=True, eq=False)
class Example:
    """One labelled scan or slice on its plan's grid.

    Args:
        subject_id: Support and query of an episode never share a subject.
        image: ``(C, *S)``; an intensity is ``low + step * value``, so that a packed image may be uint8.
        label: ``(*S)`` integer from 0, with the label values of the file; 0 is background.
        spacing_mm: Voxel size; None if unknown.

    Raises:
        InputError: Image and label differ in shape, or a label is negative.
    """

    subject_id: str
    image: Tensor = field(repr=False)
    label: Tensor = field(repr=False)
    spacing_mm: tuple[float, ...] | None = None
    low: float = 0.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.image.shape[1:] != self.label.shape:
            shapes = f"image {tuple(self.image.shape)}, label {tuple(self.label.shape)}"
            raise InputError(f"{self.subject_id}: {shapes}", "give the image the shape (C, *S) and the label (*S)")
        if self.label.dtype != torch.uint8 and bool((self.label < 0).any()):
            raise InputError(f"{self.subject_id}: has negative labels", "annotate it completely; 0 is background")

    def read(self, box: tuple[slice, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return image ``(C, *box)`` and label ``(1, *box)`` of a part, float32, on ``device``."""
        image = self.image[(slice(None), *box)].to(device).float() * self.step + self.low
        return image, self.label[box].to(device).float()[None]


@dataclass(frozen=True, eq=False)
class LabelledTask:
    """Examples with the same structures, and the labels that may become classes.

    Args:
        name: How episodes name the task.
        examples: Examples with one spacing; others raise InputError.
        labels: Label values that may become classes, e.g. the base labels; None allows all. Other values are
            background.
        validation_labels: Label values that become classes in validation only.
        names: Label value -> name.
        patches: Patch sizes of this task's episodes, in voxels; None uses those of the settings.
        weight: How often the task is drawn, relative to the others.
        tissues: Label value -> tissue. If given, images are painted from the labels: tissues differ in brightness.
    """

    name: str
    examples: tuple[Example, ...] = field(repr=False)
    labels: tuple[int, ...] | None = None
    validation_labels: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    patches: tuple[tuple[int, ...], ...] | None = None
    weight: float = 1.0
    tissues: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        spacings = [example.spacing_mm or (0.0,) for example in self.examples]
        if any(len(mm) != len(spacings[0]) or not np.allclose(mm, spacings[0], rtol=0.01) for mm in spacings):
            raise InputError(f"{self.name}: its examples differ in spacing", "bring them to one grid")
