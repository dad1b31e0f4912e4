"""Episodes for MONAI's loaders, and MONAI's datasets as a source of episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.data import Dataset

from medfewshot.episodes import EpisodeSampler, Example
from medfewshot.errors import InputError
from medfewshot.types import Episode, Query, Support


class EpisodeDataset(Dataset):
    """``length`` episodes of a sampler as dictionaries of tensors; item ``i`` is the same whenever it is asked for.

    Keys: ``support_image (K, C, *S)`` float32, ``support_label (K, 1, *S)`` int64, ``image (B, C, *S)`` and
    ``label (B, 1, *S)`` of the query, ``classes`` (N + 1), ``task``. With a ``patch_size`` and a fixed number of shots
    and ways every item has one shape, so that ``DataLoader`` can stack episodes; otherwise take ``batch_size=1`` and a
    sampler whose scans share a shape.

    To MONAI's transforms the first axis (K or B) is the channel axis, so axis X is their ``spatial_axis=1``.

    Every item is drawn from a generator of its own, ``(seed, epoch, index)``, so that neither the number of workers nor
    their order matters. :meth:`set_epoch` gives new episodes; ``CacheDataset`` keeps those it was filled with.
    """

    def __init__(self, sampler: EpisodeSampler, length: int, seed: int = 0) -> None:
        if length < 1:
            raise InputError(f"an episode dataset of length {length}: give at least 1")
        self.sampler, self.length, self.seed, self.epoch = sampler, length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = index + self.length if index < 0 else index
        if not 0 <= index < self.length:
            raise IndexError(f"episode {index} of {self.length}")
        episode = self.sampler.sample(np.random.default_rng([self.seed, self.epoch, index]))
        shapes = {tuple(image.shape) for image in episode.support.images}
        if len(shapes) > 1:
            raise InputError(
                f"{episode.task}: supports of shapes {sorted(shapes)} cannot be stacked; give the sampler a patch_size"
            )
        query_label = episode.query.label
        assert query_label is not None
        return {
            "support_image": torch.stack(episode.support.images),
            "support_label": torch.stack(episode.support.labels)[:, None],
            "image": episode.query.image,
            "label": query_label[:, None],
            "classes": episode.support.classes,
            "task": episode.task,
        }


def to_episode(item: Mapping[str, Any], index: int | None = None) -> Episode:
    """The :class:`~medfewshot.types.Episode` of an item, or of entry ``index`` of a batch of items."""

    def one(key: str) -> Any:
        return item[key] if index is None else item[key][index]

    images: Tensor = _plain(one("support_image"))
    return Episode(
        support=Support(
            images=tuple(images),
            labels=tuple(_plain(one("support_label"))[:, 0].long()),
            classes=int(one("classes")),
            patch_size=tuple(images.shape[2:]),
        ),
        query=Query(_plain(one("image")), _plain(one("label"))[:, 0].long()),
        task=str(one("task")),
    )


def examples_of(
    dataset: Iterable[Mapping[str, Any]],
    image_key: str = "image",
    label_key: str = "label",
    subject_key: str = "subject",
) -> list[Example]:
    """Examples for an :class:`~medfewshot.episodes.EpisodeSampler` from a MONAI dataset, a ``CacheDataset`` say.

    Items hold an image ``(C, *S)`` and a label ``(1, *S)``, on the plan's grid (see ``ToPland``), and who it is of; an
    image that is a MetaTensor states its voxel size. Raises InputError where an item lacks one of these.
    """
    examples = []
    for number, item in enumerate(dataset):
        missing = [key for key in (image_key, label_key, subject_key) if key not in item]
        if missing:
            raise InputError(f"item {number}: has no {', '.join(missing)}; its keys are {', '.join(map(str, item))}")
        image, label = item[image_key], _plain(item[label_key])
        spacing = tuple(float(size) for size in image.pixdim) if isinstance(image, MetaTensor) else None
        spacing = spacing[: label.ndim - 1] if spacing is not None else None
        examples.append(Example(str(item[subject_key]), _plain(image), label[0], spacing))
    return examples


def _plain(value: Any) -> Tensor:
    return value.as_tensor() if hasattr(value, "as_tensor") else torch.as_tensor(value)
