"""A mask on the edges of its scan has a high edge ratio; one beside them has not."""

from __future__ import annotations

import numpy as np
import torch

from medfewshot.mask_fit import mask_fit

EDGE, EVENNESS = 0, 1


def test_edges_and_evenness_of_the_right_and_of_a_shifted_mask():
    ball = ((np.indices((32, 32, 32)) - 16) ** 2).sum(0) < 64
    rng = np.random.default_rng(0)
    image = torch.from_numpy((ball * 3 + rng.normal(0, 0.5, ball.shape)).astype(np.float32))[None]
    right = mask_fit(image, torch.from_numpy(ball.astype(np.int64)), 3)
    shifted = mask_fit(image, torch.from_numpy(np.roll(ball, 6, 0).astype(np.int64)), 3)
    assert right[0, EDGE] > 1.5 > 1.2 > shifted[0, EDGE]
    assert abs(1 / right[0, EVENNESS] - 0.5) < 0.03
    assert right[0, EVENNESS] > 2 * shifted[0, EVENNESS]
    assert np.isnan(right[1]).all()


def test_partly_annotated_and_constant_structures_are_undefined():
    label = torch.zeros(1, 16, 16, dtype=torch.int64)[0]
    label[4:12, 4:12] = 1
    assert np.isnan(mask_fit(torch.zeros(1, 16, 16), label, 2)).all()
    noise = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert np.isfinite(mask_fit(noise, label, 2)).all()
    label[3, 4:12] = -1
    assert np.isnan(mask_fit(noise, label, 2)).all()
