"""The loss is the learners' loss; the metric follows the package's policy and works in a MONAI engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.networks.utils import one_hot
from monai.transforms import AsDiscreted

from medfewshot.errors import InputError
from medfewshot.integrations import FewShotLoss, SegmentationMetric
from medfewshot.learners.optimization import dice_cross_entropy


def boxes(*spans: tuple[int, int], size: int = 10, classes: int = 3) -> torch.Tensor:
    """One-hot ``(1, classes, size, size)``; class ``i + 1`` fills the rows of the i-th span."""
    label = torch.zeros(1, 1, size, size)
    for value, (start, stop) in enumerate(spans, start=1):
        label[:, :, start:stop] = value
    return one_hot(label, classes)


def test_loss():
    logits, label = torch.randn(2, 3, 4, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4, 4))
    loss = FewShotLoss()
    expected = dice_cross_entropy(logits, label)
    assert torch.equal(loss(logits, label), expected)
    assert torch.equal(loss(MetaTensor(logits), MetaTensor(label[:, None].float())), expected)
    loss(logits, label).backward()
    assert logits.grad is not None
    with pytest.raises(InputError, match="do not fit"):
        loss(logits, label[:, :3])


@pytest.mark.parametrize("value", [0.6, 3, -2, math.nan])
def test_the_loss_takes_whole_numbers_of_known_classes(value):
    logits, label = torch.randn(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    label[..., 0] = -1  # not annotated
    assert torch.isclose(FewShotLoss()(logits, label), dice_cross_entropy(logits[..., 1:], label[:, 0, :, 1:].long()))
    label[..., 1] = value
    with pytest.raises(InputError, match="not whole numbers from -1 to 2"):
        FewShotLoss()(logits, label)


def test_dice_counts_misses_and_false_alarms_and_leaves_out_what_is_absent():
    metric = SegmentationMetric("dice", get_not_nans=True)
    both, half = boxes((0, 4), (4, 8)), boxes((0, 4), (4, 6))
    assert metric(half, both).tolist() == [[1.0, pytest.approx(2 * 2 / 6)]]
    metric.reset()
    metric(boxes((0, 4), (0, 0)), boxes((0, 0), (4, 8)))  # a false alarm and a miss
    metric(boxes((0, 4), (0, 0)), boxes((0, 4), (0, 0)))  # perfect, and absent
    value, counted = metric.aggregate()
    # MONAI's mean: over classes of a case, then over cases.
    assert float(value) == pytest.approx((0.0 + 1.0) / 2)
    assert float(counted) == 2
    per_class, counted = metric.aggregate("mean_batch")
    assert per_class.tolist() == [0.5, 0.0]
    assert counted.tolist() == [2, 1]


def test_label_maps_in_place_of_masks_are_refused():
    labels = torch.randint(3, (2, 1, 6, 6))
    for given in (labels, labels.expand(-1, 3, -1, -1)):
        with pytest.raises(InputError, match="not one-hot"):
            SegmentationMetric("dice")(given, given)


def test_masks_that_are_not_one_hot_are_refused():
    right = boxes((0, 4), (4, 8))
    scores = right * 8 - 4
    wrong = [scores.softmax(1), scores.log_softmax(1), right / 3, right * math.nan, right > -1, right < 0]
    for pair in [(one, right) for one in wrong] + [(right, one) for one in wrong]:
        with pytest.raises(InputError, match="not one-hot"):
            SegmentationMetric()(*pair)
    assert SegmentationMetric()(right > 0, right.half()).tolist() == [[1, 1]]


def test_distances_are_in_millimetres():
    reference, prediction = boxes((0, 4), classes=2), boxes((0, 6), classes=2)
    metric = SegmentationMetric("hd95_mm")
    assert float(metric(prediction, reference)) == pytest.approx(2.0)
    assert float(metric(prediction, reference, spacing_mm=(1.5, 1.0))) == pytest.approx(3.0)
    affine = torch.diag(torch.tensor([2.5, 1.0, 1.0, 1.0], dtype=torch.float64))
    assert float(metric(prediction, MetaTensor(reference, affine=affine))) == pytest.approx(5.0)
    assert float(metric(MetaTensor(prediction, affine=affine), reference)) == pytest.approx(5.0)
    assert float(metric([prediction[0]], [MetaTensor(reference[0], affine=affine)])) == pytest.approx(5.0)


def test_what_the_metric_refuses():
    with pytest.raises(InputError, match="unknown"):
        SegmentationMetric("accuracy")
    with pytest.raises(InputError, match="spacing: unknown; give the voxel size as spacing_mm"):
        SegmentationMetric("hd95_mm")(boxes((0, 2)), boxes((0, 2)), spacing=(3, 1))
    with pytest.raises(InputError, match="one shape"):
        SegmentationMetric()(boxes((0, 2)), boxes((0, 2), classes=2))
    with pytest.raises(ValueError, match="nothing was scored"):
        SegmentationMetric().aggregate()


def test_background_can_be_a_class():
    same = boxes((0, 4), (4, 8))
    assert SegmentationMetric(include_background=True)(same, same).shape == (1, 3)


def test_in_an_engine():
    """A MONAI evaluator with the metric as a handler: one query right, one with its class missed."""
    label = one_hot(torch.tensor(np.eye(6, dtype=np.float32) > 0)[None, None].float(), 2)
    data = [{"image": label[:, 1:] * s, "label": label.argmax(1, keepdim=True)} for s in (1.0, 0.0)]

    class Threshold(torch.nn.Module):
        def forward(self, image):
            return torch.cat([0.5 - image, image - 0.5], 1)

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data,
        network=Threshold(),
        postprocessing=AsDiscreted(["pred", "label"], argmax=(True, False), to_onehot=2),
        key_val_metric={
            "dice": IgniteMetricHandler(SegmentationMetric("dice"), output_transform=from_engine(["pred", "label"]))
        },
    )
    evaluator.run()
    assert math.isclose(evaluator.state.metrics["dice"], 0.5)
