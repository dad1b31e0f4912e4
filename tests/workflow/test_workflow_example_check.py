"""The check of the examples after an adaptation in 2D, where the default learner does not compare them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import toys

from medfewshot.settings import AdaptSettings
from medfewshot.types import Volume
from medfewshot.workflow import LabelledScans, adapt

TOY = AdaptSettings(learner="toy", device="cpu")
LEARNERS = {"toy": toys.TOY}


def test_a_2d_mask_that_belongs_to_another_image_is_named():
    rng = np.random.default_rng(0)
    squares = [np.zeros((16, 16), np.int64) for _ in range(3)]
    for number, square in enumerate(squares):
        square[5 : 10 + number, 5:11] = 1
    affine = np.eye(4)
    images = [Volume((square * 6 + rng.normal(size=(16, 16)))[None].astype(np.float32), affine) for square in squares]
    images = [replace(image, path=Path(f"{name}.png")) for image, name in zip(images, "abc", strict=True)]
    labels = [Volume(square[None], affine) for square in (squares[0], np.roll(squares[1], 8), squares[2])]
    scans = LabelledScans(images, labels, {1: "square"})
    record = adapt(scans, TOY, learners=LEARNERS).record
    assert [bool(row["message"]) for row in record["support_check"]] == [False, True, False]
    assert any(warning.startswith("check b.png: its mask fits none of the others") for warning in record["warnings"])
    few = LabelledScans(images[:2], labels[:2], {1: "square"})
    assert [row["dice"] for row in adapt(few, TOY, learners=LEARNERS).record["support_check"]] == [None, None]
