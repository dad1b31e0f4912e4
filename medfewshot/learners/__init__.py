"""Few-shot learners, one algorithm a file. To add one, write a file that ends with a ``LearnerSpec``; list it below."""

from __future__ import annotations

from medfewshot.learners import atlas, finetune, hybrid, in_context, maml, protomaml, prototype, ridge
from medfewshot.learners.atlas import Atlas, AtlasSegmenter
from medfewshot.learners.base import (
    LEARNERS,
    FunctionSegmenter,
    Learner,
    LearnerSpec,
    MetaLearner,
    Segmenter,
    TrainedOptions,
    register,
)
from medfewshot.learners.choose import choose, make_learner
from medfewshot.learners.finetune import Finetune, NetworkSegmenter
from medfewshot.learners.hybrid import Hybrid, HybridSegmenter
from medfewshot.learners.in_context import InContext, InContextSegmenter
from medfewshot.learners.inner_loop import MamlStart
from medfewshot.learners.maml import Maml
from medfewshot.learners.protomaml import ProtoMaml
from medfewshot.learners.prototype import Prototype, PrototypeSegmenter
from medfewshot.learners.ridge import Ridge, RidgeSegmenter
from medfewshot.learners.starts import (
    Start,
    adaptation_of,
    build_start,
    build_start_backbone,
    check_adaptation,
    find_weights,
    load_start,
    read_seen,
    save_start,
    trainable,
)

for _module in (hybrid, finetune, atlas, prototype, ridge, in_context, maml, protomaml):
    register(_module.SPEC)

__all__ = [
    "LEARNERS",
    "Atlas",
    "AtlasSegmenter",
    "Finetune",
    "FunctionSegmenter",
    "Hybrid",
    "HybridSegmenter",
    "InContext",
    "InContextSegmenter",
    "Learner",
    "LearnerSpec",
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
    "TrainedOptions",
    "adaptation_of",
    "build_start",
    "build_start_backbone",
    "check_adaptation",
    "choose",
    "find_weights",
    "load_start",
    "make_learner",
    "read_seen",
    "register",
    "save_start",
    "trainable",
]
