"""Voxels that nobody annotated change nothing: in plan, labels, loss, heads, votes and scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from medfewshot.augment import NO_AUGMENTATION
from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.evaluation import evaluate_arrays
from medfewshot.io import read_complete_examples
from medfewshot.learners.atlas import Atlas, voted
from medfewshot.learners.in_context import InContext
from medfewshot.learners.linear_head import LinearHead, class_frequencies
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.protomaml import prototype_sums
from medfewshot.planning import labels_to_plan, make_plan
from medfewshot.quality import support_profile
from medfewshot.registration import RegistrationOptions
from medfewshot.settings import AdaptSettings, PlanSettings
from medfewshot.structures import mark_ignored, structures
from medfewshot.types import IGNORED, Plan, Support, Volume
from medfewshot.workflow import prepare, read_supports

SHAPE = (16, 15, 20)
QUICK = RegistrationOptions(levels=((2, 10), (1, 10)), affine_steps=12, starts=0)


def volume(data: np.ndarray) -> Volume:
    return Volume(data[None], np.eye(4))


def block() -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels: a block of 8 x 7 x 10 voxels."""
    labels = np.zeros(SHAPE, np.int16)
    labels[4:12, 4:11, 5:15] = 1
    noise = np.random.default_rng(0).normal(size=SHAPE)
    return (labels * 5 + noise).astype(np.float32), labels


def only_slices(labels: np.ndarray, drawn: list[int]) -> np.ndarray:
    partly = np.full_like(labels, IGNORED)
    partly[:, :, drawn] = labels[:, :, drawn]
    return partly


def test_the_loss_is_that_of_the_annotated_voxels_alone_and_the_others_get_no_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(3, (2, 4, 5, 6), generator=generator)
    partly = labels.clone()
    partly[..., 2:] = IGNORED
    loss = dice_cross_entropy(logits, partly)
    loss.backward()
    assert loss.item() == pytest.approx(dice_cross_entropy(logits[..., :2], labels[..., :2]).item(), abs=1e-12)
    assert (logits.grad[..., 2:] == 0).all()
    assert (logits.grad[..., :2] != 0).any()
    assert dice_cross_entropy(logits, torch.full_like(labels, IGNORED)).item() == 0


def test_a_head_in_closed_form_and_prototypes_are_those_of_the_annotated_part():
    generator = torch.Generator().manual_seed(0)
    network = SimpleNamespace(fold=(2, 2), multiple=(2, 2))
    features = torch.randn(1, 3, 4, 6, generator=generator)
    labels = torch.randint(2, (1, 8, 12), generator=generator)
    partly = labels.clone()
    partly[:, 4:] = IGNORED
    assert class_frequencies([partly], 2).tolist() == class_frequencies([labels[:, :4]], 2).tolist()
    heads = []
    for feature, label in ((features, partly), (features[:, :, :2], labels[:, :4])):
        head = LinearHead(network, 2, class_frequencies([label], 2))
        head.add(feature, label)
        heads.append(head.solve(0.1))
    torch.testing.assert_close(heads[0], heads[1])
    sums = prototype_sums(features, partly, 2, (2, 2))
    torch.testing.assert_close(sums, prototype_sums(features[:, :, :2], labels[:, :4], 2, (2, 2)))


def test_patches_are_centred_where_something_is_annotated():
    image, labels = block()
    partly = torch.from_numpy(only_slices(labels, [9])).long()
    support = Support((torch.from_numpy(image)[None],), (partly,), 2, (3, 3, 1), (1.0, 1.0, 1.0))
    sampler = PatchSampler(support, NO_AUGMENTATION, torch.Generator().manual_seed(0))
    centres = [sampler.sample(foreground)[1] for foreground in (0.0, 0.0, 0.0, 1.0)]
    assert all(bool((patch >= 0).all()) for patch in centres[:3])
    seen = {int(value) for _, label in sampler.covering_patches() for value in label.unique()}
    assert seen <= {IGNORED, 0, 1}


