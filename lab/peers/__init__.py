"""Learners of other packages, for comparison. One peer a file, behind the contract of every learner.

To add one, name its learner and its segmenter here. ``python -m lab.benchmark`` knows them; ``--learner`` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.peers.monai_unet import MonaiSegmenter, MonaiUnet
from lab.peers.nnunet import NnUnet
from medfewshot.learners import LEARNERS, SEGMENTERS, Learner

PEERS: dict[str, Callable[..., Learner]] = {"monai-unet": MonaiUnet, "nnunet": NnUnet}
SCAN_PEERS = ("nnunet",)
"""Those that take scans as they are on disk, and plan for themselves: they have ``adapt_scans``."""


def known_learners() -> dict[str, Callable[..., Learner]]:
    """All that a benchmark file of the laboratory may name: name -> learner."""
    return {**LEARNERS, **PEERS}


def known_segmenters() -> dict[str, Any]:
    """What these learners return: kind -> class that reads a saved one."""
    return {**SEGMENTERS, MonaiSegmenter.kind: MonaiSegmenter}
