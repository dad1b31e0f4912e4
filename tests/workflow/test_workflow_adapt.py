"""Adaptation: labelled scans become a plan, support tensors and a segmenter that knows how it was made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import toys
from PIL import Image

import medfewshot
from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.inference import segment_volume
from medfewshot.io import strict_json
from medfewshot.learners.base import FunctionSegmenter
from medfewshot.planning import make_plan, make_support
from medfewshot.settings import AdaptSettings, SegmentSettings
from medfewshot.types import Cancelled, Case, Event, Progress, Volume
from medfewshot.workbench.choice import suggest
from medfewshot.workflow import (
    LabelledScans,
    adapt,
    adapt_to_folder,
    can_continue,
    compare,
    find_cases,
    find_supports,
    open_batch,
    prepare,
    read_supports,
    report,
    segment,
)
from medfewshot.workflow.adapt import fingerprint_of
from medfewshot.workflow.continuing import continued
from medfewshot.workflow.supports import scan_warnings

TOY = AdaptSettings(learner="toy", device="cpu")
LEARNERS = {"toy": toys.TOY}


def toy_scans(count: int = 2, names: dict[int, str] | None = None) -> LabelledScans:
    scans = [toys.make_scan(number) for number in range(count)]
    images = [Volume(image[None].astype(np.float32), toys.AFFINE) for image, _ in scans]
    return LabelledScans(images, [Volume(label[None], toys.AFFINE) for _, label in scans], names or {})


def toy_learner(**record):
    """A learner that reports ``record``."""

    class Reporting(toys.ToyLearner):
        def adapt(self, support):
            segmenter = super().adapt(support)
            segmenter.record = record
            return segmenter

    return {"toy": replace(toys.TOY, learner=Reporting)}


def with_image(scans: LabelledScans, index: int, **changes) -> LabelledScans:
    images = list(scans.images)
    images[index] = replace(images[index], **changes)
    return replace(scans, images=images)


def test_a_segmenter_knows_how_it_was_made(tmp_path):
    root = toys.make_folders(tmp_path, queries=0)
    pairs = [(root / f"annotated/images/s{k}.nii.gz", root / f"annotated/labels/s{k}.nii.gz") for k in (0, 1)]
    scans = replace(read_supports(pairs), names={205: "block", 420: "label 420"})
    segmenter = adapt(scans, TOY.replace(seed=3), learners=LEARNERS)
    assert segmenter.plan.labels == {205: "block", 420: "label 420"}
    record = segmenter.record
    assert set(record) == {
        "seed", "supports", "settings", "device", "learner", "keeps_supports", "weights_have_seen", "support_check",
        "seconds", "warnings", "profile",
    }  # fmt: skip
    assert record["weights_have_seen"] == {}
    assert record["keeps_supports"] is False
    assert record["seed"] == 3
    found = [(one["image"], one["label"]) for one in record["supports"]]
    assert found == [(str(image), str(label)) for image, label in pairs]
    assert len({one["voxels"] for one in record["supports"]}) == len(pairs)
    assert record["settings"]["labels"] is None
    assert record["learner"]["learner"] == "toy"
    assert set(record["seconds"]) == {"plan", "adapt"}
    assert record["warnings"] == []


def test_a_fast_plan_is_coarser():
    usual, draft = (prepare(toy_scans(), TOY.replace(quality=one)).plan for one in ("standard", "draft"))
    assert draft.spacing_mm[0] == pytest.approx(1.7 * usual.spacing_mm[0])


def test_stages_have_names():
    events: list[Event] = []
    adapt(toy_scans(), TOY, progress=Progress(events.append), learners=LEARNERS)
    assert list(dict.fromkeys(event.stage for event in events)) == ["planning", "adapting"]


def test_a_user_can_cancel(tmp_path):
    root = toys.make_folders(tmp_path, queries=0)
    events: list[Event] = []
    progress = Progress(events.append, cancelled=lambda: len(events) == 1)
    with pytest.raises(Cancelled):
        read_supports(root / "annotated", progress=progress)
    assert [(event.stage, event.done, event.total) for event in events] == [("reading labelled scans", 1, 2)]


def test_a_changed_mask_in_a_folder_is_another_request(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    image, label = toys.make_scan(0)
    toys.save_nifti(tmp_path / "s0" / "ct.nii.gz", image)
    mask = toys.save_nifti(tmp_path / "s0" / "segmentations" / "liver.nii.gz", (label == 205).astype(np.uint8))
    adapt_to_folder(find_supports(tmp_path / "s0"), tmp_path / "out", TOY)
    mask.write_bytes(mask.read_bytes())
    os.utime(mask, ns=(0, 1))
    with pytest.raises(InputError, match="other labelled scans"):
        adapt_to_folder(find_supports(tmp_path / "s0"), tmp_path / "out", TOY, resume=True)


def test_an_adaptation_is_resumed_only_for_the_same_request(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    support = find_supports(toys.make_folders(tmp_path) / "annotated")
    folder = tmp_path / "seg"
    adapt_to_folder(support, folder, TOY)
    with pytest.raises(InputError, match="already"):
        adapt_to_folder(support, folder, TOY)
    assert adapt_to_folder(support, folder, TOY, resume=True).record == load_segmenter(folder).record
    assert toys.ToyLearner.adapted == 1
    with pytest.raises(InputError, match="other labelled scans or other settings"):
        adapt_to_folder(support, folder, TOY.replace(seed=1), resume=True)
    adapt_to_folder(support, folder, TOY.replace(seed=1), overwrite=True)
    assert load_segmenter(folder).record["seed"] == 1


def test_changed_facts_of_a_case_are_another_request_and_unknown_ones_change_none(tmp_path):
    root = toys.make_folders(tmp_path, supports=1) / "annotated"
    one = find_supports(root)
    (case,) = one.cases
    image, label = case.image_path, case.label_path
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in (image, label)]
    content = [facts, one.labels, TOY.model_dump(exclude={"device", "ignore", "frame"})]
    earlier = hashlib.sha256(strict_json(content).encode()).hexdigest()
    assert fingerprint_of(one, TOY) == earlier, "a run of an earlier version can be resumed"
    changes = [
        {"modality": "MR"}, {"modality": "CT"}, {"frame": 0}, {"frame": 1}, {"channels": 2},
        {"image_paths": (image, label)}, {"image_paths": (label, image)},
    ]  # fmt: skip
    others = [fingerprint_of(replace(one, cases=(replace(case, **change),)), TOY) for change in changes]
    assert len({earlier, *others}) == 1 + len(changes)


def test_an_adaptation_is_not_resumed_with_other_names_beside_the_labels(tmp_path):
    image, label = (toys.save_nifti(tmp_path / f"{name}.nii.gz", np.ones(toys.SHAPE)) for name in "ab")
    support, found = find_supports(pairs=[(image, label)]), []
    for name in ("", "liver", "spleen"):
        row = f'205 255 0 0 1 1 1 "{name}"'
        (tmp_path / "labels.txt").write_text(f"# ITK-SnAP Label Description File\n{row}\n" if name else "")
        found.append(fingerprint_of(support, TOY))
    assert len(set(found)) == 3


def test_a_model_that_another_adaptation_saved_meanwhile_stays(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    support, folder = find_supports(toys.make_folders(tmp_path) / "annotated"), tmp_path / "seg"
    earlier = adapt(read_supports(support), TOY)
    progress = Progress(lambda event: earlier.save(folder) if event.stage == "adapting" else None)
    with pytest.raises(InputError, match="already contains a segmenter"):
        adapt_to_folder(support, folder, TOY.replace(seed=1), progress=progress)
    assert load_segmenter(folder).record["seed"] == 0


def test_a_volume_of_another_kind_is_refused_before_adaptation(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    support = find_supports(toys.make_folders(tmp_path) / "annotated")
    with pytest.raises(InputError, match="is 2D but the support is 3D"):
        adapt_to_folder(support, tmp_path / "seg", TOY, query=Volume(np.zeros((1, 4, 4), np.float32), np.eye(4)))
    assert toys.ToyLearner.adapted == 0
    assert not (tmp_path / "seg").exists()


def one_slice(folder: Path, seed: int, *, turned: bool = False) -> tuple[Path, Path]:
    """Write a sagittal slice of 1.25 x 2 mm, ``(X, 1, Z)``, or in another axis order ``(1, Z, X)``, and its label."""
    affine = toys.AFFINE[:, [1, 2, 0, 3]] if turned else toys.AFFINE
    scan = [array.T[None] if turned else array[:, None] for array in toys.make_scan(seed, (24, 20))]
    image, label = (toys.save_nifti(folder / f"{k}{seed}.nii.gz", a, affine) for k, a in zip("il", scan, strict=True))
    return image, label


def test_volumes_of_one_slice_are_learned_and_segmented_as_2d_images(tmp_path):
    scans = read_supports([one_slice(tmp_path, 0), one_slice(tmp_path, 1, turned=True)])
    segmenter = adapt(scans, TINY.replace(learner="auto"))
    assert segmenter.record["settings"]["learner"] == "finetune"
    assert segmenter.plan.spatial_dims == 2
    assert segmenter.plan.spacing_mm == pytest.approx((1.25, 2.0))
    assert [one["extent_mm"] for one in segmenter.record["profile"]["supports"]] == [[30, 40]] * 2
    segmenter.save(tmp_path / "model")
    image, _ = one_slice(tmp_path, 2, turned=True)
    full = toys.save_nifti(tmp_path / "full.nii.gz", toys.make_scan(3)[0])
    done = segment(open_batch([image, full], tmp_path / "out"), load_segmenter(tmp_path / "model"))
    result, failed = done.results
    assert "full.nii.gz: is 3D but the support is 2D" in failed.error
    assert all(flag.startswith("label ") for flag in result.flags)  # of sizes, as two steps teach little
    given, written = nib.load(image), nib.load(tmp_path / "out" / result.labels)
    assert written.shape == given.shape == (1, 20, 24)
    assert np.array_equal(written.affine, given.affine)
    axial = Volume(toys.make_scan(2, (24, 20))[0][None, ..., None].astype(np.float32), toys.AFFINE)
    assert any("another plane" in flag for flag in segmenter.segment(axial).flags)


def decathlon_of_two_channels(root: Path, *, lacking: int | None = None) -> Path:
    """Write two cases in the Decathlon's layout, both channels in one file; case ``lacking`` has one channel."""
    entries = []
    for number in range(2):
        image, label = toys.make_scan(number)
        both = image if number == lacking else np.stack([image, 400 - image], -1)
        toys.save_nifti(root / f"imagesTr/c{number}.nii.gz", both)
        toys.save_nifti(root / f"labelsTr/c{number}.nii.gz", label)
        entries.append({"image": f"./imagesTr/c{number}.nii.gz", "label": f"./labelsTr/c{number}.nii.gz"})
    labels = {"0": "background", "205": "left", "420": "right"}
    table = {"modality": {"0": "T2", "1": "ADC"}, "labels": labels, "training": entries}
    (root / "dataset.json").write_text(json.dumps(table))
    return root