def test_a_plan_of_three_slices_is_that_of_the_whole_structure_but_trusts_no_single_piece():
    image, labels = block()
    whole = make_plan([volume(image)], [volume(labels)])
    partly = make_plan([volume(image)], [volume(only_slices(labels, [5, 9, 14]))])
    assert partly.spacing_mm == whole.spacing_mm
    assert partly.labels == whole.labels
    assert whole.keep_largest == (1,)
    assert partly.keep_largest == ()
    assert partly.notes == ()


def test_a_structure_that_is_not_drawn_yet_is_not_called_missing():
    image, labels = block()
    two = np.where(labels, 2, 0).astype(np.int16)
    names = {1: "liver", 2: "spleen"}
    images = [volume(image)] * 2
    assert make_plan(images, [volume(labels), volume(only_slices(two, [9]))], names=names).notes == (
        "spleen (label 2) is missing from 1 of 1 labelled scans; label it if it is visible there",
    )


@pytest.mark.parametrize("drawn", [[4, 9], [7]])
def test_a_slice_stays_annotated_on_a_coarser_grid(drawn):
    _, labels = block()
    plan = Plan(3, 1, tuple(map(tuple, np.eye(3))), (1.0, 1.0, 3.0), (16, 16, 8), (), {1: "x"})
    planned = labels_to_plan(volume(only_slices(labels, drawn)), plan).numpy()
    known = (planned >= 0).all((0, 1))
    assert known.sum() == len(drawn)
    for slab in np.flatnonzero(known):
        assert (planned[:, :, slab] == 1).sum() in (8 * 7, 0)
    assert (planned[:, :, ~known] == IGNORED).all()


@pytest.mark.parametrize("drawn", [9, 10, 11])
def test_structures_of_a_slice_keep_their_area_on_a_coarser_grid(drawn):
    """Also if the slice falls between two planned ones."""
    disc = np.square(np.indices((60, 60)) - 29.5).sum(0) < 12**2
    labels = np.repeat(disc[..., None], 21, axis=2).astype(np.int16)
    plan = Plan(3, 1, tuple(map(tuple, np.eye(3))), (3.0, 3.0, 3.0), (16, 16, 8), (), {1: "x"})
    planned = labels_to_plan(volume(only_slices(labels, [drawn])), plan)
    assert 9 * int((planned == 1).sum()) == pytest.approx(disc.sum(), rel=0.06)


def test_an_atlas_votes_as_the_whole_annotation_where_it_has_slices_and_not_at_all_elsewhere():
    image, labels = block()
    images = (torch.from_numpy(image)[None],)
    whole, partly = (
        Atlas(options=QUICK).adapt(
            Support(images, (torch.from_numpy(one).long(),), 2, (16, 16, 20), (1.0, 1.0, 1.0))
        )
        for one in (labels, only_slices(labels, [7, 8, 9, 10]))
    )  # fmt: skip
    assert (whole.partial, partly.partial) == (False, True)
    expected, votes = whole.votes(images[0]), partly.votes(images[0])
    heard = voted(votes)
    assert not heard[:, :, :4].any()
    assert not heard[:, :, 16:].any()
    torch.testing.assert_close(votes[:, ~heard], torch.full_like(votes[:, ~heard], 0.5))
    inner = (slice(None), slice(None), slice(None), slice(8, 10))
    assert heard[inner[1:]].all()
    torch.testing.assert_close(votes[inner], expected[inner], atol=1e-5, rtol=0)


def test_a_support_left_out_is_scored_where_it_is_annotated():
    image, labels = block()
    wrong = labels.copy()
    wrong[:, :, 12:] = 0  # not seen: these slices are not annotated
    images = (torch.from_numpy(image)[None],) * 2
    masks = tuple(torch.from_numpy(one).long() for one in (labels, only_slices(wrong, [6, 7, 8, 9])))
    dice = Atlas(options=QUICK).leave_one_out(Support(images, masks, 2, (16, 16, 20), (1.0, 1.0, 1.0))).dice
    assert dice[0] is not None
    assert dice[0] > 0.95


def test_a_learner_that_cannot_learn_from_a_part_says_so():
    image, labels = block()
    support = Support((torch.from_numpy(image)[None],), (torch.from_numpy(only_slices(labels, [9])).long(),), 2)
    with pytest.raises(InputError, match="in_context"):
        InContext(steps=1).adapt(support)


