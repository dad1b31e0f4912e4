"""Few-shot learners, one algorithm per file. A new file ends with a ``LearnerSpec`` and is listed below."""

from __future__ import annotations

from medfewshot.learners import atlas, finetune, hybrid, in_context, maml, protomaml, prototype, ridge
from medfewshot.learners.atlas import Atlas
from medfewshot.learners.base import LEARNERS, Learner, LearnerSpec, MetaLearner, Segmenter, TrainedOptions, register
from medfewshot.learners.factory import learner_for, make_learner, resolve_auto, start_of
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.hybrid import Hybrid
from medfewshot.learners.in_context import InContext
from medfewshot.learners.maml import Maml
from medfewshot.learners.protomaml import ProtoMaml
from medfewshot.learners.prototype import Prototype
from medfewshot.learners.ridge import Ridge
from medfewshot.learners.weights import (
    Start,
    build_start,
    check_adaptation,
    find_weights,
    load_start,
    read_seen,
    save_start,
    trainable_spec,
)

for _module in (hybrid, finetune, atlas, prototype, ridge, in_context, maml, protomaml):
    register(_module.SPEC)

__all__ = [
    "LEARNERS", "Atlas", "Finetune", "Hybrid", "InContext", "Learner", "LearnerSpec", "Maml", "MetaLearner",
    "ProtoMaml", "Prototype", "Ridge", "Segmenter", "Start", "TrainedOptions", "build_start", "check_adaptation",
    "find_weights", "load_start", "make_learner", "read_seen", "register", "resolve_auto", "save_start", "start_of",
    "learner_for", "trainable_spec",
]  # fmt: skip
