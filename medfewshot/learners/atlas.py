"""Atlas segmentation: register each support to the query, transfer its labels and take a weighted vote.

Votes are weighted by local similarity. Seen as metric-based meta-learning, a voxel takes the label of the nearest
support voxel under a metric of appearance and location. Nothing is trained: adaptation only stores the supports.

References:
    Iglesias & Sabuncu 2015, "Multi-atlas segmentation of biomedical images: a survey".
    Artaechevarria et al. 2009 and Sabuncu et al. 2010: weights by local similarity.
    Vinyals et al. 2016, "Matching Networks for One Shot Learning".
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from medfewshot.augment import LINEAR
from medfewshot.learners.base import LearnerSpec, Segmenter, TensorList
from medfewshot.registration import RegistrationOptions, Transform, register
from medfewshot.structures import dice, structures
from medfewshot.types import IGNORED, MAX_WHOLE_VALUES, Progress, Support, Warp

NAME = "atlas"
SIMILARITY_SHARPNESS = 12.0
"""A local correlation higher by 0.1 multiplies a support's vote by exp(1.2)."""
INTENSITY_TOLERANCE = 0.5
"""Difference in normalised intensity that multiplies a vote by exp(-1/2)."""
MAX_VOTE_PENALTY = 3.0
"""An intensity difference multiplies a vote by exp(-3) at least."""
FLOOR = 1e-6
"""Minimum probability of every class in every voxel, so that logits stay finite. It adds up over the background."""
UNKNOWN = 255
"""Stored label of voxels that are not annotated, if there are so few classes that a byte is enough."""
CLASSES_AT_ONCE = 4
"""Classes that are carried over together: faster than one by one, and memory may not hold a second array of all."""
WARP_DICE = 0.5
"""Supports are deformed to each other's shape if the leave-one-out Dice is at least this, as a mean over structures:
the shapes of lesions have nothing in common, and networks that train on such warps miss them."""
MAX_LEFT_OUT = 4
"""Number of leave-one-out rounds to estimate the accuracy, and of supports in each."""


