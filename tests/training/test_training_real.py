"""Real base tasks: what may be seen, what an episode shows, and a pack that stands in for the raw data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import make_scan, save_nifti

from medfewshot.errors import InputError
from medfewshot.training import real
from medfewshot.training.packing import BaseDataset, PackedDataset, encode_volume, pack_datasets, read_pack, write_pack
from medfewshot.training.real import RealSettings, RealTasks, _index, _paint, _place, random_curve
from medfewshot.training.run import seen_data

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
def flat():
    """Slices of a large structure, 1, and of a small one, 2: both brighter than the ground."""
    volumes = []
    for subject in range(3):
        label = torch.zeros((48, 48), dtype=torch.uint8)
        label[2:32, 2:32] = 1
        label[37:43, 37:43] = 2
        noise = torch.randn((48, 48), generator=torch.Generator().manual_seed(subject))
        volumes.append(encode_volume(f"s{subject}", ((label > 0) + 0.05 * noise)[None], label))
    return PackedDataset("flat", (1.0, 1.0), (1, 2), (), {1: "large", 2: "small"}, tuple(volumes))


FLAT = replace(SETTINGS, patches=((12, 12),), shots=(1, 1), absent=0.0, curve=0.0)


@pytest.fixture(scope="module")
def packed(root):
    return pack_datasets({"blocks": BaseDataset((2,), (4,), subjects=4)}, root)


def test_packing_keeps_base_labels_and_the_first_subjects(packed):
    (dataset,) = packed
    assert [volume.subject for volume in dataset.volumes] == ["s0", "s1", "s2", "s3"]
    for volume in dataset.volumes:
        assert volume.codes.dtype == torch.uint8
        assert (int(volume.codes.min()), int(volume.codes.max())) == (0, 255)
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
        assert torch.equal(a.codes, b.codes)
        assert (a.low, a.step) == (b.low, b.step)
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


@pytest.mark.parametrize(("progress", "exponent"), [(0.0, 1.0), (0.5, 0.35), (1.0, -0.3)])
def test_the_curriculum_goes_from_large_classes_to_small_ones(flat, progress, exponent):
    """900 and 36 voxels: the small one has 0.04 ** (exponent / 2) of the large one's weight."""
    tasks = RealTasks([flat], FLAT)
    found = [tasks.episode(seed, progress, CPU).task == "flat[large]" for seed in range(150)]
    assert sum(found) / len(found) == pytest.approx(1 / (1 + 0.04 ** (exponent / 2)), abs=0.1)


@pytest.mark.parametrize(("absent", "shown"), [(0.0, 1.0), (1.0, 0.11)])
def test_a_query_patch_may_lie_anywhere(flat, absent, shown):
    """Then a patch of 12 meets the structure of 6 in a third of the places along each axis."""
    tasks = RealTasks([replace(flat, labels=(2,))], replace(FLAT, absent=absent))
    episodes = [tasks.episode(seed, 0.5, CPU) for seed in range(60)]
    assert all(bool(episode.support.labels[0].any()) for episode in episodes)
    assert sum(bool(e.query.label.any()) for e in episodes) / 60 == pytest.approx(shown, abs=0.1 * absent)


@pytest.mark.parametrize(("curve", "inverted"), [(0.0, 0.0), (1.0, 0.25)])
def test_curves_turn_bright_into_dark_in_a_quarter(flat, curve, inverted):
    """The same in the support and the query of an episode."""
    tasks = RealTasks([replace(flat, labels=(2,))], replace(FLAT, curve=curve))
    dark = []
    for seed in range(80):
        episode = tasks.episode(seed, 0.5, CPU)
        support, query = episode.support, episode.query
        pairs = [(support.images[0], support.labels[0]), (query.image[0], query.label[0])]
        signs = {bool(image[0][label == 1].median() < image[0][label == 0].median()) for image, label in pairs}
        assert len(signs) == 1
        dark.append(signs.pop())
    assert sum(dark) / 80 == pytest.approx(inverted, abs=0.12 * curve)


@pytest.mark.parametrize(
    ("curve", "free", "kinds"),
    [(0.0, 0.0, set()), (1.0, 0.0, {True}), (1.0, 1.0, {False}), (0.5, 0.5, {True, False, None})],
)
def test_episodes_are_drawn_with_curves_as_often_as_set(flat, monkeypatch, curve, free, kinds):
    drawn = []
    monkeypatch.setattr(real, "random_curve", lambda images, rng, monotone: drawn.append(monotone) or images)
    tasks = RealTasks([replace(flat, labels=(1,))], replace(FLAT, curve=curve, free_curve=free))
    for seed in range(24):
        tasks.episode(seed, 0.5, CPU)
    assert set(drawn) == kinds - {None}
    assert (0 < len(drawn) < 24) is (None in kinds)


