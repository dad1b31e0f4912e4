"""Episodes: splits that hold out subjects and classes, and the one sampler of episodes from labelled volumes."""

from medfewshot.episodes.examples import Example, LabelledTask
from medfewshot.episodes.regions import find_regions, region_tasks
from medfewshot.episodes.sampler import EpisodeSampler, EpisodeSettings
from medfewshot.episodes.sources import EpisodeSource, Mixture, episode_seed
from medfewshot.episodes.splits import FIXED_SPLITS, draw_support, fixed_split

__all__ = [
    "FIXED_SPLITS",
    "EpisodeSampler",
    "EpisodeSettings",
    "EpisodeSource",
    "Example",
    "LabelledTask",
    "Mixture",
    "draw_support",
    "episode_seed",
    "find_regions",
    "fixed_split",
    "region_tasks",
]
