"""Labels of one frame, carried to the others: a ball that moves and shrinks."""

from __future__ import annotations

import pytest
import torch

from medfewshot.inference import LabelTracker, frames_around
from medfewshot.structures import dice

SPACING = (1.5, 1.5, 4.0)


def ball(frame: int, dims: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Image ``(1, *P)`` and labels of one frame: a cavity in a wall, 3 voxels further on and smaller in each frame."""
    size, spacing = (32, 32, 6)[:dims], torch.tensor(SPACING[:dims])
    points = torch.stack(torch.meshgrid(*[torch.arange(n) for n in size], indexing="ij"), -1) * spacing
    centre = torch.tensor([14.0 + 3 * frame, 24.0, 10.0])[:dims]
    distance = (points - centre).norm(dim=-1)
    labels = (distance < 13).long() + (distance < 8 - frame).long()
    noise = torch.randn(size, generator=torch.Generator().manual_seed(frame))
    return (labels.float() * 2 - 1 + 0.1 * noise)[None], labels


def tracker(dims: int = 3, known: slice = slice(None)) -> LabelTracker:
    image, labels = ball(0, dims)
    partly = torch.full_like(labels, -1)
    partly[..., known] = labels[..., known]
    return LabelTracker(image, partly, classes=3, spacing_mm=SPACING[:dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_follow_what_moves_and_shrinks(dims):
    carried = tracker(dims)
    for frame in range(4):
        image, labels = ball(frame, dims)
        votes = carried.carry(image)
    found = votes.argmax(0)
    assert votes.sum(0).allclose(torch.ones(()), atol=1e-4)
    assert dice(found == 1, labels == 1) > 0.9
    assert dice(found == 2, labels == 2) > 0.75
    assert dice(ball(0, dims)[1] == 2, labels == 2) < 0.5  # without motion, they would not fit


def test_the_labelled_frame_keeps_its_labels():
    image, labels = ball(0)
    unsure = torch.full((3, *labels.shape), 1 / 3)
    assert torch.equal(tracker().carry(image).argmax(0), labels)
    assert torch.equal(tracker().fuse(image, unsure).argmax(0), labels)


def test_unknown_voxels_leave_the_segmenter_as_it_is():
    image, labels = ball(0)
    probabilities = torch.rand(3, *labels.shape, generator=torch.Generator().manual_seed(0)).softmax(0)
    fused = tracker(known=slice(0, 3)).fuse(image, probabilities)
    assert torch.equal(fused[..., 3:].argmax(0), probabilities[..., 3:].argmax(0))
    assert torch.equal(fused[..., :3].argmax(0), labels[..., :3])


def test_other_direction_begins_at_the_labelled_frame():
    carried, image = tracker(), ball(1)[0]
    first = carried.carry(image)
    carried.restart()
    assert torch.equal(carried.carry(image), first)


@pytest.mark.parametrize(
    ("labelled", "count", "expected"),
    [
        ((0,), 3, [(0, [0, 1, 2])]),
        ((2,), 3, [(2, [2]), (2, [1, 0])]),
        ((1, 4), 6, [(1, [1, 2]), (1, [0]), (4, [4, 5]), (4, [3])]),
    ],
)
def test_each_frame_belongs_to_the_nearest_labelled_one(labelled, count, expected):
    found = [(number, list(frames)) for number, frames in frames_around(labelled, count)]
    assert found == expected
    assert sorted(n for _, frames in found for n in frames) == list(range(count))
