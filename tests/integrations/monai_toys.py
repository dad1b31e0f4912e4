"""A support and a query as MetaTensors, on an oblique, anisotropic grid."""

from __future__ import annotations

import numpy as np
import torch
import toys
from monai.data import MetaTensor

OBLIQUE = np.array([[0.2, -1.48, 0, 10], [-1.24, -0.24, 0, 20], [0, 0, 2.0, -30], [0, 0, 0, 1]], dtype=float)


def meta_scan(seed: int, affine: np.ndarray = OBLIQUE) -> tuple[MetaTensor, MetaTensor]:
    image, label = toys.make_scan(seed)
    return tuple(MetaTensor(torch.from_numpy(a[None].astype(np.float32)), affine=affine) for a in (image, label))  # type: ignore[return-value]


def support(shots: int = 2) -> list[tuple[MetaTensor, MetaTensor]]:
    return [meta_scan(seed) for seed in range(shots)]
