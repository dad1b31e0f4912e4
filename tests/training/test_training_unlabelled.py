"""Tasks from scans without labels and from label maps without scans."""

from __future__ import annotations

import pytest
import torch
from toys import make_scan, save_nifti

from medfewshot.errors import InputError
from medfewshot.training.packing import read_pack, write_pack
from medfewshot.training.reading import read_tasks
from medfewshot.training.run import seen_data
from medfewshot.training.settings import TaskSettings, TrainSettings
from medfewshot.training.sources import make_sources

PATCH = {"patches": ((12, 12, 12),), "shots": (1, 2), "ways": (1, 2), "fewest_voxels": 1}
MAPS = {"never": (4,), "same_brightness": ((2, 7),)}


def tasks(**label_maps) -> TaskSettings:
    return TaskSettings(
        synthetic=None,
        regions={**PATCH, "near_mm": None, "datasets": {"blocks": {"volumes_ml": (0.001, 1000)}}},
        label_maps={**PATCH, "near_mm": None, "datasets": {"maps": {**MAPS, **label_maps}}},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        image, label = make_scan(number, values=(2, 4))
        save_nifti(folder / "blocks" / "images" / f"s{number}.nii.gz", image)
        label[:3] = 7
        save_nifti(folder / "blocks" / "labels" / f"s{number}.nii.gz", label)
        save_nifti(folder / "maps" / f"s{number}.nii.gz", label)
    return folder


@pytest.fixture(scope="module")
def read(root):
    return read_tasks(tasks(), root)


def test_regions_share_the_scan_and_read_no_label(read, root, tmp_path):
    (task,) = read["regions"]
    by_subject = {}
    for example in task.examples:
        by_subject.setdefault(example.subject_id, []).append(example)
    assert sorted(by_subject) == ["s0", "s1", "s2"]
    for scales in by_subject.values():
        assert len(scales) == 4
        assert all(one.image is scales[0].image for one in scales)
    for path in sorted((root / "blocks" / "images").iterdir()):
        (tmp_path / "blocks").mkdir(exist_ok=True)
        (tmp_path / "blocks" / path.name).write_bytes(path.read_bytes())
    only = TaskSettings(synthetic=None, regions=tasks().regions)
    for one, other in zip(read_tasks(only, tmp_path)["regions"][0].examples, task.examples, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)


def test_what_was_seen_tells_images_from_labels(read):
    seen = seen_data(read)
    assert seen["blocks"] == {"subjects": ["s0", "s1", "s2"], "labels": {}, "without_labels": ["s0", "s1", "s2"]}
    assert seen["maps"]["labels"] == {"1": "label 2", "3": "label 7"}  # never 4
    assert seen["maps"]["without_labels"] == []
    both = seen_data({"real": (read["label_maps"][0],), "regions": read["regions"]})
    assert list(both) == ["maps", "blocks"]


def test_flat_label_maps_are_refused(tmp_path):
    for number in range(2):
        save_nifti(tmp_path / "maps" / f"s{number}.nii.gz", make_scan(number, (24, 20), values=(2, 4))[1])
    with pytest.raises(InputError, match="contains 2D label maps"):
        read_tasks(TaskSettings(synthetic=None, label_maps={"datasets": {"maps": {}}}), tmp_path)


def test_a_label_that_is_never_a_class_is_painted_all_the_same(read):
    (task,) = read["label_maps"]
    assert task.labels == (1, 3)
    assert task.tissues == {1: 1, 2: 2, 3: 1}  # 2 and 7 look alike
    assert all((example.label == 2).any() for example in task.examples)


def test_a_pack_keeps_every_kind(read, tmp_path):
    path = tmp_path / "all.safetensors"
    write_pack(read, path, tasks())
    again = read_pack(path, tasks())
    for kind, (task,) in read.items():
        (other,) = again[kind]
        assert (other.labels, other.tissues, other.names) == (task.labels, task.tissues, task.names)
        for a, b in zip(task.examples, other.examples, strict=True):
            assert torch.equal(a.image, b.image)
            assert torch.equal(a.label, b.label)
    part = TaskSettings(synthetic=None, regions=tasks().regions)
    assert list(read_pack(path, part)) == ["regions"]
    scales = again["regions"][0].examples[:4]
    assert all(one.image is scales[0].image for one in scales)
    with pytest.raises(InputError, match="other data sets"):
        read_pack(path, tasks(never=()))


def test_each_kind_gives_episodes(read):
    training, validation, warnings = make_sources(TrainSettings(tasks=tasks()), read)
    kinds = set()
    for seed in range(12):
        episode = training.sample(seed)
        kinds.add(episode.task.split("[")[0].split(" ")[0])
        assert not {*episode.support_subjects} & {*episode.query_subjects}
        label = torch.stack(episode.support.labels)
        assert int(label.max()) == episode.support.classes - 1
        assert "label 4" not in episode.task
    assert kinds == {"blocks", "maps"}
    assert "no structure is held out" in warnings[0]
    assert validation.sample(0).query.image.shape[1] == 1


def test_label_maps_of_test_scans_are_not_read(root, tmp_path):
    """Maps below the folder of a data set with a fixed split: those of its support pool alone."""
    maps = tmp_path / "card-mr-mscmr" / "labels"
    maps.mkdir(parents=True)
    first = (root / "maps" / "s0.nii.gz").read_bytes()
    for number in range(17):
        (maps / f"s{number:02}.nii.gz").write_bytes(first)
    wanted = tasks(folder="card-mr-mscmr/labels").label_maps
    (task,) = read_tasks(TaskSettings(label_maps=wanted), tmp_path)["label_maps"]
    assert [example.subject_id for example in task.examples] == [f"s{number:02}" for number in range(15)]


def test_mixed_maps_are_further_subjects(root):
    (task,) = read_tasks(tasks(recombined=2), root)["label_maps"]
    assert [example.subject_id for example in task.examples] == ["s0", "s1", "s2", "mixed 1", "mixed 2"]


def test_carried_regions_are_kept_in_a_pack_and_make_episodes_of_two_subjects(root, tmp_path):
    settings = TaskSettings(synthetic=None, regions=tasks().regions)
    settings.regions.datasets["blocks"] = settings.regions.datasets["blocks"].replace(neighbours=1)
    read = read_tasks(settings, root)
    (task,) = read["regions"]
    assert len(task.examples) == 2 * 3 * 4
    write_pack(read, tmp_path / "pack.safetensors", settings)
    training, _, _ = make_sources(TrainSettings(tasks=settings), read_pack(tmp_path / "pack.safetensors", settings))
    pairs = [training.sample(seed) for seed in range(12)]
    assert any(len({name.split(" ")[0] for name in (*one.support_subjects, *one.query_subjects)}) == 2 for one in pairs)
    assert sorted(seen_data(read)["blocks"]["without_labels"]) == ["s0", "s1", "s2"]


def test_label_maps_that_do_not_fit_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="no map has the label 9"):
        read_tasks(tasks(never=(9,)), root)
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match="fewer than two label maps"):
        read_tasks(TaskSettings(label_maps=tasks().label_maps), tmp_path)
