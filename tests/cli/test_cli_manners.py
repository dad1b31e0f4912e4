"""Manners of the command line: near names, completion, colour only where it is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.testing

from medfewshot.cli.app import app
from medfewshot.cli.console import Console
from medfewshot.cli.options import ConfigFile, with_settings
from medfewshot.settings import AdaptSettings


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--learner", "fintune"], "did you mean finetune?"),
        (["--device", "cdua"], "did you mean cuda?"),
        (["--weights", "defualt"], "did you mean default?"),
        (["--labels", "left blok"], "did you mean left block?"),
        (["--labels", "heart"], "known are left block, right block"),
        (["--labels", ","], "separated by commas"),
        (["--labels", "-1"], "separated by commas"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(run, scans, support, words, told):
    name_structures(scans)
    done = run("adapt", "-o", scans / "seg", *support, *words)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def name_structures(scans) -> None:
    pairs = [{"image": f"images/s{i}.nii.gz", "label": f"labels/s{i}.nii.gz"} for i in range(2)]
    table = {"labels": {"0": "background", "205": "left block", "420": "right block"}, "training": pairs}
    (scans / "annotated" / "dataset.json").write_text(json.dumps(table))


def test_a_config_key_that_is_misspelt(run, scans, support):
    (scans / "a.yaml").write_text("learning_rat: 0.1\n")
    done = run("adapt", "-o", scans / "seg", *support, "--config", scans / "a.yaml")
    assert "did you mean learning_rate?" in done.err


def test_a_command_and_an_option_that_are_misspelt(run):
    assert "segment" in run("segmnt").err
    assert "--learner" in run("adapt", "--lerner", "x", "-o", "y").err


def test_structures_by_name(run, scans, support):
    name_structures(scans)
    done = run("adapt", "-o", scans / "seg", *support, "--labels", "Right Block", "--json")
    assert done.code == 0, done.err
    content = json.loads((scans / "seg" / "segmenter.json").read_text())
    assert content["plan"]["labels"] == {"420": "right block"}
    assert "structures: right block (420); from 2 labelled scans" in done.err


def test_a_name_without_names(run, scans, support):
    done = run("adapt", "-o", scans / "seg", *support, "--labels", "liver")
    assert done.code == 2
    assert "give label values" in done.err


def test_scores_by_name(run, scans):
    name_structures(scans)
    table = (scans / "annotated" / "dataset.json").read_text()
    (scans / "dataset.json").write_text(table.replace("images/s", "cohort/q").replace("labels/s", "reference/q"))
    done = run("evaluate", scans / "reference", "-r", scans / "reference", "--labels", "left block", "--json")
    assert done.code == 0, done.err
    assert [row["label"] for row in json.loads(done.out)["summary"]] == [205, None]


def test_completion():
    environment = {"_MEDFEWSHOT_COMPLETE": "complete_bash", "COMP_WORDS": "medfewshot se", "COMP_CWORD": "1"}
    done = typer.testing.CliRunner().invoke(app, env=environment, prog_name="medfewshot")
    assert "segment" in done.output.split()
    assert "--install-completion" in typer.testing.CliRunner().invoke(app, ["--help"]).output


def test_no_colour_where_nobody_sees_it(scans):
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "GITHUB_ACTIONS")}
    words = [sys.executable, "-m", "medfewshot", "inspect", str(scans / "annotated")]
    done = subprocess.run(words, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


def test_label_app(run, scans, support):
    done = run("label-app", scans / "app", "--labels", "1=left block, 2=right block", "--json")
    assert done.code == 0, done.err
    assert json.loads((scans / "app" / "labels.json").read_text()) == {"1": "left block", "2": "right block"}
    assert "exists already" in run("label-app", scans / "app", "--labels", "1=liver").err
    assert "1=liver,2=spleen" in run("label-app", scans / "b").err
    assert "1=liver" in run("label-app", scans / "b", "--labels", "liver").err
    assert run("label-app", scans / "c", "--segmenter", scans / "nowhere").code == 2
    assert not (scans / "c").exists()


def test_what_leaving_supports_out_gave_is_told(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plan = SimpleNamespace(
        spacing_mm=(1, 1, 1),
        patch_size=(8, 8, 8),
        normalization=(),
        spatial_dims=3,
        labels={1: "liver", 2: "cyst", 3: "lost"},
    )
    record = {
        "learner": {"steps": 3, "atlas_left_out_dice": [0.7094, None, 0.0]},
        "settings": {"learner": "hybrid", "weights": None, "quality": "best", "steps": 3, "budget_seconds": "auto"},
        "seconds": {"adapt": 1},
        "supports": [{}],
        "keeps_supports": True,
        "profile": {"supports": [{"spacing_mm": [1, 1, 1]}]},
    }
    Console().model(SimpleNamespace(plan=plan, record=record), Path("kidney"))
    told = capsys.readouterr().out
    assert "structures: liver (1), cyst (2), lost (3); from 1 labelled scan\n" in told
    assert "liver 0.71" in told
    assert "quality: best, except what --steps set" in told
    assert "lost 0.00" in told  # what matching cannot find is what one wants to know
    assert "cyst 0" not in told
    assert "kidney contains your labelled scans" in told


def test_options_win_over_the_file_and_reach_the_model(tmp_path):
    seen = []

    @with_settings()
    def command(*, settings: AdaptSettings, config: ConfigFile = None) -> None:
        seen.append(settings)

    typer_app = typer.Typer()
    typer_app.command()(command)
    path = tmp_path / "a.yaml"
    path.write_text("steps: 5\nseed: 3\nquality: draft\n")
    words = ["--config", str(path), "--steps", "9", "--spacing", "2", "--labels", "1=liver", "--budget", "inf"]
    done = typer.testing.CliRunner().invoke(typer_app, words)
    assert done.exit_code == 0, done.output
    assert seen == [
        AdaptSettings(steps=9, seed=3, quality="draft", spacing_mm=2, labels={1: "liver"}, budget_seconds=None)
    ]
