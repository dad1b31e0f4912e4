"""Splits that hold out subjects and classes, and episodes drawn from an explicit generator."""

from medfewshot.episodes.sampler import EpisodeSampler, Example
from medfewshot.episodes.splits import FIXED_SPLITS, Split, draw_support, fixed_split, split_task

__all__ = ["FIXED_SPLITS", "EpisodeSampler", "Example", "Split", "draw_support", "fixed_split", "split_task"]
