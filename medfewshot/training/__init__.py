"""Meta-training: one loop for every learner that has a ``start`` and a ``meta_loss``."""

from medfewshot.training.loop import Trainer
from medfewshot.training.settings import BackboneSettings, TrainSettings

__all__ = ["BackboneSettings", "TrainSettings", "Trainer"]