def test_a_decathlon_task_with_its_channels_in_one_file(tmp_path):
    root = decathlon_of_two_channels(tmp_path / "Task05")
    segmenter = adapt_to_folder(find_supports(root), tmp_path / "model", TINY)
    assert (segmenter.channels, segmenter.plan.labels) == (2, {205: "left", 420: "right"})
    query = decathlon_of_two_channels(tmp_path / "new") / "imagesTr/c1.nii.gz"
    (result,) = segment(open_batch([query], tmp_path / "out", channels=2, plan=segmenter.plan), segmenter).results
    written = nib.load(tmp_path / "out" / result.labels)
    assert written.shape == toys.SHAPE
    assert np.array_equal(written.affine, nib.load(query).affine)
    assert np.array_equal(medfewshot.segment(query, segmenter).labels, np.asarray(written.dataobj))
    given = {name: value for name, value in TINY if name in TINY.model_fields_set}
    assert medfewshot.segment(query, root, **given).labels.shape == toys.SHAPE


def test_channels_in_one_file_are_shown_by_report_and_compare_and_suggested(tmp_path):
    root = decathlon_of_two_channels(tmp_path / "Task05")
    segmenter = adapt(read_supports(root), TOY, learners=LEARNERS)
    image, _ = toys.make_scan(7)
    query = toys.save_nifti(tmp_path / "q.nii.gz", np.stack([image, 400 - image], -1))
    for name, changes in (("first", {}), ("second", {"keep_largest": True})):
        segment(open_batch([query], tmp_path / name, SegmentSettings(**changes), channels=2), segmenter)
    shutil.rmtree(tmp_path / "first" / "report")
    assert "no viewer" not in report(tmp_path / "first").read_text()
    compare(tmp_path / "first", tmp_path / "second", folder=tmp_path / "out")
    assert (tmp_path / "out" / "comparison.html").read_text().count("data:image/jpeg") == 1
    cases = find_cases([query, root / "imagesTr"], 2)
    assert [[case.case_id for case, _ in suggest(cases, segmenter)[0]], suggest(cases, segmenter)[1]] == [["q"], []]


