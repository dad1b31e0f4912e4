"""MONAI's U-Net (Kerfoot et al. 2018, "Left-ventricle quantification using residual U-Net"), trained on the supports.

What somebody without this package would write: ``monai.networks.nets.UNet`` with residual units, ``DiceCELoss`` and
Adam at a constant rate. Patches, augmentation, steps and the way back to voxels are those of ``finetune``, so that what
differs is the network, the loss and the optimizer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.augment import Augmentation
from medfewshot.backbones import choose_strides, cut_to, pad_to_multiple, seeded
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.base import LearnerSpec, Segmenter
from medfewshot.learners.patches import PatchSampler
from medfewshot.types import Progress, Support

MAX_LEVELS = 4
"""Halvings at most, as in MONAI's own examples."""
LOSS = {"to_onehot_y": True, "softmax": True}
RESIDUAL_UNITS = 2


class MonaiSegmenter(Segmenter):
    """MONAI's network, padded to what its strides need: ``(B, C, *S)`` image -> ``(B, N + 1, *S)`` float32 logits."""

    kind = "monai-unet"

    def __init__(self, network: nn.Module, config: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> None:
        super().__init__(record)
        self.network = network.eval()
        self._config = dict(config)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Compute logits ``(B, N + 1, *S)`` of images ``(B, C, *S)``."""
        with autocast(self.device):
            return padded(self.network, image.to(self.device), self._config["strides"]).float()

    def config(self) -> dict[str, Any]:
        """Return the arguments of MONAI's U-Net."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MonaiSegmenter:
        """Build the network with random weights; ``load_state_dict`` reads the trained ones."""
        return cls(_build(config), config)


@dataclass(frozen=True)
class MonaiUnet:
    """Trains MONAI's U-Net on patches of the supports, from random weights. Deterministic for a seed, like finetune."""

    steps: int = 1000
    """Optimiser steps."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time in seconds; where it binds, training is cut off."""
    batch_size: int = 1
    learning_rate: float = 1e-3
    """Of Adam; constant."""
    width: int = 16
    """Channels of the finest level, doubled at each halving."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> MonaiSegmenter:
        """Train on ``support``; returns a segmenter for windows of ``support.patch_size``.

        Raises InputError for less than one step: a random network segments nothing.
        """
        from monai.losses import DiceCELoss

        if self.steps < 1:
            raise InputError("learner monai-unet: has no weights to begin with; give steps of 1 or more")
        begun = time.perf_counter()
        config = describe_network(support, self.width)
        network = seeded(lambda: _build(config), self.seed).to(self.device).train()
        sampler = PatchSampler(support.to(self.device), self.augmentation, _generator(self.seed))
        loss_of = DiceCELoss(**LOSS)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        losses: list[float] = []
        while len(losses) < self.steps and not self._out_of_time(begun, losses):
            images, labels = sampler.batch(self.batch_size)
            with autocast(self.device):
                logits = padded(network, images, config["strides"])
            loss = loss_of(logits.float(), labels[:, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            self.progress.update(len(losses), self.steps, f"loss {losses[-1]:.2f}")
        record = {
            "learner": "monai-unet",
            "steps": len(losses),
            "stopped_by": "steps" if len(losses) == self.steps else "budget",
            "final_loss": round(sum(losses[-20:]) / len(losses[-20:]), 4),
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": round(time.perf_counter() - begun, 2),
            "network": {"class": "monai.networks.nets.UNet", **config},
            "loss": {"class": "monai.losses.DiceCELoss", **LOSS},
            "optimizer": {"class": "torch.optim.Adam", "lr": self.learning_rate, "batch_size": self.batch_size},
            "versions": {"monai": version("monai"), "torch": version("torch")},
        }
        return MonaiSegmenter(network, config, record)

    def _out_of_time(self, begun: float, losses: list[float]) -> bool:
        """Return a first step is always made."""
        return self.budget_seconds is not None and bool(losses) and time.perf_counter() - begun > self.budget_seconds


def describe_network(support: Support, width: int) -> dict[str, Any]:
    """Arguments of MONAI's U-Net for these patches: axes are halved by the rule of this package's own backbone."""
    dims = support.spatial_dims
    chosen = choose_strides(support.window, support.spacing, MAX_LEVELS + 1)
    strides = [stride for stride in chosen if max(stride) > 1][:MAX_LEVELS] or [[1] * dims]
    return {
        "spatial_dims": dims,
        "in_channels": int(support.images[0].shape[0]),
        "out_channels": support.classes,
        "channels": [width * 2**level for level in range(len(strides) + 1)],
        "strides": strides,
        "num_res_units": RESIDUAL_UNITS,
    }


def padded(network: nn.Module, image: Tensor, strides: list[list[int]]) -> Tensor:
    """Logits ``(B, N + 1, *S)`` of an image ``(B, C, *S)`` of any size, which MONAI's skip connections do not take."""
    multiple = torch.tensor(strides).prod(0).tolist()
    logits: Tensor = network(pad_to_multiple(image, multiple))
    return cut_to(logits, image.shape[2:])


def _build(config: Mapping[str, Any]) -> nn.Module:
    from monai.networks.nets import UNet

    network: nn.Module = UNet(**config)
    return network


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPEC = LearnerSpec(
    name=MonaiSegmenter.kind,
    learner=MonaiUnet,
    summary="MONAI's U-Net trained on the supports",
    segmenter=MonaiSegmenter,
)
