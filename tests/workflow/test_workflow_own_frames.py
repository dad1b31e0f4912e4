"""Frames that registration labels: what the network learns from besides the labelled frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from medfewshot.inference import LabelTracker
from medfewshot.io import open_film
from medfewshot.learners import LEARNERS
from medfewshot.planning import labels_to_plan, to_plan
from medfewshot.settings import AdaptSettings, SegmentSettings
from medfewshot.types import IGNORED, Progress
from medfewshot.workflow import adapt, prepare, read_supports, segment_film
from medfewshot.workflow.own_frames import SURE, frames_with_tracker, trackers_of, with_tracked_frames

FRAMES = 10


def moving_film(folder: Path, labelled: tuple[int, ...]) -> tuple[Path, Path, np.ndarray]:
    """Write a film of a disc of radius 5 that moves by half a voxel a frame, 2D, and its labels."""
    x, y = np.mgrid[:32, :28]
    truth = np.stack([((x - 11 - t / 2) ** 2 + (y - 13) ** 2 < 25).astype(np.int16) for t in range(FRAMES)], -1)
    noise = np.random.default_rng(0).normal(0, 5, truth.shape)
    image = (100 * truth + noise).astype(np.int16)[:, :, None]
    known = np.where(np.isin(np.arange(FRAMES), labelled), truth, 255).astype(np.int16)[:, :, None]
    film, labels = (toys.save_nifti(folder / name, data) for name, data in (("f.nii.gz", image), ("l.nii.gz", known)))
    return film, labels, truth


@pytest.mark.parametrize(
    ("labelled", "tracked"), [(0, [1, 3, 4, 5, 6, 8]), (4, [5, 6, 8, 3, 1]), (FRAMES - 1, [8, 6, 5, 4, 3, 1])]
)
def test_frames_before_and_after_the_labelled_one_become_examples(tmp_path, labelled, tracked):
    film, labels, truth = moving_film(tmp_path, (labelled,))
    scans = read_supports([(film, labels)])
    prepared = prepare(scans)
    told: list[tuple[int, int]] = []
    progress = Progress(lambda event: told.append((event.done, event.total)))
    support = with_tracked_frames(prepared.support, scans, prepared.plan, progress=progress)
    assert told == [(done, FRAMES) for done in range(1, FRAMES + 1)]
    assert support.shots == 1 + support.derived
    assert support.derived == len(tracked)
    assert np.array_equal(support.labels[0], prepared.support.labels[0])
    opened = open_film(film)
    first, carried = support.images[0], support.labels[0]
    tracker = LabelTracker(first, carried, classes=2, spacing_mm=prepared.plan.spacing_mm)
    expected = {}
    for number, volume, _ in frames_with_tracker(opened, {labelled: tracker}):
        image = to_plan(volume, prepared.plan).image
        votes = tracker.carry(image)
        expected[number] = image, torch.where(votes.amax(0) >= SURE, votes.argmax(0), IGNORED)
    for number, image, label in zip(tracked, support.images[1:], support.labels[1:], strict=True):
        assert torch.equal(image, expected[number][0])
        assert torch.equal(label, expected[number][1])  # a voxel counts exactly if a label is sure of it
        known = label != IGNORED
        right = labels_to_plan(replace(scans.labels[0], data=truth[None, :, :, None, number]), prepared.plan)
        assert torch.equal(label[known], right[known])
        assert int((~known).sum()) < 60


def test_films_with_two_labelled_frames_and_scans_give_no_tracked_frames(tmp_path):
    film, labels, truth = moving_film(tmp_path, (0, 5))
    scans = read_supports([(film, labels)])
    prepared = prepare(scans)
    assert with_tracked_frames(prepared.support, scans, prepared.plan).derived == 0
    noise = np.random.default_rng(1).normal(size=truth.shape[:2])
    arrays = read_supports([(np.asarray(truth[..., 0] * 100 + noise, np.float32), truth[..., 0])])
    prepared = prepare(arrays)
    assert with_tracked_frames(prepared.support, arrays, prepared.plan).derived == 0


@pytest.mark.parametrize(("takes", "quality", "expected"), [(True, "standard", True), (True, "draft", False),
                                                            (False, "standard", False)])  # fmt: skip
def test_only_learners_that_train_get_them_and_drafts_do_not(tmp_path, takes, quality, expected):
    film, labels, _ = moving_film(tmp_path, (0,))
    settings = AdaptSettings(learner="toy", device="cpu", quality=quality)
    learners = {"toy": replace(toys.TOY, derived=takes)}
    record = adapt(read_supports([(film, labels)]), settings, learners=learners).record["learner"]
    assert bool(record.get("tracked_frames")) == expected


def test_tracked_frames_are_learned_in_fewer_steps(tmp_path):
    film, labels, _ = moving_film(tmp_path, (0,))
    segmenter = adapt(
        read_supports([(film, labels)]), AdaptSettings(learner="finetune", weights="default", device="cpu")
    )
    assert segmenter.record["learner"]["tracked_frames"]
    assert segmenter.record["learner"]["steps"] == LEARNERS["finetune"].steps_from_weights / 4


def test_a_film_of_one_slice_is_learned_and_segmented_in_2d(tmp_path):
    film, labels, truth = moving_film(tmp_path, (4,))
    settings = AdaptSettings(learner="toy", device="cpu")
    segmenter = adapt(read_supports([(film, labels)]), settings, learners={"toy": toys.TOY})
    assert segmenter.plan.spatial_dims == 2
    assert list(trackers_of(open_film(film), segmenter)[0]) == [4]
    found = segment_film(open_film(film), segmenter, SegmentSettings(report=False))
    assert found.labels.shape == (FRAMES, 32, 28, 1)
    assert (found.labels[..., 0] == np.moveaxis(truth, -1, 0)).mean() > 0.99