def test_a_film_is_refused_where_one_volume_is_needed(tmp_path):
    pairs = [toys.make_scan(number) for number in (0, 1)]
    film = toys.save_nifti(tmp_path / "film.nii.gz", np.stack([pairs[0][0]] * 3, -1))
    with pytest.raises(InputError, match=r"3 volumes.*segment_film"):
        medfewshot.segment(film, adapt(toy_scans(), TOY, learners=LEARNERS))
    with pytest.raises(InputError, match=r"3 channel\(s\)"):
        medfewshot.segment(film, pairs, learner="atlas")


def test_channels_of_a_table_come_in_the_order_in_which_other_scans_are_read(tmp_path):
    image, label = toys.make_scan(0)
    toys.save_nifti(tmp_path / "label.nii.gz", label)
    for name in ("t1", "flair"):
        toys.save_nifti(tmp_path / f"p_{name}.nii.gz", image)
    for first, second in (("t1", "flair"), ("flair", "t1")):
        (tmp_path / "cases.csv").write_text(f"image,label\np_{first}.nii.gz|p_{second}.nii.gz,label.nii.gz\n")
        if first == "t1":
            assert len(read_supports(tmp_path / "cases.csv").images[0].data) == 2
            continue
        with pytest.raises(InputError, match=r"p_flair.*, p_t1.*: .* another order; list p_t1.*, p_fl"):
            read_supports(tmp_path / "cases.csv")


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_decathlon_case_that_lacks_a_channel_is_named(tmp_path, lacking):
    root = decathlon_of_two_channels(tmp_path, lacking=lacking)
    with pytest.raises(InputError, match=rf"c{lacking}\.nii\.gz.* 3D with 1"):
        adapt(read_supports(find_supports(root)), TINY)


