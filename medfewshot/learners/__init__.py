"""Few-shot learners: one algorithm a file. To add one, write the file and name it here."""

from __future__ import annotations

from collections.abc import Callable

from medfewshot.learners.atlas import Atlas, AtlasSegmenter
from medfewshot.learners.base import Learner, MetaLearner, Segmenter
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.hybrid import Hybrid, HybridSegmenter
from medfewshot.learners.in_context import InContext, InContextSegmenter
from medfewshot.learners.inner import MamlStart
from medfewshot.learners.maml import Maml
from medfewshot.learners.protomaml import ProtoMaml
from medfewshot.learners.prototype import Prototype, PrototypeSegmenter
from medfewshot.learners.ridge import Ridge, RidgeSegmenter
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.learners.starts import (
    STARTS,
    Start,
    build_start,
    build_start_backbone,
    find_weights,
    load_start,
    read_seen,
    save_start,
)

LEARNERS: dict[str, Callable[..., Learner]] = {
    "finetune": Finetune,
    "prototype": Prototype,
    "ridge": Ridge,
    "maml": Maml,
    "protomaml": ProtoMaml,
    "in_context": InContext,
    "atlas": Atlas,
    "hybrid": Hybrid,
}

SEGMENTERS: dict[str, type[Segmenter]] = {
    NetworkSegmenter.kind: NetworkSegmenter,
    PrototypeSegmenter.kind: PrototypeSegmenter,
    RidgeSegmenter.kind: RidgeSegmenter,
    InContextSegmenter.kind: InContextSegmenter,
    AtlasSegmenter.kind: AtlasSegmenter,
    HybridSegmenter.kind: HybridSegmenter,
}
"""``kind`` in a saved segmenter -> the class that reads it."""

__all__ = [
    "LEARNERS",
    "SEGMENTERS",
    "STARTS",
    "Atlas",
    "AtlasSegmenter",
    "Finetune",
    "Hybrid",
    "HybridSegmenter",
    "InContext",
    "InContextSegmenter",
    "Learner",
    "Maml",
    "MamlStart",
    "MetaLearner",
    "NetworkSegmenter",
    "ProtoMaml",
    "Prototype",
    "PrototypeSegmenter",
    "Ridge",
    "RidgeSegmenter",
    "Segmenter",
    "Start",
    "build_start",
    "build_start_backbone",
    "find_weights",
    "load_start",
    "read_seen",
    "save_start",
]