def test_curves_are_monotone_and_shared():
    images = torch.linspace(-2, 3, 400).view(2, 1, 20, 10)
    signs = set()
    for seed in range(12):
        curved = random_curve(images, np.random.default_rng(seed)).flatten()
        steps = curved.diff()
        signs.add(bool((steps <= 1e-5).all()))
        assert bool((steps >= -1e-5).all()) or bool((steps <= 1e-5).all())
        assert float(curved.mean()) == pytest.approx(0, abs=1e-4)
        assert float(curved.std()) == pytest.approx(1, abs=1e-3)
    assert signs == {True, False}


def test_a_free_curve_is_shared_and_turns_back():
    images = torch.linspace(-2, 3, 400).view(2, 1, 20, 10)
    curved = random_curve(images, np.random.default_rng(0), monotone=False).flatten()
    signs = curved.diff().sign()
    assert {-1.0, 1.0} <= set(signs.tolist())
    twice = random_curve(images[[0, 0]], np.random.default_rng(0), monotone=False)
    assert torch.equal(twice[0], twice[1])


def test_an_encoded_volume_is_off_by_half_a_step_at_most():
    image = torch.randn((1, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    volume = encode_volume("s", image, torch.zeros((9, 8, 7), dtype=torch.uint8))
    again, label = volume.read((slice(0, 9), slice(2, 5), slice(0, 7)), CPU)
    assert again.shape == (1, 9, 3, 7)
    assert label.shape == (1, 9, 3, 7)
    assert float((again - image[:, :, 2:5]).abs().max()) <= 0.51 * volume.step
    constant = encode_volume("s", torch.full((1, 2, 2, 2), 3.0), torch.zeros((2, 2, 2), dtype=torch.uint8))
    assert torch.equal(constant.read((slice(0, 2),) * 3, CPU)[0], torch.full((1, 2, 2, 2), 3.0))


def test_few_slices_are_thick_ones(packed):
    settings = replace(SETTINGS, patches=((12, 12, 4),), thick=(0.9, 1.1))
    for seed in range(6):
        x, _, z = RealTasks(packed, settings).episode(seed, 0.5, CPU).support.spacing_mm
        assert 2.6 < z / x < 3.4  # a cube: 12 / 4, within a tenth
    cube = RealTasks(packed, SETTINGS).episode(0, 0.5, CPU).support.spacing_mm
    assert cube == pytest.approx(packed[0].spacing_mm)


def test_mirrored_episodes_and_repainted_structures(packed):
    plain = RealTasks(packed, SETTINGS)
    mirrored = RealTasks(packed, replace(SETTINGS, mirror=1.0))
    painted = RealTasks(packed, replace(SETTINGS, repaint=1.0))
    a, b, c = (tasks.episode(4, 0.5, CPU) for tasks in (plain, mirrored, painted))
    assert torch.equal(b.query.label, a.query.label.flip((1, 2, 3)))
    assert torch.equal(b.support.images[0], a.support.images[0].flip((1, 2, 3)))
    assert c.query.label.shape == a.query.label.shape
    assert not torch.equal(c.query.image, a.query.image)


def test_paint_changes_structures_alone():
    image, label = torch.zeros((1, 9, 9)), torch.zeros((9, 9), dtype=torch.long)
    label[3:8, 3:8] = 2
    table = torch.zeros(256)
    table[2] = 0.5
    painted = _paint(image, label, table)[0]
    assert float(painted[5, 5]) == 0.5
    assert float(painted[0, 0]) == 0
    assert 0 < float(painted[3, 5]) < 0.5  # a soft border


def test_patches_stay_inside_the_volume(packed):
    (dataset,) = packed
    indexed = _index(dataset, (2,))[0]
    whole = torch.tensor(indexed.volume.label.shape).float()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centre = _place(indexed, (2,), [0, None][seed % 2], torch.full((3,), 8.0), rng)
        assert bool((centre >= 3.5).all())
        assert bool((centre <= whole - 4.5).all())
    assert torch.equal(_place(indexed, (2,), 0, 4 * whole, rng), (whole - 1) / 2)


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