def test_one_slice_among_full_volumes_and_for_an_older_3d_segmenter_stays_3d(tmp_path):
    flat = read_supports([one_slice(tmp_path, 0)])
    mixed = replace(flat, images=[*flat.images, *toy_scans().images], labels=[*flat.labels, *toy_scans().labels])
    assert adapt(mixed, TOY, learners=LEARNERS).plan.spatial_dims == 3
    older = VolumeSegmenter(prepare(flat).plan, toys.ToyLearner().adapt(prepare(flat).support), {"learner": {}})
    assert older.plan.spatial_dims == 3
    assert older.segment(flat.images[0]).labels.shape == (24, 1, 20)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"steps": 9, "training_dice": [0.9, 0.31]}, []),
        ({"steps": 9, "training_dice": [0.9, 0.1]}, ["label 420: hardly learned", "more steps"]),
        (
            {"steps": 9, "training_dice": [0.1, 0.1], "network_trust": [0, 0]},
            ["block, label 420: ", "registration alone"],
        ),
        ({"steps": 0, "training_dice": [0.0, 0.0]}, []),
        ({"steps": 9, "training_dice": [0.0, 0.0], "trained": False}, ["the model did not learn", "more steps"]),
    ],
)
def test_structures_that_were_not_learned_are_named(record, told):
    warnings = adapt(toy_scans(names={205: "block", 420: "label 420"}), TOY, learners=toy_learner(**record)).record[
        "warnings"
    ]
    assert len(warnings) == bool(told)
    assert all(text in warnings[0] for text in told)


@pytest.mark.parametrize(
    ("told", "warning"),
    [
        ({"restarts": 2}, "restarts: 2"),
        ({"trained": False}, "do not use it"),
        ({"stopped_by": "budget", "steps": 31}, "after 31 steps"),
    ],
)
def test_warnings_of_the_learner(told, warning):
    assert warning in " ".join(adapt(toy_scans(), TOY, learners=toy_learner(**told)).record["warnings"])


def test_the_support_holds_planned_tensors():
    scans = toy_scans()
    images, labels = scans.images, scans.labels
    plan = make_plan(images, labels)
    support = make_support(images, labels, plan)
    assert (support.shots, support.classes, support.patch_size) == (2, 3, plan.patch_size)
    for image, label, given in zip(support.images, support.labels, labels, strict=True):
        assert image.dtype == torch.float32
        assert label.dtype == torch.int64
        assert image.shape[1:] == label.shape
        # The plan is on the original grid here, so classes 1 and 2 have as many voxels as 205 and 420.
        assert torch.bincount(label.flatten()).tolist()[1:] == [int((given.data == v).sum()) for v in toys.VALUES]