def test_ignored_voxels_are_no_structure_and_have_no_size():
    image, labels = block()
    partly = volume(only_slices(labels, [9]))
    assert {value: one.voxels for value, one in structures(partly.data[0]).items()} == {1: 8 * 7}
    plan = make_plan([volume(image)], [partly])
    assert support_profile([volume(image)], [partly], plan)["supports"][0]["sizes"] == {}


def test_scores_count_annotated_voxels_only_and_leave_distances_undefined():
    _, labels = block()
    reference = only_slices(labels, [6, 9])
    prediction = labels.copy()
    prediction[4:8, :, 9] = 0  # half of one of the two slices is missed
    prediction[0:3, 0:3, 0:3] = 1  # a false alarm that nobody can judge
    (score,) = evaluate_arrays(prediction, reference, (1.0, 1.0, 1.0))
    assert score.values["dice"] == pytest.approx(2 * 84 / (84 + 112))
    assert math.isnan(score.values["hd95_mm"])
    assert math.isnan(score.values["surface_dice"])
    assert score.reference_volume_ml == pytest.approx(0.112)


def write(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def test_the_ignore_label_of_an_nnunet_data_set_marks_voxels_that_are_not_annotated(tmp_path):
    image, labels = block()
    stored = np.where(only_slices(labels, [9]) == IGNORED, 2, labels).astype(np.uint8)
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", image)
    write(tmp_path / "labelsTr" / "a.nii.gz", stored)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    dataset = read_dataset(tmp_path)
    assert (dict(dataset.labels), dataset.ignore) == ({1: "liver"}, 2)
    scans = read_supports(dataset)
    assert np.array_equal(scans.labels[0].data[0], only_slices(labels, [9]))
    assert dict(prepare(scans).plan.labels) == {1: "liver"}
    with pytest.raises(InputError, match="partly annotated"):
        read_complete_examples(dataset.cases[0], ignore=dataset.ignore)


def test_a_pair_of_files_says_with_a_setting_which_value_is_ignored(tmp_path):
    image, labels = block()
    stored = np.where(only_slices(labels, [9]) == IGNORED, 255, labels).astype(np.uint8)
    scans = read_supports([(write(tmp_path / "a.nii.gz", image), write(tmp_path / "b.nii.gz", stored))])
    prepared = prepare(scans, AdaptSettings(ignore=255))
    assert tuple(prepared.plan.labels) == (1,)
    assert (prepared.support.labels[0] == IGNORED).any()
    assert not prepared.warnings


def test_a_label_of_which_nothing_is_annotated_is_named_and_not_used(tmp_path):
    image, labels = block()
    stored = np.where(only_slices(labels, [9]) == IGNORED, 2, labels).astype(np.uint8)
    for name, label in (("a", stored), ("b", np.full_like(stored, 2))):
        write(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image)
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", label)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    scans = read_supports(tmp_path)
    assert (len(scans.images), len(scans.unused)) == (1, 1)
    assert scans.unused[0].endswith("b_0000.nii.gz: nothing is annotated, so not used")
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(InputError, match="nothing is annotated"):
        read_supports(tmp_path)


def test_marking_changes_the_voxels_of_one_value_only():
    labels = np.array([[[0, 1, 255]]], np.uint8)
    marked = mark_ignored(Volume(labels, np.eye(4), names={1: "a", 255: "ignore"}), 255)
    assert marked.data.tolist() == [[[0, 1, IGNORED]]]
    assert dict(marked.names) == {1: "a"}


def test_a_label_that_is_finished_nowhere_has_no_background(tmp_path):
    image, labels = block()
    painted = np.where(labels == 1, 1, IGNORED).astype(np.int16)
    scans = read_supports([(volume(image), volume(np.abs(painted) * 0 + labels))])
    scans.labels[0].data[:] = painted
    with pytest.raises(InputError, match="slice"):
        prepare(scans)


def test_the_settings_of_a_plan_take_no_background_as_ignored():
    with pytest.raises(InputError):
        PlanSettings(ignore=0)
