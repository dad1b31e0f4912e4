"""Few-shot segmentation as MONAI components: transforms, inferer, dataset, loss and metric.

- transforms: ``FewShotSegment`` and ``FewShotSegmentd`` (image in, label map on its grid out), ``ToPlan`` and
  ``ToPland`` (to the plan's grid and, inverted, back)
- an ``Inferer``: ``FewShotInferer`` (plans an image, runs any network in windows and restores the grid)
- a dataset: ``EpisodeDataset`` for ``DataLoader`` and ``CacheDataset``; ``examples_of`` converts the other way
- a loss and a ``CumulativeIterationMetric``, for engines and loops: ``FewShotLoss``, ``SegmentationMetric``
- for bundles: ``load_network`` and ``list_images``, which ``configs/inference.json`` calls

MONAI's ``ConfigParser`` can build all of them from plain data.
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
