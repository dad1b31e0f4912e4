"""Real base tasks: what may be seen, and a pack that stands in for the raw data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toys import make_scan, save_nifti

from medfewshot.episodes import EpisodeSampler, Example, LabelledTask
from medfewshot.errors import InputError
from medfewshot.training.packing import read_pack, write_pack
from medfewshot.training.reading import encode_volume, read_tasks
from medfewshot.training.run import seen_data, train
from medfewshot.training.settings import BackboneSettings, BaseDataset, RealSettings, TaskSettings, TrainSettings
from medfewshot.training.sources import make_sources

CPU = torch.device("cpu")
REAL = RealSettings(patches=((12, 12, 12),), shots=(1, 2), ways=(1, 1))


BLOCKS = BaseDataset(labels=(2,), validation_labels=(4,), subjects=4)


def real(dataset: BaseDataset, name: str = "blocks") -> TaskSettings:
    return TaskSettings(synthetic=None, real=REAL.replace(datasets={name: dataset}))


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
    return read_tasks(real(BLOCKS), root)["real"]


def test_packing_keeps_base_labels_and_the_first_subjects(packed):
    (task,) = packed
    assert [example.subject_id for example in task.examples] == ["s0", "s1", "s2", "s3"]
    for example in task.examples:
        assert example.image.dtype == torch.uint8
        assert (int(example.image.min()), int(example.image.max())) == (0, 255)
        assert set(example.label.unique().tolist()) == {0, 2, 4}  # nothing of the novel 7
    assert set(seen_data({"real": packed})["blocks"]["labels"]) == {"2"}


def test_what_was_seen_adds_up(packed):
    earlier = {"blocks": {"subjects": ["s0", "x"], "labels": {"9": "old"}, "without_labels": ["s0", "x"]}, "other": {}}
    both = seen_data({"real": packed}, earlier)
    assert both["blocks"]["subjects"] == ["s0", "x", "s1", "s2", "s3"]
    assert both["blocks"]["without_labels"] == ["x"]
    assert set(both["blocks"]["labels"]) == {"9", "2"}
    assert "other" in both
    assert earlier["blocks"]["subjects"] == ["s0", "x"]


def test_labels_above_255_are_packed(tmp_path):
    for number in range(2):
        image, label = make_scan(number, values=(1, 257))
        save_nifti(tmp_path / "blocks" / "images" / f"s{number}.nii.gz", image)
        save_nifti(tmp_path / "blocks" / "labels" / f"s{number}.nii.gz", label)
    (task,) = read_tasks(real(BaseDataset(labels=(1, 257))), tmp_path)["real"]
    assert set(task.examples[0].label.unique().tolist()) == {0, 1, 257}


def test_a_pack_comes_back(packed, tmp_path):
    path = tmp_path / "base.safetensors"
    write_pack({"real": packed}, path, real(BLOCKS))
    wanted = real(BLOCKS.replace(weight=3.0, patches=((8, 8, 8),)))
    (again,) = read_pack(path, wanted)["real"]
    assert (again.name, again.names, again.labels) == (packed[0].name, packed[0].names, packed[0].labels)
    assert (again.weight, again.patches) == (3.0, ((8, 8, 8),))  # of the settings, not of the file
    for a, b in zip(again.examples, packed[0].examples, strict=True):
        assert (a.subject_id, a.spacing_mm, a.low, a.step) == (b.subject_id, b.spacing_mm, b.low, b.step)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
    with pytest.raises(InputError, match="other data sets or labels"):
        read_pack(path, real(BLOCKS.replace(labels=(4,), validation_labels=())))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no pack"):
        read_pack(path, wanted)


def test_structures_that_files_number_differently_are_matched_by_name(tmp_path):
    for case, names in (("a", ("aorta", "liver")), ("b", ("liver",))):
        image, label = make_scan(3, values=(1, 2))
        save_nifti(tmp_path / "blocks" / case / "ct.nii.gz", image)
        for name in names:
            mask = (label == ("aorta", "liver").index(name) + 1).astype("uint8")
            save_nifti(tmp_path / "blocks" / case / "segmentations" / f"{name}.nii.gz", mask)
    (task,) = read_tasks(real(BaseDataset(labels=(2,), subjects=2)), tmp_path)["real"]
    first, second = (example.label for example in task.examples)
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0, 2}


def test_an_encoded_volume_is_off_by_half_a_step_at_most():
    image = torch.randn((1, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    example = encode_volume("s", image, torch.zeros((9, 8, 7), dtype=torch.uint8), (1.0, 1.0, 1.0))
    again, label = example.read((slice(0, 9), slice(2, 5), slice(0, 7)), CPU)
    assert again.shape == (1, 9, 3, 7)
    assert label.shape == (1, 9, 3, 7)
    assert float((again - image[:, :, 2:5]).abs().max()) <= 0.51 * example.step
    flat = encode_volume("s", torch.full((1, 2, 2, 2), 3.0), torch.zeros((2, 2, 2), dtype=torch.uint8), (1.0,) * 3)
    assert torch.equal(flat.read((slice(0, 2),) * 3, CPU)[0], torch.full((1, 2, 2, 2), 3.0))


def sources(packed, **tasks):
    settings = TrainSettings(backbone=BackboneSettings(), tasks=TaskSettings(**tasks))
    return make_sources(settings, {"real": tuple(packed)})


def test_validation_takes_the_structures_that_training_never_sees(packed):
    training, validation, warnings = sources(packed, synthetic=None, real=REAL)
    assert {training.sample(seed).task for seed in range(4)} == {"blocks[label 2]"}
    assert {validation.sample(seed).task for seed in range(4)} == {"blocks[label 4]"}
    assert warnings == []


def test_validation_without_such_structures_says_so(packed):
    """Other episodes of the training structures, and a warning; procedural tasks are always new ones."""
    seen = [replace(packed[0], validation_labels=())]
    _, validation, warnings = sources(seen, synthetic=None, real=REAL)
    assert validation.sample(5).task == "blocks[label 2]"
    assert len(warnings) == 1
    assert "no structure is held out" in warnings[0]
    _, validation, warnings = sources(seen, synthetic={"patches": (8, 8, 8)}, real=REAL)
    assert not validation.sample(5).task.startswith("blocks")
    assert warnings == []


def test_a_run_makes_the_pack_and_a_later_one_needs_no_data(root, tmp_path):
    settings = TrainSettings(
        learner_options={"steps": 1}, backbone=BackboneSettings(width=4, levels=2), steps=1, episodes_per_step=1,
        validation_episodes=1, tasks=real(BLOCKS.replace(subjects=None)),
    )  # fmt: skip
    pack = tmp_path / "base.safetensors"
    first, later = (
        train(settings, tmp_path / name, device="cpu", data=data, pack=pack)
        for name, data in (("first", root), ("later", tmp_path / "nowhere"))
    )
    assert first["seen"] == later["seen"]
    assert first["validation"] == later["validation"]
    with pytest.raises(InputError, match="no data sets to pack"):
        train(settings.replace(tasks=TaskSettings()), tmp_path / "x", device="cpu", pack=tmp_path / "other")


def test_what_cannot_be_trained_on_is_refused(packed, root, tmp_path):
    lone = tmp_path
    for kind, volume in zip(("images", "labels"), make_scan(0, values=(2, 4)), strict=True):
        save_nifti(lone / "blocks" / kind / "s0.nii.gz", volume)
    with pytest.raises(InputError, match="both base and validation"):
        BaseDataset(labels=(1, 2), validation_labels=(2,))
    with pytest.raises(InputError, match="0 is background"):
        BaseDataset(labels=(0, 1))
    with pytest.raises(InputError, match="fewer than two"):
        read_tasks(real(BaseDataset(labels=(2,), subjects=2)), lone)
    with pytest.raises(InputError, match="no tasks"):
        sources(packed, synthetic=None, real=REAL, real_weight=0.0)
    with pytest.raises(InputError, match="backbone is 3D with 1"):
        sources([LabelledTask("x", (Example("s", torch.ones(2, 4, 4, 4), torch.ones(4, 4, 4)),))])
    with pytest.raises(InputError, match="does not exist"):
        read_tasks(real(BaseDataset(labels=(2,)), "absent"), root)


@pytest.mark.real
def test_only_the_support_pool_of_a_known_data_set_is_read(data_root):
    """The folder's name tells which data set it is, whatever the settings call it."""
    from medfewshot.datasets import read_dataset

    folder = "Task04_Hippocampus"
    wanted = BaseDataset(labels=(1,), validation_labels=(2,), folder=folder)
    (all_of_them,) = read_tasks(real(wanted, "any name"), data_root)["real"]
    cases = sorted(read_dataset(data_root / folder).labelled, key=lambda case: case.image_path.name)
    assert [e.subject_id for e in all_of_them.examples] == [case.subject_id for case in cases[:60]]
    assert EpisodeSampler([all_of_them], patches=(24, 24, 24)).sample(0).task.startswith("any name[")
