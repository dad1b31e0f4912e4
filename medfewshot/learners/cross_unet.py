"""The network of UniverSeg in 2D and 3D: a U-Net over a query and its labelled supports.

At every level, a cross-convolution combines each support with the query and updates both. As in the paper: the
cross-block, max pooling, one binary mask at a time. Different here: instance normalisation, so that a short training is
enough; channels that double from level to level; a stem that folds voxel blocks into channels, as in
:class:`~medfewshot.backbones.UNet`.

References:
    Butoi et al. 2023, "UniverSeg: Universal Medical Image Segmentation".
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
"""Channels double from level to level, up to this multiple of the first level's width."""


class CrossConv(nn.Module):
    """A convolution over every pair of query and support.

    A convolution of two concatenated maps is the sum of one convolution of each. So the query's is computed once, not K
    times.

    Args:
        dims: 2 or 3.
        query: Channels of the query.
        support: Channels of each support.
        outputs: Channels of the result.
    """

    def __init__(self, dims: int, query: int, support: int, outputs: int) -> None:
        super().__init__()
        self.query = convolution(dims)(query, outputs, 3, padding=1)
        self.support = convolution(dims)(support, outputs, 3, padding=1, bias=False)

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        """Combine the query ``(B, C, *S)`` with each of K supports ``(B, K, D, *S)``; ``(B, K, outputs, *S)``."""
        return self.query(query)[:, None] + per_support(self.support, support)


class CrossBlock(nn.Module):
    """Updates query and supports from each other.

    ``z_k = act(cross(u, v_k))``, ``u' = act(conv(mean_k z_k))``, ``v_k' = act(conv(z_k))``. The order of the supports
    does not matter, and their number is free.

    Args:
        dims: 2 or 3.
        query: Channels of the query.
        support: Channels of each support.
        outputs: Channels of both results.
        update_support: Whether later blocks need the supports; otherwise ``z`` is returned for them.
    """

    def __init__(self, dims: int, query: int, support: int, outputs: int, update_support: bool = True) -> None:
        super().__init__()
        self.cross = CrossConv(dims, query, support, outputs)
        self.norm = InstanceNorm(outputs)
        self.to_query = _conv_norm(dims, outputs)
        self.to_support = _conv_norm(dims, outputs) if update_support else None

    def forward(self, query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        """Update the query ``(B, C, *S)`` and the supports ``(B, K, D, *S)``; both get ``outputs`` channels."""
        z = _act(per_support(self.norm, self.cross(query, support)))
        updated = z if self.to_support is None else _act(per_support(self.to_support, z))
        return _act(self.to_query(reduce(z, "b k ... -> b ...", "mean"))), updated


class CrossUNet(nn.Module):
    """Segments a query by support images and their binary masks, with one logit per voxel.

    Shapes ``*S`` are free: they are padded and cropped inside. No weight depends on the pooling, so :meth:`set_strides`
    adapts a trained network to every anisotropy.

    Args:
        dims: 2 or 3.
        in_channels: Channels of every image.
        width: Channels of the finest level.
        strides: One step per axis for each level: first the fold of the stems, then the pooling before each level.
        features: None. Files of version 0.2.0.dev0 may name a feature network here.

    Raises:
        InputError: A file names a feature network.
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
            self.decoder.append(CrossBlock(dims, narrow + wide, narrow + wide, narrow, update_support=level > 0))
        self.head = convolution(dims)(width, block, 1)

    def set_strides(self, strides: Sequence[Sequence[int]]) -> None:
        """Change the pooling in place. Fold, number of levels and weights stay.

        Raises:
            ValueError: The fold or the number of levels differs.
        """
        if tuple(strides[0]) != self.fold or len(strides) != len(self.config["strides"]):
            raise ValueError("only the pooling can change: the fold and the number of levels are in the weights")
        self.config["strides"] = [list(stride) for stride in strides]
        self.multiple = tuple(prod(axis) for axis in zip(*strides, strict=True))
        self.pools = [tuple(stride) for stride in strides[1:]]

    def forward(self, query: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """Compute logits of the masked structure in the query.

        Args:
            query: ``(B, C, *S)``.
            images: Support images ``(B, K, C, *S)``.
            masks: Masks of the structure in the supports ``(B, K, *S)``, in [0, 1].

        Returns:
            Logits ``(B, *S)``.
        """
        size = query.shape[2:]
        u = self.stem_query(self._folded(query))
        v = torch.cat([images, masks[:, :, None].to(images)], dim=2)
        v = per_support(lambda x: self.stem_support(self._folded(x)), v)
        skips = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                u, v = self._pooled(u, level), per_support(lambda x, at=level: self._pooled(x, at), v)
            u, v = block(u, v)
            skips.append((u, v))
        skips.pop()
        for block in reversed(self.decoder):
            skip_u, skip_v = skips.pop()
            u = torch.cat([_enlarged(u, skip_u.shape[2:]), skip_u], dim=1)
            v = torch.cat([per_support(lambda x, to=skip_u.shape[2:]: _enlarged(x, to), v), skip_v], dim=2)
            u, v = block(u, v)
        return cut_to(unfold_blocks(self.head(u), self.fold), size)[:, 0]

    def _folded(self, x: Tensor) -> Tensor:
        memory = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return fold_blocks(pad_to_multiple(x, self.multiple), self.fold).contiguous(memory_format=memory)

    def _pooled(self, x: Tensor, level: int) -> Tensor:
        stride = self.pools[level - 1]
        return F.max_pool2d(x, stride) if x.ndim == 4 else F.max_pool3d(x, stride)


def per_support(function: Any, x: Tensor) -> Tensor:
    """Apply ``function`` to every support of ``x (B, K, C, *S)``; returns ``(B, K, ...)``."""
    return rearrange(function(rearrange(x, "b k ... -> (b k) ...")), "(b k) ... -> b k ...", b=x.shape[0])


def _conv_norm(dims: int, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution(dims)(channels, channels, 3, padding=1, bias=False), InstanceNorm(channels))


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


def _enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="nearest")
