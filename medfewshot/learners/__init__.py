"""Few-shot learners: one algorithm a file. To add one, write the file and name it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medfewshot.learners.finetune import Finetune
from medfewshot.learners.in_context import InContext, InContextSegmenter
from medfewshot.learners.prototype import Prototype, PrototypeSegmenter
from medfewshot.learners.ridge import Ridge, RidgeSegmenter
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.types import Learner

LEARNERS: dict[str, Callable[..., Learner]] = {
    "finetune": Finetune,
    "prototype": Prototype,
    "ridge": Ridge,
    "in_context": InContext,
}

SEGMENTERS: dict[str, Any] = {
    NetworkSegmenter.kind: NetworkSegmenter,
    PrototypeSegmenter.kind: PrototypeSegmenter,
    RidgeSegmenter.kind: RidgeSegmenter,
    InContextSegmenter.kind: InContextSegmenter,
}
"""``kind`` -> class with ``restore(config, tensors)``: what a saved segmenter is read back with."""

__all__ = [
    "LEARNERS",
    "SEGMENTERS",
    "Finetune",
    "InContext",
    "InContextSegmenter",
    "NetworkSegmenter",
    "Prototype",
    "PrototypeSegmenter",
    "Ridge",
    "RidgeSegmenter",
]