def test_the_modality_of_a_dataset_reaches_the_plan(tmp_path):
    image, label = toys.make_scan(0)
    paths = toys.save_nifti(tmp_path / "i.nii.gz", image), toys.save_nifti(tmp_path / "l.nii.gz", label)
    scans = read_supports([Case("i", "i", "CT", (paths[0],), paths[1])])
    assert scans.images[0].modality == "CT"
    assert prepare(scans).plan.normalization[0].kind == "window"


def test_a_case_without_label_is_no_support():
    with pytest.raises(InputError, match=r"a\.nii\.gz: has no label"):
        read_supports([Case("a", "a", None, (Path("a.nii.gz"),))])


def test_an_empty_label_is_refused():
    scans = toy_scans()
    labels = [scans.labels[0], replace(scans.labels[1], data=scans.labels[1].data * 0)]
    with pytest.raises(InputError, match="no structure is marked"):
        prepare(replace(scans, labels=labels))


def test_warnings_name_the_file():
    assert "a.nii.gz: odd" in prepare(with_image(toy_scans(), 0, path=Path("a.nii.gz"), warnings=("odd",))).warnings


def test_a_scan_that_is_given_twice_is_named():
    scans = toy_scans(1)
    twice = replace(scans, images=scans.images * 2, labels=scans.labels * 2)
    assert any("is given twice" in text for text in prepare(twice).warnings)


def test_a_mask_without_millimetres_fits_its_scan(tmp_path):
    """A slice of 0.2 mm pixels with a mask drawn as PNG, which knows no millimetres."""
    label = np.zeros((40, 30), dtype=np.uint8)
    label[10:20, 10:16] = 1
    noisy = label + np.random.default_rng(0).normal(0, 0.1, label.shape)
    scan = toys.save_nifti(tmp_path / "i.nii.gz", noisy.astype(np.float32), np.diag([0.2, 0.2, 1, 1]))
    Image.fromarray(label.T).save(tmp_path / "m.png")
    scans = read_supports([(scan, tmp_path / "m.png")])
    images, labels = scans.images, scans.labels
    support = make_support(images, labels, make_plan(images, labels))
    assert support.images[0].shape[1:] == support.labels[0].shape
    with pytest.raises(InputError, match="do not fit"):
        make_support(images, [replace(labels[0], affine=np.eye(4))], make_plan(images, labels))


def test_chosen_structures_leave_the_others_to_the_background():
    label = np.ones((1, 12, 12), dtype=np.uint8)
    label[0, :6] = 2
    image = label + np.random.default_rng(0).normal(size=label.shape)
    scans = LabelledScans([Volume(image.astype(np.float32), np.eye(4))], [Volume(label, np.eye(4))])
    with pytest.raises(InputError, match="covers the whole image"):
        prepare(scans)
    assert prepare(scans, AdaptSettings(labels=[1])).plan.label_values == (1,)


@pytest.mark.parametrize("shape", [(1, 12, 14), (14, 12, 1), (2, 9, 9)])
def test_the_default_takes_volumes_of_a_slice_or_two(shape):
    label = np.zeros((1, *shape), dtype=np.uint8)
    label[:, :, 3:8, :8] = 1
    image = Volume(10 * label + np.random.default_rng(0).normal(size=label.shape).astype(np.float32), np.eye(4))
    scans = LabelledScans([image] * 2, [Volume(label, np.eye(4))] * 2)
    segmenter = adapt(scans, AdaptSettings(steps=1, width=4, weights=None, device="cpu"))
    assert segment_volume(image, segmenter.plan, segmenter.segmenter).labels.shape == shape


def test_supports_of_different_kinds_are_named():
    scans = with_image(toy_scans(3), 2, affine=toys.AFFINE @ np.diag([3.0, 3.0, 3.0, 1.0]))
    labels = [*scans.labels[:2], replace(scans.labels[2], affine=scans.images[2].affine)]
    told = [text for text in prepare(replace(scans, labels=labels)).warnings if "of another kind" in text]
    assert len(told) == 2
    assert "voxels are coarse" in told[0]
    assert "field of view is large" in told[1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 43689455076816 bytes"),
    ],
)
def test_adaptation_without_memory(error):
    class Greedy(toys.ToyLearner):
        def adapt(self, support):
            raise error

    with pytest.raises(InputError, match="not enough memory") as told:
        adapt(toy_scans(), TOY, learners={"toy": replace(toys.TOY, learner=Greedy)})
    assert told.value.settings == ("device", "patch_voxels")


