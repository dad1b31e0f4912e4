"""Few-shot learners: one algorithm a file. To add one, write the file and name it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medfewshot.learners.finetune import Finetune
from medfewshot.learners.prototype import Prototype, PrototypeSegmenter
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.learners.starts import STARTS, Start, build_start, find_weights, load_start, read_seen, save_start
from medfewshot.types import Learner

LEARNERS: dict[str, Callable[..., Learner]] = {
    "finetune": Finetune,
    "prototype": Prototype,
}

SEGMENTERS: dict[str, Any] = {
    NetworkSegmenter.kind: NetworkSegmenter,
    PrototypeSegmenter.kind: PrototypeSegmenter,
}
"""``kind`` -> class with ``restore(config, tensors)``: what a saved segmenter is read back with."""

__all__ = [
    "LEARNERS",
    "SEGMENTERS",
    "STARTS",
    "Finetune",
    "NetworkSegmenter",
    "Prototype",
    "PrototypeSegmenter",
    "Start",
    "build_start",
    "find_weights",
    "load_start",
    "read_seen",
    "save_start",
]
