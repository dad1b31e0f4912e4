"""TensorBoard gets what the CSVs get, where it is installed; a resumed run takes back what it will write again."""

from __future__ import annotations

import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace

import pytest
from test_training_loop import trainer
from test_training_mlflow import check_same_rows
from toy_tasks import StoppingSource, read_log

from medfewshot.training.logs import TRAINING

NAME = "torch.utils.tensorboard"


class Writer:
    """As much of ``SummaryWriter`` as is used."""

    def __init__(self, log_dir, purge_step=None) -> None:
        self.folder, self.purge_step, self.closed = log_dir, purge_step, False
        self.history = defaultdict(list)

    def add_scalar(self, key, value, step) -> None:
        assert not self.closed
        self.history[key].append(SimpleNamespace(step=step, value=value))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch) -> list[Writer]:
    made: list[Writer] = []

    def make(*args, **options) -> Writer:
        made.append(Writer(*args, **options))
        return made[-1]

    package = ModuleType(NAME)
    package.SummaryWriter = make
    monkeypatch.setitem(sys.modules, NAME, package)
    return made


def test_rows_arrive(tmp_path, writers):
    trainer(tmp_path).run()
    (writer,) = writers
    assert writer.folder == str(tmp_path / "tensorboard")
    assert writer.purge_step is None
    assert writer.closed
    assert {"training/loss", "training/learning_rate", "validation/loss"} <= set(writer.history)
    check_same_rows(tmp_path, writer.history.__getitem__)


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path, writers):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, source=StoppingSource(14)).run()
    trainer(tmp_path).run(resume=True)
    first, second = writers
    assert first.closed
    assert [scalar.step for scalar in first.history["training/loss"]] == [3, 6]
    assert second.purge_step == 5  # the checkpoint is of step 4
    assert [scalar.step for scalar in second.history["training/loss"]] == [6, 9, 12]


def test_a_run_needs_no_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    trainer(tmp_path).run()
    assert len(read_log(tmp_path / TRAINING)) == 4
    assert not (tmp_path / "tensorboard").exists()
