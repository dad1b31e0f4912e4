"""Training patches of a support: draw their centres and read them with augmentation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.augment import Augmentation, inside, patch_grid, read_at, vary_intensity
from medfewshot.backbones import UNet, choose_strides, to_channels_last
from medfewshot.errors import InputError
from medfewshot.types import IGNORED, Support, Warp

FOREGROUND_FRACTION = 2 / 3
"""Default probability that a patch is centred on a structure."""
WARPED_FRACTION = 0.5
"""Probability that a patch of an example has the shape of another, if the support has warps of it."""
PATCHES_PER_SHOT = 6
"""Patches per support that :meth:`PatchSampler.covering_patches` yields at least."""
MAX_EXTRA_PATCHES = 20
"""Patches per class that :meth:`PatchSampler.covering_patches` adds while a class of the support is missing."""


class PatchSampler:
    """Draws augmented patches. Classes are drawn first, so small structures occur as often as large ones.

    Args:
        support: The supports.
        augmentation: Random changes of the patches.
        generator: Source of random numbers.
    """

    def __init__(self, support: Support, augmentation: Augmentation, generator: torch.Generator) -> None:
        if not all(image.isfinite().all() for image in support.images):
            raise InputError("support: an image contains NaN or infinite values", "replace them")
        if any(int(label.max()) >= support.classes for label in support.labels):
            raise InputError(f"support: a label is above {support.classes - 1}", "give more classes or fewer labels")
        self.support = support
        self.augmentation = augmentation
        self.generator = generator
        self.patch = support.window
        self.spacing = torch.tensor(support.spacing, dtype=torch.float32)
        # Interpolation needs floats: convert once, not for every patch.
        self.labels = [label[None].float() for label in support.labels]
        self.voxels = [
            [(label == index).nonzero().float().cpu() for index in range(1, support.classes)]
            for label in support.labels
        ]
        # Annotated voxels of partly annotated examples; None for all voxels.
        self.known = [
            (label >= 0).nonzero().float().cpu() if bool((label < 0).any()) else None for label in support.labels
        ]

    def sample(self, foreground: float = FOREGROUND_FRACTION) -> tuple[Tensor, Tensor]:
        """Draw one patch.

        Args:
            foreground: Probability that the patch is centred on a structure.

        Returns:
            Image ``(C, *patch)`` float32 and label ``(*patch)`` int64, on the support's device.
        """
        example = self._integer(self.support.shots)
        image, label, warp = self.support.images[example], self.labels[example], self._warp(example)
        like = example if warp is None else warp.like
        centre = self._centre(like, self.labels[like].shape[1:], foreground)
        points = patch_grid(self.patch, centre, self.spacing, self.augmentation, self.generator, image.device)
        points = points if warp is None else warp.points(points)
        patch = vary_intensity(read_at(image, points, "bilinear")[None], self.augmentation, self.generator)[0]
        return patch, read_at(label, points, "nearest")[0].long()

    def batch(self, size: int, foreground: float = FOREGROUND_FRACTION) -> tuple[Tensor, Tensor]:
        """Draw ``size`` patches; images ``(B, C, *patch)`` and labels ``(B, *patch)``."""
        images, labels = zip(*[self.sample(foreground) for _ in range(size)], strict=True)
        return torch.stack(images), torch.stack(labels)

    def covering_patches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a few patches per support, then more, within limits, until every class occurred."""
        missing = set().union(*(set(label.unique().tolist()) for label in self.support.labels)) - {IGNORED}
        planned = PATCHES_PER_SHOT * self.support.shots
        for drawn in range(planned + MAX_EXTRA_PATCHES * self.support.classes):
            if drawn >= planned and not missing:
                return
            image, label = self.sample() if drawn < planned else self.sample(1.0 if missing != {0} else 0.0)
            missing -= set(label.unique().tolist())
            yield image, label

    def _warp(self, example: int) -> Warp | None:
        warps = [warp for warp in self.support.warps if warp.example == example]
        if not warps or float(torch.rand(1, generator=self.generator)) >= WARPED_FRACTION:
            return None
        return warps[self._integer(len(warps))]

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))

    def _centre(self, example: int, shape: torch.Size, foreground: float) -> Tensor:
        size, patch = torch.tensor(shape).float(), torch.tensor(self.patch).float()
        jitter = torch.rand(len(shape), generator=self.generator)
        present = [voxels for voxels in self.voxels[example] if len(voxels)]
        if present and float(torch.rand(1, generator=self.generator)) < foreground:
            voxels = present[self._integer(len(present))]
            centre = voxels[self._integer(len(voxels))] + (jitter - 0.5) * patch * 0.3
        else:
            known = self.known[example]
            centre = jitter * size if known is None else known[self._integer(len(known))]
        return inside(centre, patch, size)


def check_kind(backbone: Any, support: Support, name: str) -> None:
    """Raise InputError if ``dims`` or ``in_channels`` of the network's ``config`` are not those of the supports."""
    made = backbone.config["dims"], backbone.config["in_channels"]
    given = support.spatial_dims, support.channels
    if made != given:
        raise InputError(
            f"learner {name}: its weights are for {made[0]}D images of {made[1]} channel(s), the supports are "
            f"{given[0]}D with {given[1]}",
            "choose other weights or none",
            setting="weights",
        )


def fitted(backbone: Any, support: Support, name: str) -> Any:
    """Copy a network and fit it to the support; if it is agnostic, its axes, its channels and its strides.

    Args:
        backbone: A network whose ``config`` has ``dims`` and ``in_channels``.
        support: The supports.
        name: The learner's name, for the error.

    Raises:
        InputError: The network was made for images of other dimensions, or of other channels than one.
    """
    network = copy.deepcopy(backbone)
    if isinstance(network, UNet) and network.agnostic:
        if network.config["dims"] == 3 and support.spatial_dims == 2:
            network = to_channels_last(network.as_2d())
        if network.config["in_channels"] == 1 < support.channels:
            network = network.with_channels(support.channels)
    check_kind(network, support, name)
    fit_strides(network, support)
    return network


def fit_strides(backbone: nn.Module, support: Support) -> None:
    """Set the strides of an agnostic backbone, in place, for the support's patches; other networks stay as they are."""
    if not isinstance(backbone, UNet) or not backbone.agnostic or backbone.config["classes"]:
        return
    strides = choose_strides(support.window, support.spacing, len(backbone.config["strides"]))
    if strides != backbone.config["strides"]:
        backbone.set_strides(strides)
