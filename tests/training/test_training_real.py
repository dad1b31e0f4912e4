"""Real base tasks: what may be seen, what an episode shows, and a pack that stands in for the raw data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import make_scan, save_nifti

from medfewshot.training.packing import BaseDataset, pack_datasets, read_pack, write_pack
from medfewshot.training.real import RealSettings, RealTasks, monotone_curve
from medfewshot.training.run import seen_data
from medfewshot.types import InputError

CPU = torch.device("cpu")
SETTINGS = RealSettings(patches=((12, 12, 12),), shots=(1, 2), ways=(1, 1), zoom=(1.0, 1.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(5):
        image, label = make_scan(number, values=(2, 4))
        label[0, 0, 0] = 7  # a novel structure
        save_nifti(folder / "blocks" / "images" / f"s{number}.nii.gz", image)
        save_nifti(folder / "blocks" / "labels" / f"s{number}.nii.gz", label)
    return folder


@pytest.fixture(scope="module")
def packed(root):
    return pack_datasets({"blocks": BaseDataset((2,), (4,), subjects=4)}, root)


def test_packing_keeps_base_labels_and_the_first_subjects(packed):
    (dataset,) = packed
    assert [volume.subject for volume in dataset.volumes] == ["s0", "s1", "s2", "s3"]
    for volume in dataset.volumes:
        assert volume.image.dtype == torch.float16
        assert set(volume.label.unique().tolist()) == {0, 2, 4}  # nothing of the novel 7
    assert set(seen_data(packed)["blocks"]["labels"]) == {"2"}


def test_a_pack_comes_back(packed, tmp_path):
    path = tmp_path / "base.safetensors"
    write_pack(packed, path)
    wanted = {"blocks": BaseDataset((2,), (4,))}
    (again,) = read_pack(path, wanted)
    assert (again.name, again.spacing_mm, again.names) == (packed[0].name, packed[0].spacing_mm, packed[0].names)
    for a, b in zip(again.volumes, packed[0].volumes, strict=True):
        assert a.subject == b.subject
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
    with pytest.raises(InputError, match="other data sets or labels"):
        read_pack(path, {"blocks": BaseDataset((4,))})
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no pack"):
        read_pack(path, wanted)


def test_episodes_show_their_classes_in_different_subjects(packed):
    tasks = RealTasks(packed, SETTINGS)
    for seed in range(8):
        episode = tasks.episode(seed, 0.5, CPU)
        assert episode.task == "blocks[label 2]"
        assert not set(episode.support_subjects) & set(episode.query_subjects)
        assert len(set(episode.support_subjects)) == episode.support.shots
        assert any(bool((label == 1).any()) for label in episode.support.labels)
        assert all(image.shape == (1, 12, 12, 12) for image in episode.support.images)
        assert episode.query.label.shape == (1, 12, 12, 12)
        assert torch.isfinite(episode.query.image).all()
    validation = RealTasks(packed, SETTINGS, validation=True).episode(0, 0.5, CPU)
    assert validation.task == "blocks[label 4]"


def test_a_seed_decides_everything(packed):
    tasks = RealTasks(packed, SETTINGS)
    first, again = tasks.episode(3, 0.5, CPU), tasks.episode(3, 0.5, CPU)
    assert torch.equal(first.query.image, again.query.image)
    assert torch.equal(first.support.labels[0], again.support.labels[0])


def test_labels_lie_where_the_image_shows_them(packed):
    """Without curves the blocks are brighter than the ground in every patch, wherever and however it was read."""
    tasks = RealTasks(packed, replace(SETTINGS, curve=0.0, zoom=(0.7, 1.5)))
    for seed in range(5):
        support = tasks.episode(seed, 0.5, CPU).support
        image, label = torch.stack(support.images)[:, 0], torch.stack(support.labels)
        assert float(image[label == 1].median()) > float(image[label == 0].median()) + 0.5


def test_curves_are_monotone_and_shared():
    images = torch.linspace(-2, 3, 400).view(2, 1, 20, 10)
    signs = set()
    for seed in range(12):
        curved = monotone_curve(images, np.random.default_rng(seed)).flatten()
        steps = curved.diff()
        signs.add(bool((steps <= 1e-5).all()))
        assert bool((steps >= -1e-5).all()) or bool((steps <= 1e-5).all())
        assert float(curved.mean()) == pytest.approx(0, abs=1e-4)
        assert float(curved.std()) == pytest.approx(1, abs=1e-3)
    assert signs == {True, False}


def test_what_cannot_be_trained_on_is_refused(packed, root):
    with pytest.raises(InputError, match="both base and validation"):
        BaseDataset((1, 2), (2,))
    with pytest.raises(InputError, match="0 is background"):
        BaseDataset((0, 1))
    with pytest.raises(InputError, match="fewer than two"):
        pack_datasets({"blocks": BaseDataset((2,), subjects=1)}, root)
    with pytest.raises(InputError, match="no data set has labels"):
        RealTasks([replace(packed[0], validation_labels=())], SETTINGS, validation=True)
    with pytest.raises(InputError, match="does not exist"):
        pack_datasets({"absent": BaseDataset((2,))}, root)


@pytest.mark.real
def test_only_the_support_pool_of_a_known_data_set_is_read(data_root):
    wanted = BaseDataset(labels=(1,), validation_labels=(2,), folder="Task04_Hippocampus")
    (dataset,) = pack_datasets({"any name": replace(wanted, subjects=3)}, data_root)
    assert len(dataset.volumes) == 3
    from medfewshot.datasets import read_dataset
    from medfewshot.training.packing import _pool

    cases = read_dataset(data_root / "Task04_Hippocampus").labelled
    names = sorted(case.image_path.name for case in cases)
    assert [case.image_path.name for case in _pool("x", wanted, read_dataset(data_root / wanted.folder))] == names[:60]
    episode = RealTasks([dataset], replace(SETTINGS, patches=((24, 24, 24),), shots=(1, 1))).episode(0, 0.0, CPU)
    assert episode.task.startswith("any name[")
