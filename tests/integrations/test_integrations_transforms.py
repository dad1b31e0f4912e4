"""Transforms that segment: they compose, keep the query's grid, and can be inverted through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    Spacingd,
)
from monai_toys import OBLIQUE, meta_scan, support

import medfewshot
from medfewshot.errors import InputError
from medfewshot.integrations import FewShotSegment, FewShotSegmentd, ToPlan, ToPland
from medfewshot.io import as_volume, read_label


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toys.install(monkeypatch)


def dice(a, b) -> float:
    a, b = np.asarray(a) > 0, np.asarray(b) > 0
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_labels_are_those_of_the_python_call_and_lie_on_the_querys_grid():
    transform = FewShotSegment(support(), learner="toy", device="cpu")
    query, truth = meta_scan(7)
    found = transform(query)
    expected = medfewshot.segment(query, support(), learner="toy", device="cpu").labels
    assert found.shape == (1, *toys.SHAPE)
    assert found.dtype == torch.int32
    assert np.array_equal(found[0].numpy(), expected)
    assert torch.equal(found.affine, query.affine)
    assert dice(found, truth) > 0.9
    assert set(found.unique().tolist()) == {0, *toys.VALUES}


@pytest.mark.parametrize("spaced", ["supports", "query"])
def test_a_spacing_on_one_side_only_is_met_as_by_the_python_call(spaced):
    pairs, (query, truth) = support(), meta_scan(7)
    if spaced == "supports":
        query = query.as_tensor()
    else:
        pairs = [(image.numpy()[0], label.numpy()[0]) for image, label in pairs]
    transform = FewShotSegment(pairs, learner="toy", device="cpu")
    with pytest.warns(UserWarning, match="voxel for voxel"):
        found = transform(query)
    given = query[0] if spaced == "supports" else query
    assert np.array_equal(found[0].numpy(), medfewshot.segment(given, transform.segmenter).labels)
    assert dice(found, truth) > 0.9


def test_a_learner_adapts_once_for_many_images():
    transform = FewShotSegmentd("image", support=support(), learner="toy", device="cpu")
    assert toys.ToyLearner.adapted == 1
    for seed in (5, 6):
        transform({"image": meta_scan(seed)[0]})
    assert toys.ToyLearner.adapted == 1


def test_a_pipeline_from_file_to_file(tmp_path):
    scans = toys.make_folders(tmp_path)
    pipeline = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            FewShotSegmentd("image", support=scans / "annotated", learner="toy", device="cpu"),
            SaveImaged(
                "pred", output_dir=tmp_path / "out", output_postfix="seg", separate_folder=False,
                output_dtype=np.int16, print_log=False,
            ),
        ]
    )  # fmt: skip
    pipeline({"image": str(scans / "cohort" / "q0.nii.gz")})
    saved = read_label(tmp_path / "out" / "q0_seg.nii.gz")
    reference = read_label(scans / "reference" / "q0.nii.gz")
    assert np.allclose(saved.affine, reference.affine, atol=1e-5)
    assert dice(saved.data, reference.data) > 0.9


def test_invertd_leads_back_to_the_grid_of_the_file():
    query, truth = meta_scan(8)
    before = Compose(
        [Orientationd("image", axcodes="LPS", labels=None), Spacingd("image", pixdim=(1.0, 1.0, 2.0), mode="bilinear")]
    )
    segmenter = medfewshot.adapt(support(), learner="toy", device="cpu", modality="CT")
    whole = Compose([*before.transforms, FewShotSegmentd("image", segmenter=segmenter)])
    data = whole({"image": query})
    assert data["pred"].shape[1:] == data["image"].shape[1:] != query.shape[1:]
    back = Invertd("pred", transform=whole, orig_keys="image", nearest_interp=True)(data)["pred"]
    assert back.shape == query.shape
    assert torch.allclose(back.affine, query.affine, atol=1e-4)
    assert set(back.unique().tolist()) <= {0, *toys.VALUES}
    assert dice(back, truth) > 0.8


def test_a_cache_and_workers():
    data = [{"image": meta_scan(seed)[0]} for seed in (3, 4)]
    transform = FewShotSegmentd("image", support=support(), learner="toy", device="cpu")
    cached = CacheDataset(data, Compose([transform]), cache_rate=1.0, num_workers=1, progress=False)
    batch = next(iter(DataLoader(cached, batch_size=2, num_workers=0)))
    assert batch["pred"].shape == (2, 1, *toys.SHAPE)
    assert torch.equal(batch["pred"][0], transform(data[0])["pred"])


def test_maps_on_request_and_several_keys():
    transform = FewShotSegmentd(
        ["a", "b"], support=support(), learner="toy", device="cpu", label_key=["a_pred", "b_pred"],
        probabilities_key=["a_prob", "b_prob"], uncertainty_key=["a_doubt", "b_doubt"],
    )  # fmt: skip
    done = transform({"a": meta_scan(3)[0], "b": meta_scan(4)[0], "other": 1})
    assert set(done) == {"a", "b", "other", "a_pred", "b_pred", "a_prob", "b_prob", "a_doubt", "b_doubt"}
    assert done["b_prob"].shape == (3, *toys.SHAPE)
    assert torch.allclose(done["b_prob"].as_tensor().sum(0), torch.ones(toys.SHAPE), atol=5e-3)
    assert done["b_doubt"].shape == (1, *toys.SHAPE)


def test_a_missing_key():
    transform = FewShotSegmentd("image", segmenter=medfewshot.adapt(support(), learner="toy", device="cpu"))
    with pytest.raises(KeyError, match="image"):
        transform({"other": 1})
    transform.allow_missing_keys = True
    assert transform({"other": 1}) == {"other": 1}


def test_a_saved_segmenter_serves_too(tmp_path):
    segmenter = medfewshot.adapt(support(), learner="toy", device="cpu")
    segmenter.save(tmp_path)
    query, _ = meta_scan(9)
    first, second = FewShotSegment(segmenter=segmenter), FewShotSegment(segmenter=tmp_path, device="cpu")
    assert torch.equal(first(query), second(query))


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="either a support or a segmenter"):
        FewShotSegment()
    with pytest.raises(InputError, match="unknown"):
        FewShotSegment(support(), learner="oracle")
    with pytest.raises(ValueError, match="must differ"):
        FewShotSegmentd(["a", "b"], support=support(), learner="toy")
    with pytest.raises(InputError, match="channel"):
        FewShotSegment(support(), learner="toy", device="cpu")(torch.zeros(2, *toys.SHAPE))


def test_to_plan_and_back():
    plan = medfewshot.adapt(support(), learner="toy", device="cpu").plan
    query, truth = meta_scan(2, affine=OBLIQUE[:, [2, 0, 1, 3]])
    grid = ToPland(["image", "label"], plan, label=[False, True])
    done = grid({"image": query, "label": truth})
    assert done["image"].shape == done["label"].shape
    assert torch.equal(done["image"].affine, done["label"].affine)
    assert set(done["label"].unique().tolist()) == {0, 1, 2}
    inverse = grid.inverse(done)
    assert inverse["label"].shape == truth.shape
    assert torch.allclose(inverse["label"].affine, truth.affine)
    assert dice(inverse["label"], truth) > 0.95
    assert not inverse["image"].applied_operations


def test_the_label_of_a_scan_with_two_channels_to_plan():
    scans = [(torch.cat([image, image]), label) for image, label in (meta_scan(seed) for seed in (0, 1))]
    plan = medfewshot.adapt(scans, learner="toy", device="cpu").plan
    done = ToPland(["image", "label"], plan, label=[False, True])({"image": scans[0][0], "label": scans[0][1]})
    assert (len(done["image"]), len(done["label"])) == (2, 1)
    assert done["image"].shape[1:] == done["label"].shape[1:]


def test_to_plan_is_inverted_like_inference_restores():
    """Probabilities by Invertd, then the largest: the labels that bounded-memory inference writes."""
    segmenter = medfewshot.adapt(support(), learner="toy", device="cpu")
    query, _ = meta_scan(5)
    grid = ToPland("image", segmenter.plan)
    data = grid({"image": query})
    data["pred"] = MetaTensor(segmenter(data["image"].as_tensor()[None])[0].softmax(0))
    back = Invertd("pred", grid, orig_keys="image", nearest_interp=False)(data)["pred"]
    values = torch.tensor([0, *segmenter.plan.label_values])
    labels = values[back.as_tensor().argmax(0)]
    assert torch.equal(back.affine, query.affine.double())
    expected = medfewshot.segment(query, segmenter).labels
    assert (labels.numpy() != expected).mean() < 1e-3  # keep_largest and the foreground floor aside


def test_to_plan_and_back_for_a_volume_of_one_slice():
    slices = [[MetaTensor(one.as_tensor()[:, :, 4:5], affine=OBLIQUE) for one in meta_scan(seed)] for seed in (0, 1)]
    plan = medfewshot.adapt(slices, learner="toy", device="cpu").plan
    assert plan.spatial_dims == 2
    image, label = slices[1]
    grid = ToPland(["image", "label"], plan, label=[False, True])
    inverse = grid.inverse(grid({"image": image, "label": label}))
    assert inverse["image"].shape == inverse["label"].shape == label.shape
    assert dice(inverse["label"], label) > 0.95


@pytest.mark.parametrize(
    ("factors", "meta"),
    [((-1, -1, 1, 1), {"space": "left-posterior-superior"}), ((1e-3, 1e-3, 1e-3, 1), {"xyzt_units": np.uint8(1)})],
    ids=["LPS", "metres"],
)
def test_to_plan_keeps_the_coordinates_of_an_image(factors, meta):
    plan = medfewshot.adapt(support(), learner="toy", device="cpu").plan
    query, _ = meta_scan(3, affine=OBLIQUE)
    factors = torch.diag(torch.tensor(factors, dtype=torch.float64))
    other = MetaTensor(query.as_tensor(), affine=factors @ query.affine.double(), meta=meta)
    grid = ToPlan(plan)
    expected, done = grid(query), grid(other)
    assert torch.allclose(done.as_tensor(), expected.as_tensor(), atol=1e-5)
    assert torch.allclose(done.affine, factors @ expected.affine, atol=1e-4)
    assert np.allclose(as_volume(done).affine, as_volume(expected).affine, atol=1e-4)
    assert torch.equal(grid.inverse(done).affine, other.affine)


def test_to_plan_warns_of_a_plain_tensor_unless_the_plan_has_1_mm(recwarn):
    plan = medfewshot.adapt(support(), learner="toy", device="cpu").plan
    image = meta_scan(3)[0].as_tensor()
    with pytest.warns(UserWarning, match="taken as 1 mm"):
        ToPlan(plan)(image)
    ToPlan(replace(plan, spacing_mm=(1.0, 1.0, 1.0)))(image)
    assert not recwarn.list


def test_to_plan_from_json_data():
    from medfewshot.planning import plan_to_dict

    plan = medfewshot.adapt(support(), learner="toy", device="cpu").plan
    query, _ = meta_scan(1)
    assert torch.equal(ToPlan(plan)(query), ToPlan(plan_to_dict(plan))(query))


@pytest.mark.parametrize("own", [True, False])
def test_a_film_is_segmented_as_by_the_python_call(tmp_path, own):
    """Labels of a frame of its own are carried to the others; otherwise each frame is segmented alone."""
    frames = [toys.make_scan(seed) for seed in (1, 2, 3)]
    film = toys.save_nifti(tmp_path / "film.nii.gz", np.stack([image for image, _ in frames], -1))
    label = toys.save_nifti(tmp_path / "label.nii.gz", frames[0][1])
    example = film if own else toys.save_nifti(tmp_path / "one.nii.gz", frames[0][0])
    segmenter = medfewshot.adapt([(example, label)], learner="toy", device="cpu", frame=0 if own else None)
    pipeline = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), FewShotSegmentd("image", segmenter=segmenter, frames=True)]
    )
    found = pipeline({"image": str(film)})["pred"]
    assert found.shape == (3, *toys.SHAPE)
    assert np.array_equal(found.numpy(), medfewshot.segment_film(film, segmenter).labels)
    for (_, truth), one in zip(frames, found, strict=True):
        assert dice(one, truth) > 0.9


def test_a_film_has_label_maps_only():
    film = torch.cat([meta_scan(seed)[0] for seed in (1, 2)])
    segmenter = medfewshot.adapt(support(), learner="toy", device="cpu")
    with pytest.raises(ValueError, match="label maps only"):
        FewShotSegmentd("image", segmenter=segmenter, frames=True, uncertainty_key="doubt")({"image": film})
