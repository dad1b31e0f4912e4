"""Few-shot learners: one algorithm a file. To add one, write the file and name it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medfewshot.learners.finetune import Finetune
from medfewshot.learners.inner import MamlStart
from medfewshot.learners.maml import Maml
from medfewshot.learners.protomaml import ProtoMaml
from medfewshot.learners.prototype import Prototype, PrototypeSegmenter
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.types import Learner

LEARNERS: dict[str, Callable[..., Learner]] = {
    "finetune": Finetune,
    "prototype": Prototype,
    "maml": Maml,
    "protomaml": ProtoMaml,
}

SEGMENTERS: dict[str, Any] = {
    NetworkSegmenter.kind: NetworkSegmenter,
    PrototypeSegmenter.kind: PrototypeSegmenter,
}
"""``kind`` -> class with ``restore(config, tensors)``: what a saved segmenter is read back with."""

__all__ = [
    "LEARNERS",
    "SEGMENTERS",
    "Finetune",
    "Maml",
    "MamlStart",
    "NetworkSegmenter",
    "ProtoMaml",
    "Prototype",
    "PrototypeSegmenter",
]
