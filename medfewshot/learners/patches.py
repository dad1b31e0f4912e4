"""Training patches from a support: where to look, and one warped reading."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from medfewshot.augment import Augmentation, patch_grid, read_at, vary_intensity
from medfewshot.types import Support

FOREGROUND_FRACTION = 2 / 3


def window_of(support: Support) -> tuple[int, ...]:
    """The plan's window; where it has none, a box that holds every support."""
    return support.patch_size or tuple(max(sizes) for sizes in zip(*(i.shape[1:] for i in support.images), strict=True))


def on_device(support: Support, device: torch.device) -> Support:
    """The same support with its tensors on ``device``."""
    return replace(
        support,
        images=tuple(image.to(device) for image in support.images),
        labels=tuple(label.to(device) for label in support.labels),
    )


class PatchSampler:
    """Draws augmented patches; classes are drawn first, so a small structure is seen as often as a large one."""

    def __init__(self, support: Support, augmentation: Augmentation, generator: torch.Generator) -> None:
        self.support = support
        self.augmentation = augmentation
        self.generator = generator
        dims = support.spatial_dims
        self.patch = window_of(support)
        self.spacing = torch.tensor(support.spacing_mm or (1.0,) * dims, dtype=torch.float32)
        # Interpolation wants floats; converted once, not once a patch.
        self.labels = [label[None].float() for label in support.labels]
        self.voxels = [
            [(label == index).nonzero().float().cpu() for index in range(1, support.classes)]
            for label in support.labels
        ]

    def sample(self, foreground: float = FOREGROUND_FRACTION) -> tuple[Tensor, Tensor]:
        """One patch: image ``(C, *patch)`` float32, label ``(*patch)`` int64, on the support's device."""
        example = self._integer(self.support.shots)
        image, label = self.support.images[example], self.labels[example]
        centre = self._centre(example, label.shape[1:], foreground)
        points = patch_grid(self.patch, centre, self.spacing, self.augmentation, self.generator, image.device)
        patch = vary_intensity(read_at(image, points, "bilinear")[None], self.augmentation, self.generator)[0]
        return patch, read_at(label, points, "nearest")[0].long()

    def batch(self, size: int, foreground: float = FOREGROUND_FRACTION) -> tuple[Tensor, Tensor]:
        """``(B, C, *patch)`` and ``(B, *patch)``."""
        images, labels = zip(*[self.sample(foreground) for _ in range(size)], strict=True)
        return torch.stack(images), torch.stack(labels)

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
            centre = jitter * size
        # Patches stay inside the volume; where the volume is smaller, it sits in the middle.
        low = torch.minimum(patch / 2 - 0.5, (size - 1) / 2)
        high = torch.maximum(size - patch / 2 - 0.5, (size - 1) / 2)
        return torch.maximum(torch.minimum(centre, high), low)
