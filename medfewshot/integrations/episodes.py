"""Convert episodes into a MONAI dataset, and MONAI datasets into examples for episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.data import Dataset

from medfewshot.episodes import EpisodeSource, Example, episode_seed
from medfewshot.errors import InputError
from medfewshot.types import Episode, Query, Support


class EpisodeDataset(Dataset):
    """A number of episodes as dictionaries of tensors, for ``DataLoader`` and ``CacheDataset``.

    Keys: ``support_image (K, C, *S)`` float32, ``support_label (K, 1, *S)`` int64, ``image (B, C, *S)`` and
    ``label (B, 1, *S)`` of the query, ``classes`` (N + 1), ``task``. ``DataLoader`` can stack episodes if the source
    has one patch size and one number of shots and ways; otherwise use ``batch_size=1``. MONAI's transforms take the
    first axis (K or B) as the channel axis, so axis X is their ``spatial_axis=1``.

    Item ``i`` depends on seed, epoch and ``i`` alone, not on the number of workers. :meth:`set_epoch` gives new
    episodes; a ``CacheDataset`` keeps those that it was filled with.

    Args:
        source: An :class:`~medfewshot.episodes.EpisodeSampler`, or any other source that training takes.
        length: Number of episodes.
        seed: Another seed gives other episodes.
    """

    def __init__(self, source: EpisodeSource, length: int, *, seed: int = 0) -> None:
        if length < 1:
            raise InputError(f"an episode dataset of length {length} is empty", "give at least 1", setting="length")
        self.source, self.length, self.seed, self.epoch = source, length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other episodes from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = index + self.length if index < 0 else index
        if not 0 <= index < self.length:
            raise IndexError(f"episode {index} of {self.length}")
        episode = self.source.sample(episode_seed(self.seed, self.epoch, index))
        shapes = {tuple(image.shape) for image in episode.support.images}
        if len(shapes) > 1:
            raise InputError(
                f"{episode.task}: supports of shapes {sorted(shapes)} cannot be stacked",
                "give the sampler a patch size",
                setting="patches",
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
    """Turn an item (or entry ``index`` of a batch of items) back into an :class:`~medfewshot.types.Episode`."""

    def one(key: str) -> Any:
        return item[key] if index is None else item[key][index]

    images: Tensor = plain(one("support_image"))
    return Episode(
        support=Support(
            images=tuple(images),
            labels=tuple(plain(one("support_label"))[:, 0].long()),
            classes=int(one("classes")),
            patch_size=tuple(images.shape[2:]),
        ),
        query=Query(plain(one("image")), plain(one("label"))[:, 0].long()),
        task=str(one("task")),
    )


def examples_of(
    dataset: Iterable[Mapping[str, Any]],
    *,
    image_key: str = "image",
    label_key: str = "label",
    subject_key: str = "subject",
) -> list[Example]:
    """Turn the items of a MONAI dataset into examples for an :class:`~medfewshot.episodes.EpisodeSampler`.

    Args:
        dataset: Items with an image ``(C, *S)`` and a label ``(1, *S)`` on the plan's grid (see ``ToPland``), and a
            subject. The voxel size is read from images that are MetaTensors.
        image_key: Key of the image.
        label_key: Key of the label.
        subject_key: Key of the subject.

    Raises:
        InputError: An item lacks one of these keys.
    """
    examples = []
    for number, item in enumerate(dataset):
        missing = [key for key in (image_key, label_key, subject_key) if key not in item]
        if missing:
            raise InputError(f"item {number}: has no {', '.join(missing)}", f"its keys are {', '.join(map(str, item))}")
        image, label = item[image_key], plain(item[label_key])
        spacing = tuple(image.pixdim.tolist())[: label.ndim - 1] if isinstance(image, MetaTensor) else None
        examples.append(Example(str(item[subject_key]), plain(image), label[0], spacing))
    return examples


def plain(value: Any) -> Tensor:
    """Return a MetaTensor or an array as a plain tensor."""
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
