"""On a CUDA device: the same as on the CPU, within what bf16 and another order of sums allow. Skipped without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "learners"))
from blobs import small, support_of
from toys import make_scan, save_nifti
from typer.testing import CliRunner

from medfewshot.backbones import build_backbone
from medfewshot.cli.app import app
from medfewshot.devices import autocast, has_fast_bf16
from medfewshot.learners import LEARNERS
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.synthetic import Populations, PopulationSettings
from medfewshot.training import train
from medfewshot.training.settings import BackboneSettings, TaskSettings, TrainSettings
from medfewshot.types import Support

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
SUPPORTS = {"2D": support_of([(32, 32)] * 2, seed=3), "3D": support_of([(24, 24, 20)] * 2, seed=3)}


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.argmax(1).cpu() == b.argmax(1).cpu()).float().mean())


@pytest.mark.parametrize("kind", SUPPORTS)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_segments_alike_on_both(name, kind):
    support = SUPPORTS[kind]
    query = support.images[1][None]
    copy_to_cpu = small(name, steps=30, width=8).adapt(support)
    on_cuda = small(name, steps=30, width=8, device=CUDA).adapt(support)
    logits = on_cuda(query.to(CUDA))
    assert torch.isfinite(logits).all()
    assert agreement(copy_to_cpu(query), logits) > 0.93


@pytest.mark.parametrize("name", LEARNERS)
def test_a_segmenter_moves_between_devices(name):
    support = SUPPORTS["3D"]
    query = support.images[0][None]
    segmenter = small(name, steps=10, width=8, device=CUDA).adapt(support)
    moved = segmenter.copy_to(torch.device("cpu"))
    assert agreement(segmenter(query.to(CUDA)), moved(query)) > 0.97


def test_a_pretrained_head_is_the_same_in_closed_form():
    torch.manual_seed(0)
    start = LinearHeadStart(build_backbone(dims=3, width=8, levels=3))
    support: Support = SUPPORTS["3D"]
    query = support.images[0][None]
    logits = [
        Finetune(steps=1, learning_rate=1e-9, start=start.to(device), device=device).adapt(support)(query.to(device))
        for device in (torch.device("cpu"), CUDA)
    ]
    assert agreement(*logits) > 0.97


def test_episodes_are_made_alike():
    tasks = Populations(PopulationSettings(patches=((24, 24, 24),), shots=(1, 2)))
    for seed in range(4):
        a, b = (tasks.sample(seed, progress=0.5, device=device) for device in (torch.device("cpu"), CUDA))
        assert b.query.image.device.type == "cuda"
        assert a.task == b.task
        same = (a.query.label == b.query.label.cpu()).float().mean()
        assert float(same) > 0.98


def test_training_runs_and_its_weights_adapt(tmp_path):
    settings = TrainSettings(
        steps=4,
        validate_every=4,
        validation_episodes=2,
        backbone=BackboneSettings(width=4, levels=3),
        tasks=TaskSettings(synthetic=PopulationSettings(patches=((16, 16, 16),), shots=(1, 2))),
    )
    record = train(settings, tmp_path / "run", device="cuda")
    assert record["steps"] == 4
    assert record["skipped"] == 0
    assert (tmp_path / "run" / "start" / "start.safetensors").is_file()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_scan_is_segmented_from_file_to_file(name, tmp_path):
    image, label = make_scan(0)
    pair = save_nifti(tmp_path / "a.nii.gz", image), save_nifti(tmp_path / "lab.nii.gz", label)
    command = ["segment", str(pair[0]), "--support", f"{pair[0]}={pair[1]}", "--device", "cuda", "--learner", name]
    budget = [] if name == "atlas" else ["--steps", "8"]
    result = CliRunner().invoke(app, [*command, *budget, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output


def test_bf16_is_used_where_it_is_native():
    with autocast(CUDA):
        product = torch.ones(8, 8, device=CUDA) @ torch.ones(8, 8, device=CUDA)
    assert product.dtype == (torch.bfloat16 if has_fast_bf16(CUDA) else torch.float32)
