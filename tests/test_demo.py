"""The demo on a real learner and tiny scans."""

from __future__ import annotations

import json

import pytest

from medfewshot.demo import run_demo
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings
from medfewshot.synthetic import make_ct_cohort
from medfewshot.types import Progress


def make_small(folder, cases, seed=0, progress=None):
    return make_ct_cohort(folder, cases, seed, shape=(28, 26, 22), spacing_mm=12.0, progress=progress)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("data"), 3)


def test_made_up_data(tmp_path):
    settings = AdaptSettings(steps=1, width=4, device="cpu")
    for _ in range(2):  # a second time replaces the first
        result = run_demo(tmp_path, shots=1, queries=1, settings=settings, make_data=make_small)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {
        "data/dataset.json", "segmenter/segmenter.json", "segmentations/run.json", "segmentations/statistics.csv",
        "scores/scores.csv", "scores/summary.json", "scores/dice.png", "report.html",
    } <= names  # fmt: skip
    assert any(name.startswith("segmentations/previews/case_") for name in names)
    assert set(result.seconds) == {"data", "adapt", "segment", "score", "report"}


def test_own_data(data, tmp_path):
    told: list[str] = []
    settings = AdaptSettings(steps=1, width=4, seed=1, device="cpu")
    progress = Progress(lambda event: told.append(event.text))
    result = run_demo(tmp_path, data=data, shots=1, queries=5, settings=settings, progress=progress)
    cases = {score.case_id for score in result.evaluation.scores}
    assert len(cases) == 2, "all that are no support"
    record = json.loads((tmp_path / "segmentations" / "run.json").read_text())
    assert record["seed"] == 1
    assert record["command"] is None
    assert not cases & {support["image"].split("/")[-1].split(".")[0] for support in record["supports"]}
    assert "window" in json.dumps(record["plan"]), "the dataset says CT"
    assert not (tmp_path / "data").exists()
    assert cases <= set(told)


def test_refused_before_anything_is_written(data, tmp_path):
    out = tmp_path / "demo"
    with pytest.raises(InputError, match="too few labelled scans"):
        run_demo(out, data=data, shots=3)
    with pytest.raises(InputError, match="unknown device"):
        run_demo(out, settings=AdaptSettings(device="abacus"))
    with pytest.raises(InputError, match="does not exist"):
        run_demo(out, data=tmp_path / "nowhere")
    assert not out.exists()