TINY = AdaptSettings(learner="finetune", steps=2, patch_voxels=1024, weights="none", width=4, device="cpu")


def adapted_from(start, scans: LabelledScans, **changes):
    return adapt(scans, AdaptSettings(**{"steps": 2, "device": "cpu"} | changes), start=start)


def test_an_adaptation_that_continues_keeps_grid_and_network():
    first = adapt(toy_scans(1), TINY)
    nearly_still = adapted_from(first, toy_scans(2), steps=1, learning_rate=1e-9)
    own = {name: getattr(nearly_still.plan, name) for name in ("notes", "ceilings")}
    assert nearly_still.plan == replace(first.plan, **own)
    for before, after in zip(first.segmenter.parameters(), nearly_still.segmenter.parameters(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert nearly_still.record["settings"]["learner"] == "finetune"


def test_an_adaptation_that_continues_can_learn_other_structures():
    first = adapt(toy_scans(1), TINY.replace(labels=(205,)))
    both = adapted_from(first, toy_scans(1))
    assert both.plan.label_values == (205, 420)
    assert both.plan.spacing_mm == first.plan.spacing_mm
    assert both(torch.zeros(1, 1, 8, 8, 8)).shape[1] == 3


def test_an_adaptation_that_continues_refuses_what_the_earlier_one_fixed_and_names_what_it_may_forget():
    first = adapt(toy_scans(2), TINY)
    with pytest.raises(InputError) as refused:
        adapted_from(first, toy_scans(2), spacing_mm=3.0)
    assert refused.value.settings == ("spacing_mm",)
    named = [replace(image, path=Path(f"{n}.nii.gz")) for n, image in enumerate(toy_scans(2).images)]
    first = adapt(replace(toy_scans(2), images=named), TINY)
    again = adapted_from(first, replace(toy_scans(1), images=named[:1]))
    assert any("1.nii.gz" in warning for warning in again.record["warnings"])


def test_an_adaptation_that_continues_with_fewer_structures_can_be_read(tmp_path):
    first = adapt(toy_scans(1), TINY)
    fewer = adapted_from(first, toy_scans(1), labels=(205,))
    fewer.save(tmp_path / "model")
    assert load_segmenter(tmp_path / "model").plan.ceilings == {205: first.plan.ceilings[205]}


def test_an_adaptation_that_continues_without_millimetres_stays_voxel_for_voxel():
    """Without this, a voxel without a size was 1 mm long, so the network saw structures of another size."""
    scans = toy_scans(2)
    in_pixels = {"affine": np.eye(4), "has_spacing": False}
    bare = [[replace(volume, **in_pixels) for volume in volumes] for volumes in (scans.images, scans.labels)]
    first = adapt(scans, TINY)
    again = adapted_from(first, LabelledScans(*bare), steps=1)
    spacings = [made.record["profile"]["supports"][0]["spacing_mm"] for made in (first, again)]
    assert spacings[0] == spacings[1]
    assert any("voxel for voxel" in text for text in again.record["warnings"])


def test_an_adaptation_that_continues_with_gray_values_of_another_kind_says_so():
    scans = toy_scans(1)
    ct = with_image(scans, 0, data=scans.images[0].data * 6 - 1000)
    first = adapt(ct, TINY)
    assert first.plan.normalization[0].kind == "window"
    assert not any("another kind" in text for text in adapted_from(first, ct, steps=1).record["warnings"])
    assert any("another kind" in text for text in adapted_from(first, scans, steps=1).record["warnings"])


def test_an_adaptation_that_continues_measures_new_structures_on_its_old_grid():
    scans, small = toy_scans(1), np.zeros((1, *toys.SHAPE), np.int16)
    small[0, 2:4, 3:5, 3:5] = 7
    first = adapt(scans, TINY.replace(spacing_mm=6.0))
    again = adapted_from(first, replace(scans, labels=[Volume(small, toys.AFFINE)]), steps=1)
    assert again.plan.spacing_mm == first.plan.spacing_mm
    assert again.plan.ceilings[7] < 0.9
    assert any("label 7 can reach Dice" in text for text in again.record["warnings"])


def test_what_the_user_fixed_for_a_draft_stays_and_the_record_names_the_weights_of_the_beginning():
    draft = adapt(toy_scans(1), TINY.replace(quality="draft", spacing_mm=4.0, modality="CT"))
    record = {**draft.record, "settings": {**draft.record["settings"], "weights": "default"}}
    lifted = adapted_from(VolumeSegmenter(draft.plan, draft.segmenter, record), toy_scans(1))
    kept = ("quality", "spacing_mm", "modality", "patch_voxels", "weights")
    assert [lifted.record["settings"][name] for name in kept] == ["standard", 4.0, "CT", 1024, "default"]
    assert lifted.plan.spacing_mm[0] == 4.0


def test_a_draft_continues_at_a_higher_quality_on_a_finer_grid_and_never_falls_back():
    draft = adapt(toy_scans(1), TINY.replace(quality="draft"))
    lifted = adapted_from(draft, toy_scans(1))
    assert lifted.record["settings"]["quality"] == "standard"
    assert lifted.plan.spacing_mm == prepare(toy_scans(1), TINY).plan.spacing_mm < draft.plan.spacing_mm
    assert can_continue(AdaptSettings(), draft)
    assert not can_continue(AdaptSettings(quality="draft"), lifted)
    again = adapted_from(lifted, toy_scans(1), quality="draft")
    assert again.record["settings"]["quality"] == "standard"
    assert again.plan.spacing_mm == lifted.plan.spacing_mm


def test_a_lifted_draft_gets_the_learner_of_the_higher_quality_unless_its_own_was_chosen():
    plan = prepare(toy_scans(1), TINY).plan

    def lifted(before: str, **changes: str) -> str:
        record = {"settings": {"learner": before, "quality": "draft"}}
        draft = VolumeSegmenter(plan, FunctionSegmenter(lambda image: image), record)
        return continued(AdaptSettings(**changes), draft).learner

    assert lifted("finetune") == "hybrid"
    assert lifted("finetune", learner="finetune") == "finetune"
    assert lifted("ridge") == "ridge"
    assert lifted("finetune", quality="draft") == "finetune"


def test_an_adaptation_that_continues_keeps_names_and_what_to_ignore_and_says_what_changed():
    scans = replace(toy_scans(1), names={205: "liver", 420: "spleen"})
    first = adapt(scans, TINY.replace(ignore=9))
    again = adapted_from(first, replace(scans, names={}), steps=1)
    assert (again.plan.labels, again.record["settings"]["ignore"]) == (first.plan.labels, 9)
    unused = "no support has the label 9, which was to be ignored"
    assert (unused in first.record["warnings"], unused in again.record["warnings"]) == (True, False)
    warnings = adapted_from(first, replace(scans, names={205: "kidney", 420: "Spleen"})).record["warnings"]
    assert [text for text in warnings if " now" in text] == ["label value 205: was liver and is kidney now"]
    labels = [replace(one, data=np.where(one.data == 420, 7, one.data)) for one in scans.labels]
    chosen = adapt(scans, TINY.replace(labels={205: "liver", 420: "spleen"}))
    warnings = "\n".join(adapted_from(chosen, replace(scans, labels=labels)).record["warnings"])
    assert "spleen: no labelled scan shows it now, so the model no longer finds it" in warnings
    assert "label 7: learned too" in warnings
    lower = adapted_from(first, scans, quality="draft").record["warnings"]
    assert any("has quality standard" in text for text in lower)
    flat = [[replace(one, data=one.data[..., 8:9]) for one in volumes] for volumes in (scans.images, scans.labels)]
    assert any("single slices" in text for text in adapted_from(first, LabelledScans(*flat)).record["warnings"])


def test_the_record_of_an_adaptation_that_continues_knows_all_scans_and_steps(tmp_path):
    paths = [
        [
            toys.save_nifti(tmp_path / kind / f"{n}.nii.gz", one)
            for kind, one in zip("ab", toys.make_scan(n), strict=True)
        ]
        for n in range(3)
    ]
    made = None
    for number, path in enumerate(paths):
        scans = read_supports([path])
        made = adapt(scans, TINY) if made is None else adapted_from(made, scans)
        earlier = made.record.get("earlier", {"supports": [], "steps": 0})
        assert [Path(pair["image"]).name for pair in earlier["supports"]] == [f"{n}.nii.gz" for n in range(number)]
        assert earlier["steps"] == 2 * number
    assert any("2 support(s) of the earlier segmenter" in text for text in made.record["warnings"])


def test_a_segmenter_without_a_network_cannot_be_continued():
    first = adapt(toy_scans(1), TOY, learners=LEARNERS)
    with pytest.raises(InputError, match="continue"):
        adapt(toy_scans(1), AdaptSettings(device="cpu"), start=first, learners=LEARNERS)


def test_supports_with_and_without_millimetres_are_taken_voxel_for_voxel(tmp_path):
    image, label = toys.make_scan(0, (40, 30))
    scan = toys.save_nifti(tmp_path / "i.nii.gz", image, np.diag([0.2, 0.2, 1, 1]))
    scans = read_supports([(scan, label), (image, label)])
    assert [one.spacing_mm for one in scans.images] == [(1, 1), (1, 1)]
    assert any("voxel for voxel" in text for text in scan_warnings(scans))


def test_a_value_without_a_name_is_learned_and_told(tmp_path):
    toys.make_folders(tmp_path)
    scans = read_supports(read_dataset(tmp_path / "annotated", {205: "liver"}))
    told = prepare(scans).warnings
    assert "label value 420 has no name in the data set; learned under the name 'label 420'" in told


def test_ct_and_mr_in_one_support_are_told():
    rng = np.random.default_rng(0)
    label = np.zeros((1, 20, 20, 20), np.int16)
    label[0, 5:12, 5:12, 5:12] = 1
    ct, mr = rng.normal(-200, 300, label.shape), rng.normal(300, 80, label.shape).clip(0)
    images = [Volume(data.astype(np.float32), np.eye(4)) for data in (ct, mr)]
    told = prepare(LabelledScans(images, [Volume(label, np.eye(4))] * 2)).warnings
    assert any("CT and MR" in text for text in told)


def test_scans_without_a_label_are_listed(tmp_path):
    folder = toys.make_folders(tmp_path, queries=0) / "annotated"
    toys.save_nifti(folder / "images" / "s9.nii.gz", toys.make_scan(9)[0])
    scans = read_supports(folder)
    assert len(scans.images) == 2
    assert scan_warnings(scans) == ["1 scan(s) have no label and are not used: s9"]


def test_what_a_data_set_does_not_use_is_told(tmp_path):
    folder = toys.make_folders(tmp_path, queries=0) / "annotated"
    (folder / "images" / "s1.nii.gz").unlink()
    told = scan_warnings(read_supports(folder))
    assert told == [f"{folder / 'labels' / 's1.nii.gz'}: label without an image"]
    for number in range(2):
        image, label = toys.make_scan(number)
        toys.save_nifti(tmp_path / "cases" / f"p{number}" / "image.nii.gz", image)
        toys.save_nifti(tmp_path / "cases" / f"p{number}" / ("lesion.nii.gz" if number else "label.nii.gz"), label)
    told = scan_warnings(read_supports(tmp_path / "cases"))
    assert told == [f"{tmp_path / 'cases' / 'p1'}: skipped, because no file in it is named like a label"]


def test_one_label_for_two_scans_is_told(tmp_path):
    folder = toys.make_folders(tmp_path, queries=0) / "annotated"
    first, second = sorted((folder / "images").iterdir())
    label = folder / "labels" / first.name
    assert scan_warnings(read_supports([(first, label), (second, label)])) == [
        f"{label}: is given as the label of {first} and of {second}; give each scan its own"
    ]


def test_a_name_that_belongs_to_another_value_is_told(tmp_path):
    toys.make_folders(tmp_path)
    scans = read_supports(read_dataset(tmp_path / "annotated", {205: "liver", 420: "spleen"}))
    told = [
        text for text in prepare(scans, AdaptSettings(labels={205: "Spleen", 420: "liver"})).warnings if "call" in text
    ]
    assert told == [
        "label value 205 is to be called Spleen, the name of 420 in the labelled scans",
        "label value 420 is to be called liver, the name of 205 in the labelled scans",
    ]
    assert not [text for text in prepare(scans).warnings if "called" in text]
    shared = read_supports(read_dataset(tmp_path / "annotated", {205: "lesion", 420: "lesion"}))
    assert not [text for text in prepare(shared, AdaptSettings(labels=(205,))).warnings if "called" in text]
