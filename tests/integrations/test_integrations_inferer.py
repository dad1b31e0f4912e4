"""The inferer gives what the Python call gives, for batches, probabilities and 2D images in 3D files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toys
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai_toys import OBLIQUE, meta_scan, support

import medfewshot
from medfewshot.api import as_volume
from medfewshot.inference import MemoryLimits, segment_volume
from medfewshot.integrations import FewShotInferer, load_network
from medfewshot.planning import plan_to_dict


@pytest.fixture
def segmenter(monkeypatch):
    toys.install(monkeypatch)
    return medfewshot.adapt(support(), learner="toy", device="cpu")


def test_a_batch_of_native_images(segmenter):
    items = [{"image": meta_scan(3)[0]}, {"image": meta_scan(4, OBLIQUE * 1.0)[0]}]
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))["image"]
    inferer = FewShotInferer(segmenter.plan)
    assert isinstance(inferer, Inferer)
    found = inferer(batch, segmenter)
    assert found.shape == (2, 1, *toys.SHAPE)
    for item, one in zip(items, decollate_batch(found), strict=True):
        assert np.array_equal(one[0].numpy(), medfewshot.segment(item["image"], segmenter).labels)
        assert torch.equal(one.affine, item["image"].affine)


def test_a_scan_in_lps_or_metres_is_seen_like_the_same_scan_in_ras_and_millimetres(segmenter):
    seen, query = [], meta_scan(3)[0]
    flip = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=query.affine.dtype))
    in_lps = MetaTensor(query.as_tensor(), affine=flip @ query.affine, meta={"space": "left-posterior-superior"})
    shrunk = torch.diag(torch.tensor([0.001, 0.001, 0.001, 1], dtype=query.affine.dtype)) @ query.affine
    in_metres = MetaTensor(query.as_tensor(), affine=shrunk, meta={"xyzt_units": np.uint8(1)})
    two = next(iter(DataLoader(Dataset([{"image": in_metres}] * 2), batch_size=2)))["image"]
    for batch in (query[None], in_lps[None], in_metres[None], two):
        FewShotInferer(segmenter.plan)(batch, lambda part: seen.append(part.clone()) or segmenter.segmenter(part))
    assert len(seen) == 5
    assert all(torch.allclose(seen[0], one, atol=1e-5) for one in seen)


def test_probabilities_and_a_plan_as_data(segmenter):
    query = meta_scan(3)[0]
    found = FewShotInferer(plan_to_dict(segmenter.plan), output="probabilities")(query[None], segmenter)
    assert found.shape == (1, 3, *toys.SHAPE)
    expected = medfewshot.segment(query, segmenter, probabilities=True).probabilities
    assert np.array_equal(found[0].numpy(), expected.astype(np.float32))
    with pytest.raises(ValueError, match="choose"):
        FewShotInferer(segmenter.plan, output="logits")


def test_arguments_reach_the_network(segmenter):
    seen = []

    def network(image, factor, shift=0.0):
        seen.append((factor, shift))
        return segmenter(image) * factor + shift

    query = meta_scan(3)[0][None]
    found = FewShotInferer(segmenter.plan)(query, network, 2.0, shift=1.0)
    assert set(seen) == {(2.0, 1.0)}
    assert torch.equal(found, FewShotInferer(segmenter.plan)(query, segmenter))


def test_a_plain_tensor_is_taken_as_by_the_python_call(monkeypatch, segmenter):
    batch = torch.stack([meta_scan(seed)[0].as_tensor() for seed in (3, 4)])
    with pytest.warns(UserWarning, match="taken voxel for voxel"):
        found = FewShotInferer(segmenter.plan)(batch, segmenter)
    for image, one in zip(batch, found, strict=True):
        assert np.array_equal(one[0].numpy(), medfewshot.segment(image[0], segmenter).labels)


def test_a_batch_warns_with_the_names_of_its_files(segmenter):
    items = []
    for name, level in (("full", 1.0), ("empty", 0.0)):
        image = meta_scan(3)[0]
        items.append({"image": MetaTensor(image.as_tensor() * level, meta={"filename_or_obj": f"{name}.nii"})})
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))["image"]
    with pytest.warns(UserWarning, match="was not found") as caught:
        FewShotInferer(segmenter.plan)(batch, segmenter)
    assert not [one for one in caught if "full.nii" in str(one.message) and "was not found" in str(one.message)]
    assert [one for one in caught if "empty.nii" in str(one.message) and "was not found" in str(one.message)]


def test_supports_and_a_plain_tensor_without_spacing(monkeypatch):
    toys.install(monkeypatch)
    image, label = toys.make_scan(0)
    segmenter = medfewshot.adapt([(image, label)], learner="toy", device="cpu")
    batch = torch.from_numpy(toys.make_scan(1)[0].astype(np.float32))[None, None]
    found = FewShotInferer(segmenter.plan)(batch, segmenter)
    assert np.array_equal(found[0, 0].numpy(), medfewshot.segment(batch[0, 0], segmenter).labels)


def test_a_flat_image_in_a_3d_file(monkeypatch):
    toys.install(monkeypatch)
    shape = (24, 20)
    image, label = toys.make_scan(0, shape)
    segmenter = medfewshot.adapt([(image, label)], learner="toy", device="cpu")
    query = toys.make_scan(1, shape)[0].astype(np.float32)
    flat = MetaTensor(torch.from_numpy(query)[None, None, :, :, None])
    found = FewShotInferer(segmenter.plan)(flat, segmenter)
    assert found.shape == flat.shape
    assert np.array_equal(found[0, 0, ..., 0].numpy(), medfewshot.segment(query, segmenter).labels)


class Whole(toys.ToySegmenter):
    """Needs the whole field of view, doubts its first structure, and has a part that works in windows."""

    whole_volume = True
    calibration = 3.0

    @property
    def windowed(self):
        return toys.ToySegmenter(self.means)

    def examine(self, image, *, overlap=0.5):
        return self(image), [(1, "uncertain")]


def test_a_volume_segmenter_keeps_doubts_calibration_and_fallback(segmenter):
    """Every way into inference, the MONAI inferer included, reads them from the ``VolumeSegmenter`` that it gets."""
    volume = as_volume(meta_scan(3)[0])
    whole = medfewshot.VolumeSegmenter(segmenter.plan, Whole(segmenter.segmenter.means))
    options = FewShotInferer(whole.plan).settings
    found, direct = (segment_volume(volume, whole.plan, one, options) for one in (whole, whole.segmenter))
    assert "is uncertain" in found.flags[0]
    assert found.flags == direct.flags
    assert found.predicted_dice == direct.predicted_dice != segment_volume(volume, whole.plan, segmenter).predicted_dice
    done = segment_volume(volume, whole.plan, whole, options, limits=MemoryLimits(whole_values=1))
    assert "network alone" in done.warnings[0]


@pytest.mark.parametrize("learner", ["finetune", "prototype"])
def test_a_network_for_torch(tmp_path, learner):
    segmenter = medfewshot.adapt(support(1), learner=learner, steps=1, device="cpu")
    segmenter.save(tmp_path)
    network = load_network(tmp_path, "cpu").eval()
    assert network.plan == segmenter.plan
    assert sum(p.numel() for p in network.parameters()) > 1000
    image = torch.randn(2, 1, 16, 16, 16)
    assert torch.equal(network.to("cpu")(image), segmenter(image))
    assert torch.equal(network.to(device=torch.device("cpu"))(MetaTensor(image)), segmenter(image))
