"""Tiny episodes, starts and derivatives for learners that are meta-trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from blobs import example, support_of
from torch import Tensor, nn

from medfewshot.backbones import UNet, seeded
from medfewshot.types import Episode, Query

FLAT, SOLID = (12, 10), (10, 8, 6)


def episode_of(
    shape: Sequence[int] = FLAT,
    labels: int = 1,
    shots: int = 1,
    queries: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Episode:
    """Blobs of one shape; the query's are other draws than the support's."""
    support = support_of([shape] * shots, labels=labels, seed=seed)
    images, truths = zip(*[example(shape, labels, seed=seed + 1000 + i) for i in range(queries)], strict=True)
    support = replace(support, images=tuple(image.to(dtype) for image in support.images))
    return Episode(support, Query(torch.stack(images).to(dtype), torch.stack(truths)), "blobs")


def tiny_unet(
    dims: int = 2, classes: int = 2, width: int = 2, fold: Sequence[int] | None = None, levels: int = 2, seed: int = 0
) -> UNet:
    strides = [list(fold or [1] * dims), *[[2] * dims] * (levels - 1)]
    return seeded(lambda: UNet(dims, 1, classes, width, strides), seed)


def gradient_of(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> gradient; only of the parameters that the loss depends on."""
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: value for name, value in zip(named, found, strict=True) if value is not None}


def slope(loss: Callable[[], Tensor], module: nn.Module, direction: dict[str, Tensor], reach: float = 1e-5) -> float:
    """Central difference of ``loss`` along ``direction`` in ``module``'s parameters, which are left as they were."""
    named = dict(module.named_parameters())
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, change in direction.items():
                named[name].add_(change, alpha=sign * reach)
        values.append(float(loss().detach()))
        with torch.no_grad():
            for name, change in direction.items():
                named[name].sub_(change, alpha=sign * reach)
    return (values[0] - values[1]) / (2 * reach)


def make_smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softplus for leaky ReLU: the gradient that adaptation follows jumps where a unit changes its sign, and a finite
    difference across such a jump says nothing."""
    monkeypatch.setattr(F, "leaky_relu", lambda x, slope: F.softplus(x) + slope * x)


def random_direction(gradient: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in gradient.items()
    }


def along(gradient: dict[str, Tensor], direction: dict[str, Tensor]) -> float:
    return float(sum((gradient[name] * direction[name]).sum() for name in direction))
