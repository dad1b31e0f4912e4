"""A run from a file to weights that adaptation takes; and two processes that do what one does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import make_folders
from typer.testing import CliRunner

from medfewshot.cli.app import app
from medfewshot.errors import InputError
from medfewshot.io import claimed
from medfewshot.learners import LEARNERS, load_start, make_learner, save_start
from medfewshot.settings import AdaptSettings, load_settings
from medfewshot.training import TrainSettings, train
from medfewshot.types import Progress, Support

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPOSITORY / "configs" / "train").glob("*.yaml"))
TINY = REPOSITORY / "configs" / "train" / "tiny.yaml"
FLAT = """
learner: finetune
learner_options: {steps: 2}
backbone: {dims: 2, width: 4, levels: 3}
steps: 3
episodes_per_step: 2
validation_episodes: 2
tasks: {synthetic: {patches: [[16, 16]], shots: [1, 1], ways: [1, 2]}}
"""


def invoke(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def flat(tmp_path) -> Path:
    path = tmp_path / "flat.yaml"
    path.write_text(FLAT)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_valid(path):
    settings = load_settings(TrainSettings, path)
    assert settings.steps >= 1
    assert settings.tasks.synthetic is not None


def test_from_a_file_to_weights_to_a_segmenter(tmp_path):
    done = invoke("train", TINY, "-o", tmp_path / "run", "--device", "cpu", "--steps", 2, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["steps"] == 2
    assert record["settings"]["backbone"]["width"] == 4
    start = load_start(tmp_path / "run" / "start")
    assert start.learner == "finetune"
    assert start.record["seen"] == {}
    folders = make_folders(tmp_path)
    words = ("adapt", "--support-dir", folders / "annotated", "-o", tmp_path / "s", "--steps", 1, "--device", "cpu")
    done = invoke(*words, "--weights", tmp_path / "run" / "start")
    assert done.exit_code == 0, done.output
    network = json.loads((tmp_path / "s" / "segmenter.json").read_text())["config"]["network"]["network"]
    assert network["agnostic"] is True
    assert network["width"] == 4
    assert json.loads((tmp_path / "s" / "segmenter.json").read_text())["record"]["weights_have_seen"] == {}
    done = invoke(*words, "--weights", tmp_path, "--overwrite")
    assert done.exit_code == 2
    assert "start.json" in done.output


@pytest.mark.parametrize("learner", [spec.name for spec in LEARNERS.values() if spec.build_start])
def test_every_learner_with_meta_parameters_is_trained_and_adapts(tmp_path, learner):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.read_text().replace("learner: finetune", f"learner: {learner}"))
    done = invoke("train", config, "-o", tmp_path / "run", "--device", "cpu", "--quiet", "--steps", 1)
    assert done.exit_code == 0, done.output
    support = ("--support-dir", make_folders(tmp_path) / "annotated", "--learner", learner, "--steps", 1)
    weights = ("--weights", tmp_path / "run" / "start")
    done = invoke("adapt", *support, *weights, "-o", tmp_path / "s", "--device", "cpu", "--quiet")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "s" / "segmenter.json").read_text())["config"]["network"]["width"] == 4


def test_weights_of_a_learner_that_reads_supports_are_its_own(tmp_path, flat):
    """In 2D; its network is not a U-Net, and other learners say so."""
    flat.write_text(FLAT.replace("learner: finetune", "learner: in_context").replace("{steps: 2}", "{}"))
    assert invoke("train", flat, "-o", tmp_path / "run", "--device", "cpu", "--quiet").exit_code == 0
    weights = str(tmp_path / "run" / "start")
    start = load_start(weights)
    assert start.backbone.config["dims"] == 2
    learner = make_learner(AdaptSettings(learner="in_context", weights=weights, steps=0, device="cpu"))
    support = Support((torch.rand(1, 24, 20),), (torch.ones(24, 20, dtype=torch.int64),), 2)
    assert learner.adapt(support)(torch.rand(1, 1, 24, 20)).shape == (1, 2, 24, 20)
    for other in ("finetune", "prototype", "maml"):
        with pytest.raises(InputError, match=r"another kind of learner|trained for learner in_context"):
            make_learner(AdaptSettings(learner=other, weights=weights, device="cpu"))
    flat.write_text(f"{FLAT}weights: {weights}\n")
    refused = invoke("train", flat, "-o", tmp_path / "other", "--device", "cpu", "--quiet")
    assert refused.exit_code == 2
    assert "another kind of learner" in " ".join(refused.output.split())


def test_a_folder_is_not_overwritten_unasked_and_resumes(flat, tmp_path):
    words = ("train", flat, "-o", tmp_path / "run", "--device", "cpu", "--quiet")
    assert invoke(*words).exit_code == 0
    weights = load_file(tmp_path / "run" / "start" / "start.safetensors")
    refused = invoke(*words)
    assert refused.exit_code == 2
    assert "resume" in refused.output
    with claimed(tmp_path / "run"):
        assert "another training" in invoke(*words, "--resume").output
    assert invoke(*words, "--resume").exit_code == 0
    again = load_file(tmp_path / "run" / "start" / "start.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert invoke(*words, "--overwrite").exit_code == 0


def test_weights_that_continue_others_state_what_those_have_seen(flat, tmp_path):
    seen = {"scans": {"subjects": ["a"], "labels": {"1": "liver"}, "without_labels": []}}
    settings = load_settings(TrainSettings, flat)
    train(settings, tmp_path / "first", device="cpu")
    given = load_start(tmp_path / "first" / "start")
    save_start(replace(given, record={"seen": seen}), tmp_path / "first" / "start")
    weights = str(tmp_path / "first" / "start")
    assert train(settings.replace(weights=weights), tmp_path / "second", device="cpu")["seen"] == seen
    with pytest.raises(InputError, match="contains the weights to continue from"):
        train(settings.replace(weights=weights), tmp_path / "first", device="cpu", overwrite=True)
    assert load_start(weights).record["seen"] == seen


def test_a_run_is_replaced_as_a_whole_and_by_none_that_cannot_begin(flat, tmp_path):
    run, words = tmp_path / "run", ("train", flat, "-o", tmp_path / "run", "--device", "cpu", "--quiet")
    assert invoke(*words).exit_code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert invoke(*words, "--overwrite", "--pack", tmp_path / "none.pack").exit_code == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (run / "tensorboard").mkdir(exist_ok=True)
    (run / "tensorboard" / "events.out").touch()
    for name in ("checkpoint.safetensors", "training.csv", "validation.csv"):
        (run / name).unlink()
    assert invoke(*words).exit_code == 2  # weights alone are not replaced unasked
    seen = []

    def look(event):
        seen.append(sorted(path.name for path in run.rglob("*.*") if path.name in ("start.json", "events.out")))

    train(load_settings(TrainSettings, flat), run, device="cpu", overwrite=True, progress=Progress(look))
    assert seen[-1] == []
    assert load_start(run / "start").learner == "finetune"


def test_two_processes_do_what_one_does(flat, tmp_path):
    """Same episodes, dealt out to two gloo processes: weights agree to float32's rounding of the gradient sums.

    With a learner that also counts the episodes of all processes.
    """
    learner = "learner: maml\nlearner_options: {variant: maml++, inner_steps: 2, annealing_episodes: 5}"
    flat.write_text(FLAT.replace("learner: finetune\nlearner_options: {steps: 2}", learner))
    assert invoke("train", flat, "-o", tmp_path / "one", "--device", "cpu", "--quiet").exit_code == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", str(port), "-m", "medfewshot", "train", str(flat), "-o", str(tmp_path / "two"),
        "--device", "cpu", "--quiet",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "start" / "start.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=3e-4, rtol=1e-3)
    record = json.loads((tmp_path / "two" / "start" / "start.json").read_text())["record"]
    assert record["processes"] == 2
    losses = [
        json.loads((tmp_path / n / "start" / "start.json").read_text())["record"]["validation"] for n in ("one", "two")
    ]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], abs=5e-3)  # bf16 turns 1e-4 of a weight into this


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("depth: 3", "depth: is unknown"),
        ("backbone: {dims: 3, widht: 4}", "backbone widht: is unknown"),
        ("tasks: {synthetic: {patch: 3}}", "tasks synthetic patch: is unknown"),
        ("steps: many", "steps"),
        ("steps: 0", "steps 0"),
        ("tasks: {synthetic: {patches: [[8, 8], [8, 8, 8]]}}", "patches"),
        ("tasks: {real: {datasets: {a: {labels: [0]}}}}", "0 is background"),
    ],
)
def test_errors_name_the_file_and_the_setting(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_settings(TrainSettings, path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("learner: oracle", "learner oracle: unknown"),
        ("learner: finetune\nlearner_options: {depth: 3}", "learner_options depth"),
        ("backbone: {dims: 2}", "is 3D with 1 channel"),
        ("tasks: {synthetic: null}", "no tasks"),
        ("weights: nowhere", "start.json"),
    ],
)
def test_runs_that_cannot_be_are_refused(tmp_path, changes, told):
    path = tmp_path / "a.yaml"
    path.write_text(changes)
    done = invoke("train", path, "-o", tmp_path / "run", "--device", "cpu", "--steps", 1)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
