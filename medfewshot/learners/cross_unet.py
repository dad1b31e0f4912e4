"""A U-Net over a query and its labelled supports at once: the network of UniverSeg, in 2D and 3D.

Butoi et al. 2023, "UniverSeg: Universal Medical Image Segmentation": at every level each support meets the query in a
cross-convolution, and both sides are renewed from what came of it. Kept from there: the cross-block, max pooling,
one binary mask at a time. Different here: instance normalisation, so that a short training is enough; channels that
double from level to level; and a stem that folds voxel blocks into channels, as :class:`~medfewshot.backbones.UNet`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from medfewshot.backbones import InstanceNorm, convolution, cut_to, fold_blocks, pad_to_multiple, unfold_blocks
from medfewshot.errors import InputError

MAX_WIDTH_FACTOR = 4
"""Channels double from level to level up to this multiple of the first level's width."""


class CrossConv(nn.Module):
    """A convolution over every pair of query and support: ``(B, C, *S)``, ``(B, K, D, *S)`` -> ``(B, K, O, *S)``.

    A convolution of two concatenated maps is the sum of one convolution of each, so the query's is done once, not K
    times.
    """

    def __init__(self, dims: int, query: int, support: int, outputs: int) -> None:
        super().__init__()
        self.query = convolution(dims)(query, outputs, 3, padding=1)
        self.support = convolution(dims)(support, outputs, 3, padding=1, bias=False)

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        """Combine the query ``(B, C, *S)`` with each of K supports ``(B, K, D, *S)``; ``(B, K, outputs, *S)``."""
        return self.query(query)[:, None] + each(self.support, support)


class CrossBlock(nn.Module):
    """Query ``(B, C, *S)`` and supports ``(B, K, D, *S)`` -> both with ``outputs`` channels.

    ``z_k = act(cross(u, v_k))``, ``u' = act(conv(mean_k z_k))``, ``v_k' = act(conv(z_k))``: the order of the supports
    cannot matter, and any number of them will do. Without ``renew`` the supports, needed no more, come back as ``z``.
    """

    def __init__(self, dims: int, query: int, support: int, outputs: int, renew: bool = True) -> None:
        super().__init__()
        self.cross = CrossConv(dims, query, support, outputs)
        self.norm = InstanceNorm(outputs)
        self.to_query = _conv_norm(dims, outputs)
        self.to_support = _conv_norm(dims, outputs) if renew else None

    def forward(self, query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        """Update the query ``(B, C, *S)`` and the supports ``(B, K, D, *S)``."""
        z = _act(each(self.norm, self.cross(query, support)))
        renewed = z if self.to_support is None else _act(each(self.to_support, z))
        return _act(self.to_query(reduce(z, "b k ... -> b ...", "mean"))), renewed


class CrossUNet(nn.Module):
    """Query image, support images and binary masks -> one logit a voxel; any ``*S`` (padded and cropped inside).

    No weight depends on the pooling, so that a trained network serves every anisotropy: :meth:`set_strides`.

    Args:
        dims: 2 or 3.
        in_channels: Channels of every image.
        width: Channels of the finest level.
        strides: For each level one step per axis: first the fold of the stems, then the pooling before each level.
        features: None. Files of version 0.2.0.dev0 may name a feature network here.

    Raises:
        InputError: A file asks for a feature network.
    """

    def __init__(
        self, dims: int, in_channels: int, width: int, strides: Sequence[Sequence[int]], features: None = None
    ) -> None:
        super().__init__()
        if features is not None:
            raise InputError(
                "the network reads the features of another one, which only version 0.2.0.dev0 knew", "adapt again"
            )
        self.config: dict[str, Any] = {
            "dims": dims,
            "in_channels": in_channels,
            "width": width,
            "strides": [list(stride) for stride in strides],
        }
        self.fold = tuple(strides[0])
        self.set_strides(strides)
        block = prod(self.fold)
        widths = [min(width * 2**level, width * MAX_WIDTH_FACTOR) for level in range(len(strides))]
        self.stem_query = convolution(dims)(in_channels * block, width, 3, padding=1)
        self.stem_support = convolution(dims)((in_channels + 1) * block, width, 3, padding=1)
        self.encoder = nn.ModuleList([CrossBlock(dims, width, width, width)])
        for narrow, wide in pairwise(widths):
            self.encoder.append(CrossBlock(dims, narrow, narrow, wide))
        self.decoder = nn.ModuleList()
        for level, (narrow, wide) in enumerate(pairwise(widths)):
            self.decoder.append(CrossBlock(dims, narrow + wide, narrow + wide, narrow, renew=level > 0))
        self.head = convolution(dims)(width, block, 1)

    def set_strides(self, strides: Sequence[Sequence[int]]) -> None:
        """Change the pooling in place; the fold and the number of levels stay. Weights stay as they are."""
        if tuple(strides[0]) != self.fold or len(strides) != len(self.config["strides"]):
            raise ValueError("only the pooling can change: the fold and the number of levels are in the weights")
        self.config["strides"] = [list(stride) for stride in strides]
        self.multiple = tuple(prod(axis) for axis in zip(*strides, strict=True))
        self.pools = [tuple(stride) for stride in strides[1:]]

    def forward(self, query: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """``query (B, C, *S)``, ``images (B, K, C, *S)``, ``masks (B, K, *S)`` in [0, 1] -> logits ``(B, *S)``."""
        size = query.shape[2:]
        u = self.stem_query(self._folded(query))
        v = torch.cat([images, masks[:, :, None].to(images)], dim=2)
        v = each(lambda x: self.stem_support(self._folded(x)), v)
        skips = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                u, v = self._pooled(u, level), each(lambda x, at=level: self._pooled(x, at), v)
            u, v = block(u, v)
            skips.append((u, v))
        skips.pop()
        for block in reversed(self.decoder):
            skip_u, skip_v = skips.pop()
            u = torch.cat([_enlarged(u, skip_u.shape[2:]), skip_u], dim=1)
            v = torch.cat([each(lambda x, to=skip_u.shape[2:]: _enlarged(x, to), v), skip_v], dim=2)
            u, v = block(u, v)
        return cut_to(unfold_blocks(self.head(u), self.fold), size)[:, 0]

    def _folded(self, x: Tensor) -> Tensor:
        memory = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return fold_blocks(pad_to_multiple(x, self.multiple), self.fold).contiguous(memory_format=memory)

    def _pooled(self, x: Tensor, level: int) -> Tensor:
        stride = self.pools[level - 1]
        return F.max_pool2d(x, stride) if x.ndim == 4 else F.max_pool3d(x, stride)


def each(function: Any, x: Tensor) -> Tensor:
    """``function`` of every support: ``(B, K, C, *S)`` -> ``(B, K, ...)``."""
    return rearrange(function(rearrange(x, "b k ... -> (b k) ...")), "(b k) ... -> b k ...", b=x.shape[0])


def _conv_norm(dims: int, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution(dims)(channels, channels, 3, padding=1, bias=False), InstanceNorm(channels))


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


def _enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="nearest")
