"""Learners of other packages, for comparison in benchmarks only: a benchmark file names them, ``--learner`` does not.

One peer a file, behind the contract of every learner; to add one, name its learner and its segmenter here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medfewshot.benchmark.peers.monai_unet import MonaiSegmenter, MonaiUnet
from medfewshot.benchmark.peers.nnunet import NnUnet, NnUnetSegmenter
from medfewshot.learners import LEARNERS, SEGMENTERS
from medfewshot.learners.base import Learner

__all__ = [
    "PEERS",
    "SCAN_PEERS",
    "MonaiSegmenter",
    "MonaiUnet",
    "NnUnet",
    "NnUnetSegmenter",
    "known_learners",
    "known_segmenters",
]

PEERS: dict[str, Callable[..., Learner]] = {"monai-unet": MonaiUnet, "nnunet": NnUnet}
SCAN_PEERS = ("nnunet",)
"""Those that take scans as they are on disk, and plan for themselves: they have ``adapt_scans``."""


def known_learners() -> dict[str, Callable[..., Learner]]:
    """All that a benchmark file may name: name -> learner."""
    return {**LEARNERS, **PEERS}


def known_segmenters() -> dict[str, Any]:
    """What these learners give: kind -> subclass of Segmenter."""
    return {**SEGMENTERS, MonaiSegmenter.kind: MonaiSegmenter}