class AtlasSegmenter(Segmenter):
    """Segments the whole field of view by registering stored supports to it.

    Args:
        images: K support images ``(C, *S)`` on the planned grid.
        labels: K label maps ``(*S)`` with classes 0..N.
        classes: N + 1.
        spacing_mm: Spacing of the planned grid.
        options: Options of the registration.
        record: What adaptation reports.
    """

    kind = NAME
    whole_volume = True
    keeps_supports = True

    def __init__(
        self, images: Sequence[Tensor], labels: Sequence[Tensor], *, classes: int, spacing_mm: Sequence[float],
        options: RegistrationOptions | None = None, record: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(record)
        self.image = TensorList([image.to(torch.float16) for image in images])
        self.unknown = UNKNOWN if classes <= UNKNOWN else IGNORED
        small = torch.uint8 if classes <= UNKNOWN else torch.int32
        self.label = TensorList([label.where(label >= 0, self.unknown).to(small) for label in labels])
        self.classes, self.spacing_mm = classes, tuple(float(s) for s in spacing_mm)
        self.options = options or RegistrationOptions()

    def predict(self, image: Tensor) -> Tensor:
        """Compute log-probabilities ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        return self.votes(image[0]).clamp_min(FLOOR).log()[None]

    @torch.no_grad()
    def votes(self, query: Tensor) -> Tensor:
        """Compute class probabilities ``(N + 1, *S)`` of one query ``(C, *S)``."""
        query = query.float()
        return self.fuse_labels(query, *self.register(query))

    def register(self, query: Tensor) -> tuple[Transform, Tensor]:
        """Register the supports to a query ``(C, *S)`` float32; see :func:`medfewshot.registration.register`."""
        return register([image.float() for image in self.image], query, self.spacing_mm, self.options)

    def carried_label(self, number: int, transform: Transform, size: Sequence[int]) -> Tensor:
        """Labels ``(*size)`` of one support where registration puts them in the query."""
        label = list(self.label)[number].float()[None, None]
        grid = transform.of(number).grid(size)
        return F.grid_sample(label, grid, mode="nearest", padding_mode="border", align_corners=False)[0, 0]

    @property
    def partial(self) -> bool:
        """Whether some voxels of the supports are not annotated; then some voxels of a query may get no vote."""
        return any(bool((label == self.unknown).any()) for label in self.label)

    @cached_property
    def one_piece(self) -> frozenset[int]:
        """Structures in one piece in every support; none if some voxels are not annotated."""
        if self.partial:
            return frozenset()
        found = [structures(label.cpu().numpy()) for label in self.label]
        return frozenset(i for i in range(1, self.classes) if all(one[i].in_one_piece for one in found if i in one))

    def fuse_labels(self, query: Tensor, transform: Transform, correlation: Tensor) -> Tensor:
        """Fuse the labels of registered supports.

        Voxels of a support that are not annotated do not vote. A voxel without any vote gets equal probabilities.

        Args:
            query: The query ``(C, *S)``.
            transform: Maps the query to each of K supports, as :func:`register` returns it.
            correlation: Local similarity ``(K, 1, *G)`` on the grid of the registration.

        Returns:
            Class probabilities ``(N + 1, *S)``.
        """
        size = query.shape[1:]
        total = query.new_zeros((self.classes, *size))
        weights = query.new_zeros((1, *size))
        for number, (image, label) in enumerate(zip(self.image, self.label, strict=True)):
            # One support at a time: a grid at full resolution takes more memory than its image and labels.
            grid = transform.of(number).grid(size)[0]
            local = F.interpolate(correlation[number : number + 1], size=size, mode=LINEAR[len(size)])[0]
            weight = self._weight(query, _read(image.float(), grid), local)
            for index in torch.arange(self.classes, device=label.device).split(CLASSES_AT_ONCE):
                here = label == index.view(-1, *[1] * label.ndim)
                total[index] += weight * _read(here.float(), grid)
            known = label != self.unknown
            weights += weight if bool(known.all()) else weight * _read(known[None].float(), grid)
        silent = weights == 0
        return total.add_(silent / self.classes).div_(weights + silent) if bool(silent.any()) else total.div_(weights)

    def _weight(self, query: Tensor, warped: Tensor, correlation: Tensor) -> Tensor:
        """Return the weight of one support's vote per voxel ``(1, *S)``."""
        difference = _smooth((warped - query).square().mean(0, keepdim=True))
        penalty = (difference / (2 * INTENSITY_TOLERANCE**2)).clamp_max(MAX_VOTE_PENALTY)
        return (SIMILARITY_SHARPNESS * (correlation - 1) - penalty).exp()

    def config(self) -> dict[str, Any]:
        """Return the number of classes, the spacing and the registration options."""
        return {"classes": self.classes, "spacing_mm": self.spacing_mm, "options": asdict(self.options)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AtlasSegmenter:
        """Build the segmenter without its supports; ``load_state_dict`` reads them."""
        options = TypeAdapter(RegistrationOptions).validate_python(config["options"])
        return cls([], [], classes=config["classes"], spacing_mm=config["spacing_mm"], options=options)


@dataclass(frozen=True)
class LeftOut:
    """Result of segmenting supports from the others.

    Attributes:
        dice: Median Dice per structure; None if fewer than two supports contain it.
        pairs: (support, other support) -> Dice per structure of the first, segmented from the second alone; NaN if
            neither contains the structure.
        warps: Deform each support to the shape of those that were segmented from it.
    """

    dice: list[float | None]
    pairs: Mapping[tuple[int, int], tuple[float, ...]]
    warps: tuple[Warp, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return the pairs as plain data, which :func:`medfewshot.quality.check_supports` judges."""
        return [
            {"support": one, "from": other, "dice": [None if math.isnan(d) else round(d, 4) for d in values]}
            for (one, other), values in self.pairs.items()
        ]


@dataclass(frozen=True)
class Atlas:
    """Stores the supports, and registers all of them to each query.

    Args:
        device: Device of the segmenter.
        options: Options of the registration.
        progress: Receives events.
    """

    device: torch.device = torch.device("cpu")
    options: RegistrationOptions = field(default_factory=RegistrationOptions)
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> AtlasSegmenter:
        """Store the supports; nothing is trained."""
        self.progress.update(1, 1, "supports kept")
        return AtlasSegmenter(
            [image.to(self.device, copy=True) for image in support.images],
            [label.to(self.device, copy=True) for label in support.labels],
            classes=support.classes,
            spacing_mm=support.spacing,
            options=self.options,
            record={"learner": NAME, "steps": 0, "supports": support.shots},
        )

    def leave_one_out(self, support: Support, seconds: float | None = None) -> LeftOut:
        """Segment supports from the other supports.

        Args:
            support: The supports. At most ``MAX_LEFT_OUT`` are segmented, each from at most as many others. A support
                that is too large to be registered as a whole is skipped.
            seconds: Time limit: after it, no further support is segmented.
        """
        found: list[list[float]] = [[] for _ in range(support.classes - 1)]
        pairs: dict[tuple[int, int], tuple[float, ...]] = {}
        warps: list[Warp] = []
        begun = time.perf_counter()
        rounds = min(support.shots, MAX_LEFT_OUT) if support.shots > 1 else 0
        progress = self.progress.at("comparing the labelled scans")
        for left in range(rounds):
            progress.update(left, rounds)
            late = seconds is not None and time.perf_counter() - begun > seconds
            if not late and support.images[left][0].numel() * support.classes <= MAX_WHOLE_VALUES:
                pairs |= self._leave_out(support, left, found, warps)
        if rounds:
            progress.update(rounds, rounds)
        medians = [median(values) if values else None for values in found]
        known = [one for one in medians if one is not None]
        alike = sum(known) >= WARP_DICE * max(1, len(known))
        return LeftOut(medians, pairs, tuple(warps) if alike else ())

    @torch.no_grad()
    def _leave_out(
        self, support: Support, left: int, found: list[list[float]], warps: list[Warp]
    ) -> dict[tuple[int, int], tuple[float, ...]]:
        others = [number for number in range(support.shots) if number != left][:MAX_LEFT_OUT]
        rest = support.of(others)
        segmenter = replace(self, progress=Progress()).adapt(rest)
        query = support.images[left].to(segmenter.device).float()
        transform, correlation = segmenter.register(query)
        votes = segmenter.fuse_labels(query, transform, correlation)
        prediction = votes.clamp_min(FLOOR).log().argmax(0).cpu()
        truth = support.labels[left].cpu()
        known = (truth >= 0) & voted(votes).cpu() if segmenter.partial else truth >= 0
        for index, values in enumerate(found, start=1):
            mask = (truth == index) & known
            if mask.any() and any((label == index).any() for label in rest.labels):
                values.append(dice((prediction == index) & known, mask))
        pairs = {}
        for number, other in enumerate(others):
            carried = segmenter.carried_label(number, transform, query.shape[1:]).cpu()
            both = (truth >= 0) & (carried != segmenter.unknown)
            pairs[left, other] = tuple(
                dice((carried == index) & both, (truth == index) & both) for index in range(1, support.classes)
            )
            points = partial(
                transform.of(number).voxels, query_size=query.shape[1:], support_size=rest.images[number].shape[1:]
            )
            warps.append(Warp(other, left, points))
        return pairs


def voted(votes: Tensor) -> Tensor:
    """Return where any support voted, ``(*S)`` bool, from :meth:`AtlasSegmenter.votes` of partly annotated supports."""
    return votes.amax(0) > votes.amin(0)


def _read(volume: Tensor, grid: Tensor) -> Tensor:
    """Sample ``(C, *S)`` at ``grid (*P, d)``; returns ``(C, *P)``."""
    return F.grid_sample(volume[None], grid[None], padding_mode="border", align_corners=False)[0]


def _smooth(x: Tensor) -> Tensor:
    """Average ``x (1, *S)`` over the 3-wide box around every voxel, without the voxels outside of the image."""
    pool = F.avg_pool2d if x.ndim == 3 else F.avg_pool3d
    if min(x.shape[1:]) >= 3:
        return pool(x[None], 3, 1, 1, count_include_pad=False)[0]
    padding = [1, 1] * (x.ndim - 1)  # torch refuses images that are thinner than the box
    return (pool(F.pad(x[None], padding), 3, 1) / pool(F.pad(torch.ones_like(x)[None], padding), 3, 1))[0]


SPEC = LearnerSpec(
    name=NAME,
    instant_steps=0,
    learner=Atlas,
    summary="your labelled scans are registered to the new scan and vote; no training",
    segmenter=AtlasSegmenter,
)
