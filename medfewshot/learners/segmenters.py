"""A segmenter that is one network, and tools for the networks inside of segmenters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet
from medfewshot.devices import autocast
from medfewshot.learners.base import Segmenter

Network = TypeVar("Network", bound=nn.Module)


class NetworkSegmenter(Segmenter):
    """A network alone: ``(B, C, *S)`` image -> ``(B, N + 1, *S)`` float32 logits."""

    kind = "network"

    def __init__(self, network: UNet, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(record)
        self.network = network.eval()
        self.register_load_state_dict_pre_hook(_rename_version_1)

    def predict(self, image: Tensor) -> Tensor:
        with autocast(self.device):
            logits: Tensor = self.network(image).float()
        return logits

    def config(self) -> dict[str, Any]:
        return {"network": self.network.config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NetworkSegmenter:
        return cls(to_channels_last(UNet(**config["network"])))


def _rename_version_1(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Version 1 of the file format saved the network's tensors without ``network.`` in front of their names."""
    if f"{prefix}network.stem.weight" not in state:
        for name in [name for name in state if name.startswith(prefix)]:
            state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)


def to_channels_last(network: Network) -> Network:
    """Channels-last weights: what CPU and GPU convolutions are fastest with. ``network.config`` names its ``dims``."""
    dims = network.config["dims"]  # type: ignore[index]
    return network.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """Build with a fixed seed and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def between(start: UNet, end: UNet, share: float) -> UNet:
    """The network ``start + share (end - start)``, weight by weight; both have the same layers."""
    network, origin = copy.deepcopy(end), start.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(origin[name], 1 - share)
    return network
