"""Meta-training: one loop for every learner that has a ``start`` and a ``meta_loss``."""

from medfewshot.training.loop import Trainer
from medfewshot.training.run import train
from medfewshot.training.settings import BackboneSettings, TaskSettings, TrainSettings

__all__ = ["BackboneSettings", "TaskSettings", "TrainSettings", "Trainer", "train"]
