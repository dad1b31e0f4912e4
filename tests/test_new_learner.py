"""A learner in one file, with one spec: it is trained, adapted, used, saved and loaded like the package's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import toys
from torch import Tensor, nn

import medfewshot
from medfewshot.errors import InputError
from medfewshot.learners import (
    LEARNERS,
    LearnerSpec,
    Segmenter,
    TrainedOptions,
    load_start,
    make_learner,
    register,
)
from medfewshot.learners.base import NOT_LOADED
from medfewshot.settings import AdaptSettings
from medfewshot.training import TrainSettings, train

# What the file of a new learner contains:


class Gain(nn.Module):
    """The feature network: the image times one learned number."""

    def __init__(self, dims: int, in_channels: int) -> None:
        super().__init__()
        self.config = {"dims": dims, "in_channels": in_channels}
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, image: Tensor) -> Tensor:
        return self.gain * image


class MeanSegmenter(Segmenter):
    """Each voxel takes the class whose mean feature is nearest."""

    kind = "nearest-mean"
    parts: ClassVar = {"backbone": Gain}
    means: Tensor

    def __init__(
        self, backbone: nn.Module, means: Tensor = NOT_LOADED, record: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(record)
        self.backbone = backbone
        self.register_buffer("means", means)  # (N + 1, D)

    def predict(self, image: Tensor) -> Tensor:
        return scores(self.backbone(image), self.means)


class MeanStart(nn.Module):
    def __init__(self, backbone: Gain) -> None:
        super().__init__()
        self.backbone = backbone


def scores(features: Tensor, means: Tensor) -> Tensor:
    return -(features[:, None] - means.view(1, *means.shape, *[1] * (features.ndim - 2))).square().sum(2)


@dataclass(frozen=True)
class NearestMean(TrainedOptions):
    """Means of the supports' features; nothing is trained but ``start``, by meta-training."""

    def adapt(self, support):
        backbone = Gain(support.spatial_dims, support.channels) if self.start is None else self.start.backbone
        self.progress.at("averaging").update(1, 1)
        return MeanSegmenter(backbone, self._means(backbone, support), {"learner": SPEC.name, "steps": 0})

    def meta_loss(self, episode):
        backbone = self.start.backbone
        logits = scores(backbone(episode.query.image), self._means(backbone, episode.support))
        return nn.functional.cross_entropy(logits, episode.truth)

    def _means(self, backbone, support):
        pairs = [(backbone(image[None])[0], label) for image, label in zip(support.images, support.labels, strict=True)]
        return torch.stack(
            [
                torch.cat([f[:, y == index] for f, y in pairs], 1).mean(1).nan_to_num()
                for index in range(support.classes)
            ]
        )


SPEC = LearnerSpec(
    name="nearest-mean",
    learner=NearestMean,
    summary="each voxel takes the class of the nearest mean intensity",
    segmenter=MeanSegmenter,
    build_start=MeanStart,
    build_backbone=lambda *, dims, in_channels, width, levels: Gain(dims, in_channels),
    network=Gain,
)


@pytest.fixture
def known():
    register(SPEC)
    yield SPEC
    del LEARNERS[SPEC.name]


def test_train_adapt_segment_save_and_load(known, tmp_path):
    """Under its name alone: no other file of the package is changed."""
    tasks = {"synthetic": {"patches": [[16, 16, 16]], "shots": [1, 1], "ways": [1, 2]}}
    settings = TrainSettings(
        learner=known.name, backbone={"dims": 3}, tasks=tasks, steps=2, episodes_per_step=1, validation_episodes=1
    )
    train(settings, tmp_path / "run", device="cpu")
    weights = tmp_path / "run" / "start"
    assert load_start(weights).learner == known.name
    assert float(load_start(weights).module.backbone.gain) != 1.0

    supports = [toys.make_scan(number) for number in range(2)]
    query, truth = toys.make_scan(10)
    segmenter = medfewshot.adapt(supports, learner=known.name, weights=str(weights), device="cpu")
    assert segmenter.record["learner"]["learner"] == known.name
    found = medfewshot.segment(query, segmenter).labels
    assert ((found > 0) & (truth > 0)).sum() > 0.9 * (truth > 0).sum()

    segmenter.save(tmp_path / "kept")
    assert (medfewshot.segment(query, medfewshot.load_segmenter(tmp_path / "kept")).labels == found).all()


def test_settings_that_it_lacks_are_refused(known):
    with pytest.raises(InputError, match="were trained for learner in_context, not nearest-mean"):
        make_learner(AdaptSettings(learner=known.name, weights="in-context-2d", device="cpu"))
    assert make_learner(AdaptSettings(learner=known.name, seed=3, device="cpu")).seed == 3
