"""The demo on a real learner and tiny scans; what it leaves on disk is tested with the command."""

from __future__ import annotations

import json

import pytest

from medfewshot.demo import run_demo
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings
from medfewshot.synthetic import make_ct_cohort
from medfewshot.types import Progress


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_ct_cohort(tmp_path_factory.mktemp("data"), 3, shape=(28, 26, 22), spacing_mm=12.0)


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
    with pytest.raises(InputError, match="lower --shots"):
        run_demo(out, data=data, shots=3)
    with pytest.raises(InputError, match="unknown device"):
        run_demo(out, settings=AdaptSettings(device="abacus"))
    with pytest.raises(InputError, match="does not exist"):
        run_demo(out, data=tmp_path / "nowhere")
    assert not out.exists()
