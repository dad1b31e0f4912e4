"""Few-shot segmentation as MONAI's own kinds of things: transforms, an inferer, a dataset, a loss and a metric.

- transforms: ``FewShotSegment`` and ``FewShotSegmentd`` (image in, label map on its grid out), ``ToPlan`` and
  ``ToPland`` (to the plan's grid and, inverted, back)
- an ``Inferer``: ``FewShotInferer`` (original images through plan, windows and back, with any network)
- a dataset: ``EpisodeDataset`` for ``DataLoader`` and ``CacheDataset``; ``examples_of`` goes the other way
- a loss and a ``CumulativeIterationMetric``, for engines and loops alike: ``FewShotLoss``, ``SegmentationMetric``
- for bundles: ``load_network`` and ``list_images``, which ``configs/inference.json`` names

All of them can be built from plain data by MONAI's ``ConfigParser``.
"""

from medfewshot.integrations.episodes import EpisodeDataset, examples_of, to_episode
from medfewshot.integrations.grid import ToPlan, ToPland
from medfewshot.integrations.inferer import FewShotInferer, list_images, load_network
from medfewshot.integrations.scoring import FewShotLoss, SegmentationMetric
from medfewshot.integrations.transforms import FewShotSegment, FewShotSegmentd

__all__ = [
    "EpisodeDataset",
    "FewShotInferer",
    "FewShotLoss",
    "FewShotSegment",
    "FewShotSegmentd",
    "SegmentationMetric",
    "ToPlan",
    "ToPland",
    "examples_of",
    "list_images",
    "load_network",
    "to_episode",
]
