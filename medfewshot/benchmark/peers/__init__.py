"""Learners of other packages, for comparison in benchmarks only: a benchmark file names them, ``--learner`` does not.

One peer a file, behind the contract of every learner; to add one, name its learner and its segmenter here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medfewshot.benchmark.peers.monai_unet import MonaiSegmenter, MonaiUnet
from medfewshot.learners import LEARNERS, SEGMENTERS
from medfewshot.types import Learner

__all__ = ["PEERS", "MonaiSegmenter", "MonaiUnet", "known_learners", "known_segmenters"]

PEERS: dict[str, Callable[..., Learner]] = {"monai-unet": MonaiUnet}


def known_learners() -> dict[str, Callable[..., Learner]]:
    """All that a benchmark file may name: name -> learner."""
    return {**LEARNERS, **PEERS}


def known_segmenters() -> dict[str, Any]:
    """What these learners give: kind -> class with ``restore(config, tensors)``."""
    return {**SEGMENTERS, MonaiSegmenter.kind: MonaiSegmenter}
