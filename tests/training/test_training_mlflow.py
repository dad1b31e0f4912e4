"""MLflow gets what the CSVs get, once, in one run however often it was cut off; without it, one line says so."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from test_training_loop import SETTINGS, trainer
from test_training_run import TINY, invoke
from toy_tasks import StoppingSource, read_log

from medfewshot.errors import InputError
from medfewshot.training.logs import LONGEST_PARAM, MLFLOW, TRAINING, VALIDATION, Logs, check_mlflow


class Client:
    """As much of ``mlflow.MlflowClient`` as is used; a "server" outlives its clients."""

    servers: ClassVar[dict[str, dict]] = {}
    broken = False
    stops_after = 10**9
    """Batches of metrics."""

    def __init__(self, tracking_uri: str) -> None:
        self.runs = Client.servers.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1") if self.runs else None

    def create_experiment(self, name, artifact_location=None):
        return "1"

    def create_run(self, experiment, run_name):
        run = SimpleNamespace(name=run_name, status="RUNNING", params={}, history=defaultdict(list))
        self.runs[str(len(self.runs))] = run
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs) - 1)))

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    set_terminated = update_run

    def get_run(self, run_id):
        return SimpleNamespace(data=SimpleNamespace(metrics=dict.fromkeys(self.runs[run_id].history)))

    def get_metric_history(self, run_id, key):
        return self.runs[run_id].history[key]

    def log_batch(self, run_id, metrics=(), params=()):
        Client.stops_after -= bool(metrics)
        if Client.broken or Client.stops_after < 0:
            raise ConnectionError("no answer\nmore")
        for metric in metrics:
            self.runs[run_id].history[metric.key].append(metric)
        self.runs[run_id].params.update({param.key: param.value for param in params})


@pytest.fixture
def servers(monkeypatch) -> dict:
    package, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    package.MlflowClient = Client
    entities.Metric = lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step)
    entities.Param = lambda key, value: SimpleNamespace(key=key, value=value)
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(Client, "servers", {})
    monkeypatch.setattr(Client, "broken", False)
    return Client.servers


@pytest.mark.parametrize("own", [None, "false"])
def test_mlflow_sends_no_usage_statistics_unless_the_user_wants_it(own, servers, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", own or "")
    if own is None:
        monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    check_mlflow("folder")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == (own or "true")


def check_same_rows(folder, history) -> None:
    for name in (TRAINING, VALIDATION):
        rows = read_log(folder / name)
        assert rows
        for key in set(rows[0]) - {"step"}:
            found = [(metric.step, metric.value) for metric in history(f"{name.removesuffix('.csv')}/{key}")]
            assert [step for step, _ in found] == [row["step"] for row in rows]
            if "second" not in key:  # a resumed run takes its time again
                assert [value for _, value in found] == [row[key] for row in rows]


def test_rows_and_settings_arrive(tmp_path, servers):
    run = trainer(tmp_path / "run")
    run.mlflow = "http://tracking.test"
    run.run()
    assert list(servers) == ["http://tracking.test"]
    (sent,) = servers["http://tracking.test"].values()
    assert (sent.name, sent.status) == ("run", "FINISHED")
    assert sent.params["learning_rate"] == "0.05"
    assert sent.params["backbone.width"] == "16"
    assert sent.params["tasks.real"] == "None"
    check_same_rows(tmp_path / "run", sent.history.__getitem__)


def test_a_resumed_run_is_the_same_run_and_sends_nothing_twice(tmp_path, servers):
    cut = trainer(tmp_path / "run", source=StoppingSource(14))
    cut.mlflow = str(tmp_path / "logs")
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    ((uri, runs),) = servers.items()
    assert uri == f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}"
    assert runs["0"].status == "KILLED"
    assert [metric.step for metric in runs["0"].history["training/loss"]] == [3, 6]  # the checkpoint is of step 4
    resumed = trainer(tmp_path / "run")
    resumed.mlflow = str(tmp_path / "logs")
    resumed.run(resume=True)
    assert list(runs) == ["0"]
    assert runs["0"].status == "FINISHED"
    check_same_rows(tmp_path / "run", runs["0"].history.__getitem__)


def test_an_overwritten_run_gets_a_new_one(tmp_path, servers):
    words = ("train", TINY, "-o", tmp_path / "run", "--steps", 1, "--quiet", "--device", "cpu", "--mlflow", "file:///x")
    for more in ((), ("--overwrite",)):
        done = invoke(*words, *more)
        assert done.exit_code == 0, done.output
    assert list(servers["file:///x"]) == ["0", "1"]


def test_a_server_that_stops_answering_does_not_stop_training(tmp_path, servers):
    warnings: list[str] = []
    with Logs(tmp_path, mlflow="http://tracking.test", warn=warnings.append) as logs:
        logs.write(TRAINING, {"step": 1, "loss": 2.0})
        Client.broken = True
        logs.write(TRAINING, {"step": 2, "loss": 1.0})
        logs.close()
        assert warnings == [
            "MLflow did not always answer (no answer); rows are sent with later ones",
            "MLflow lacks 1 values of this run; the CSV files contain them",
        ]
        Client.broken = False
        logs.write(TRAINING, {"step": 3, "loss": 0.5})
    (sent,) = servers["http://tracking.test"].values()
    check = [(metric.step, metric.value) for metric in sent.history["training/loss"]]
    assert check == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_the_command_line_tells_of_an_outage(tmp_path, servers, monkeypatch):
    monkeypatch.setattr(Client, "stops_after", 1)
    words = ("train", TINY, "-o", tmp_path / "run", "--steps", 2, "--device", "cpu", "--mlflow", "file:///x")
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "warning: MLflow did not always answer (no answer)" in told
    assert "warning: MLflow lacks" in told
    record = json.loads((tmp_path / "run" / "start" / "start.json").read_text())["record"]
    assert len(record["warnings"]) == 2


def test_a_server_that_never_answers_is_one_line(tmp_path, servers):
    Client.broken = True
    with pytest.raises(InputError, match=r"MLflow at http://tracking.test cannot be used \(no answer\)") as caught:
        Logs(tmp_path, mlflow="http://tracking.test", settings=SETTINGS.model_dump())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / MLFLOW).exists()


def test_long_settings_and_odd_names_are_made_to_fit(tmp_path, servers):
    Logs(tmp_path, mlflow="http://tracking.test", settings={"a": {"näme+1": "x" * 9999, "none": {}}}).close()
    (sent,) = servers["http://tracking.test"].values()
    assert sent.params == {"a.n_me_1": "x" * LONGEST_PARAM, "a.none": "{}"}


def test_without_mlflow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    done = invoke("train", TINY, "-o", tmp_path / "run", "--mlflow", tmp_path / "logs")
    assert done.exit_code == 2
    assert "pip install mlflow" in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("sqlalchemy") is None,
    reason="MLflow is not installed: pip install mlflow",
)
def test_with_the_real_one(tmp_path):
    from mlflow import MlflowClient

    cut = trainer(tmp_path / "run", source=StoppingSource(14))
    cut.mlflow = str(tmp_path / "logs")
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = trainer(tmp_path / "run")
    resumed.mlflow = str(tmp_path / "logs")
    resumed.run(resume=True)
    run_id = json.loads((tmp_path / "run" / MLFLOW).read_text())["run_id"]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["learning_rate"] == "0.05"
    check_same_rows(tmp_path / "run", lambda key: client.get_metric_history(run_id, key))
