"""Contrast that differs: copies of labelled scans, with structures as bright as in the scans to segment.

From a CT without contrast agent, a network learns that kidneys are dark, and finds none in a CT with it. Registration
finds them roughly, so it can tell how bright they are there. Where they differ, networks also learn from copies of the
labelled scans in which these structures are brighter or darker. Measured in ``lab/notes/matching.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.errors import InputError, some
from medfewshot.planning import check_like_support, to_plan
from medfewshot.registration import register
from medfewshot.types import MAX_WHOLE_VALUES, Plan, Progress, Support, Volume

COMPARED = 6
"""Scans to segment that are compared at most. Each takes seconds."""
FIRST = 3
"""If none of the first scans differs, the others are not compared."""
DEVIATIONS = 3.0
"""A structure differs if its median changes by more standard deviations of its intensities than this."""
LEAST_DEVIATION = 0.2
"""Standard deviation that a structure has at least, as a share of the whole body's."""
EDGE_LEFT = 0.25
"""Share of its difference from its surroundings that a structure must keep; otherwise registration missed it."""
RING = 2
"""Width of these surroundings in voxels."""


def with_contrast_of(
    scans: Iterable[Tensor], support: Support, *, progress: Progress | None = None
) -> tuple[Support, tuple[int, ...], int]:
    """Add copies of the supports with the contrast of other scans, if structures are clearly brighter or darker there.

    Args:
        scans: Planned 3D scans without labels ``(C, *S)``. Only a few are read. Each is compared with one support,
            in turn.
        support: The supports.
        progress: Receives events.

    Returns:
        The supports with at most one copy per scan, the classes that differ in most of the scans, and how many scans
        were compared; those that are too large for registration are not.
    """
    progress = (progress or Progress()).at("comparing contrast")
    changes: list[tuple[int, Tensor]] = []
    for number, scan in enumerate(islice(scans, COMPARED)):
        progress.update(number, COMPARED)
        example = number % support.shots
        sizes = (scan[0].numel(), support.images[example][0].numel())
        if max(sizes) * support.classes <= MAX_WHOLE_VALUES:
            changes.append((example, _changes(support, example, scan)))
        if number + 1 == FIRST and not any(bool(change.any()) for _, change in changes):
            return support, (), len(changes)
    if not changes:
        return support, (), 0
    differs = (torch.stack([change for _, change in changes]) != 0).any(2).float().mean(0) > 0.5
    images, labels = list(support.images), list(support.labels)
    for example, change in changes:
        change = change * differs[:, None]
        if bool(change.any()):
            label = support.labels[example]
            shift = torch.cat([change.new_zeros(1, change.shape[1]), change])[label.clamp_min(0)]
            images.append(support.images[example] + shift.movedim(-1, 0))
            labels.append(label)
    derived = support.derived + len(images) - support.shots
    classes = tuple(int(index) + 1 for index in differs.nonzero().flatten())
    return replace(support, images=tuple(images), labels=tuple(labels), derived=derived), classes, len(changes)


def planned(cohort: Iterable[Volume], plan: Plan, unfit: list[str]) -> Iterator[Tensor]:
    """Bring scans to the plan's grid, one at a time; the names of those of another kind are added to ``unfit``."""
    for volume in cohort:
        try:
            check_like_support(volume, plan)
            scan = to_plan(volume, plan).image
        except InputError:
            unfit.append(volume.name)
            continue
        yield scan


def contrast_warning(names: Sequence[str]) -> tuple[str, ...]:
    """Warn that structures of these names are brighter or darker in the scans to segment; nothing without names."""
    if not names:
        return ()
    text = "much brighter or darker in the scans to segment than in the labelled scans, such as another phase of a CT"
    return (f"{some(names)}: {text}. Training imitates this; a labelled scan with this contrast would be better",)


@torch.no_grad()
def _changes(support: Support, example: int, scan: Tensor) -> Tensor:
    """Register a scan to a support and compare: see :func:`brightness_changes`."""
    image, label = support.images[example].float(), support.labels[example]
    transform, _ = register([scan.float()], image, support.spacing)
    grid = transform.grid(label.shape)
    there = F.grid_sample(scan[None].float(), grid, padding_mode="border", align_corners=False)[0]
    return brightness_changes(image, there, label, support.classes)


def brightness_changes(image: Tensor, there: Tensor, label: Tensor, classes: int) -> Tensor:
    """Measure in which structures another scan is clearly brighter or darker.

    Args:
        image: A support ``(C, *S)``.
        there: The other scan on the support's grid ``(C, *S)``.
        label: The structures ``(*S)``.
        classes: N + 1.

    Returns:
        Change of the median ``(N, C)``; 0 if it is small, or if registration seems to have missed the structure.
    """
    changes = image.new_zeros(classes - 1, len(image))
    for index in range(1, classes):
        inside = label == index
        grown = F.max_pool3d(inside[None, None].float(), 2 * RING + 1, 1, RING)[0, 0] > 0
        ring = grown & (label == 0)
        if not bool(inside.any()) or not bool(ring.any()):
            continue
        before, after = image[:, inside].median(1).values, there[:, inside].median(1).values
        edge_before = before - image[:, ring].median(1).values
        edge_after = after - there[:, ring].median(1).values
        spread = image[:, inside].std(1, correction=0).clamp_min(LEAST_DEVIATION)
        clear = (after - before).abs() > DEVIATIONS * spread
        kept = edge_after.abs() >= EDGE_LEFT * edge_before.abs()
        changes[index - 1] = torch.where(clear & kept, after - before, 0.0)
    return changes
