"""Segmenters: plain callables that can also be written down as tensors and JSON data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet
from medfewshot.devices import autocast

Network = TypeVar("Network", bound=nn.Module)


class NetworkSegmenter:
    """A network and nothing else: ``(B, C, *S)`` image -> ``(B, N + 1, *S)`` float32 logits.

    ``record`` holds what adaptation reports (steps, seconds, loss, restarts); it plays no part in the result.
    """

    kind = "network"
    whole_volume = False

    def __init__(self, network: UNet, record: Mapping[str, Any] | None = None) -> None:
        self.network = network.eval()
        self.record = dict(record or {})

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> NetworkSegmenter:
        return NetworkSegmenter(copy.deepcopy(self.network).to(device), self.record)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        with autocast(self.device):
            # One sample at a time keeps memory flat and takes the fast normalisation kernel.
            return torch.cat([self.network(one[None].to(self.device)).float() for one in image])

    def config(self) -> dict[str, Any]:
        return {"network": self.network.config}

    def tensors(self) -> dict[str, Tensor]:
        return {name: value.contiguous() for name, value in self.network.state_dict().items()}

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> NetworkSegmenter:
        network = to_channels_last(UNet(**config["network"]))
        network.load_state_dict(dict(tensors))
        return cls(network)


def to_channels_last(network: Network) -> Network:
    """Channels-last weights: what CPU and GPU convolutions are fastest with. ``network.config`` names its ``dims``."""
    dims = network.config["dims"]  # type: ignore[index]
    return network.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """Build with a fixed seed and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def between(start: UNet, end: UNet, share: float) -> UNet:
    """The network ``start + share (end - start)``, weight by weight; both have the same layers."""
    network, origin = copy.deepcopy(end), start.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(origin[name], 1 - share)
    return network
