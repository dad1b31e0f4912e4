"""The cells of a benchmark on Ray: a cluster of two nodes in this machine, and what goes wrong."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest
import torch
import toys
from boards import make_config, only_cell

from medfewshot.benchmark import plan_cells, prepare_data, run_benchmark
from medfewshot.benchmark.on_ray import run_on_ray, run_one
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import InputError


class FakeRay:
    """One node that runs tasks when they are waited for; ``lost`` are cells whose node goes away."""

    class exceptions:  # as in ray
        class RayError(Exception):
            pass

    def __init__(self, lost: tuple[str, ...] = ()) -> None:
        self.lost, self.asked = lost, []

    def is_initialized(self):
        return True

    def remote(self, **resources):
        self.asked.append(resources)

        def decorate(function):
            class Task:
                remote = staticmethod(lambda *words: (lambda: function(*words), len(self.asked)))

            return Task

        return decorate

    def wait(self, waiting, num_returns):
        return [waiting[-1]], waiting[:-1]

    def get(self, ready):
        answer = ready[0]()
        for name in [*answer[0].done, *answer[0].skipped]:
            if name in self.lost:
                raise self.exceptions.RayError("trace\nthe node is gone")
        return answer


def on_fake(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "ray", fake)


def test_outcomes_of_all_nodes_come_together(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    cells = plan_cells(make_config(seeds=[0, 1, 2]))
    data = prepare_data(cells, None, tmp_path)
    fake = FakeRay(lost=(cells[1].id,))
    on_fake(monkeypatch, fake)
    told = []
    outcome = run_on_ray(cells, data, tmp_path, "cpu", log=told.append, runner=run_cell, cpus=2, gpus=0.5)
    assert fake.asked == [{"num_cpus": 2, "num_gpus": 0.5}]
    assert sorted(outcome.done) == [cells[0].id, cells[2].id]
    assert outcome.failed == {cells[1].id: "the node is gone"}
    assert len(told) == 3
    again = run_on_ray(cells, data, tmp_path, "cpu", log=told.append, runner=run_cell)
    assert sorted(again.skipped) == [cells[0].id, cells[2].id]


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    cell = only_cell(learners=[{"name": "a", "learner": "finetune"}])
    found, _ = run_one(cell, tmp_path, tmp_path / "absent", "cpu")
    assert "use a folder that all nodes share" in found.failed[cell.id]
    assert not (tmp_path / "absent").exists()


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    cell = only_cell(learners=[{"name": "a", "learner": "finetune"}])
    with pytest.raises(InputError, match=r"pip install 'medfewshot\[ray\]'"):
        run_on_ray([cell], tmp_path, tmp_path, "cpu")


def test_no_such_cluster(tmp_path, monkeypatch):
    class NoCluster(FakeRay):
        def is_initialized(self):
            return False

        def init(self, **settings):
            raise ConnectionError("nobody there\nand more")

    on_fake(monkeypatch, NoCluster())
    cell = only_cell(learners=[{"name": "a", "learner": "finetune"}])
    with pytest.raises(InputError) as error:
        run_on_ray([cell], tmp_path, tmp_path, "cpu", address="elsewhere:1")
    assert str(error.value) == "elsewhere:1: no such cluster (nobody there); try local (setting: ray)"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each on this machine, and a head without cores; the last test takes a node away."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    small = {"object_store_memory": 80_000_000}
    # Ray notices a lost node within seconds.
    health = dict.fromkeys(("health_check_initial_delay_ms", "health_check_period_ms"), 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**small, "num_cpus": 0, "include_dashboard": False, "_system_config": health}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
            ray.init(address=cluster.address, log_to_driver=False)
            yield lambda: cluster.remove_node(nodes[1], allow_graceful=False)
        finally:
            ray.shutdown()
            cluster.shutdown()


def workers_alive():
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


@pytest.mark.slow
def test_two_nodes_share_the_cells(tmp_path, monkeypatch, cluster):
    learners = [{"name": "a", "learner": "finetune", "steps": 2, "width": 4}]
    cells = plan_cells(make_config(learners=learners, seeds=[0, 1], queries=1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone, threads = prepare_data(cells, None, tmp_path / "one"), torch.get_num_threads()
    torch.set_num_threads(1)
    assert run_benchmark(cells, alone, tmp_path / "one", "cpu", runner=run_cell).failed == {}
    torch.set_num_threads(threads)
    data = prepare_data(cells, None, tmp_path / "run")
    told = []
    outcome = run_on_ray(cells, data, tmp_path / "run", "cpu", log=told.append)
    assert len(workers_alive()) == 2
    assert outcome.failed == {}
    assert sorted(outcome.done) == [cell.id for cell in cells]
    assert len(told) == 2
    records = [json.loads((cell.folder(tmp_path / "run") / "cell.json").read_text()) for cell in cells]
    assert [record["steps"] for record in records] == [2, 2]
    assert [record["threads"] for record in records] == [1, 1]
    for cell in cells:  # to the bit; the last column is the seconds
        spread, single = (
            [line.rpartition(",")[0] for line in (cell.folder(tmp_path / run) / "scores.csv").read_text().splitlines()]
            for run in ("run", "one")
        )
        assert spread == single


@pytest.mark.slow
def test_the_work_of_a_lost_node_is_done_again(tmp_path, cluster):
    """A node is taken away while it runs a cell; the other one goes on with what it left."""
    learners = [{"name": "a", "learner": "finetune", "steps": 30, "width": 4}]
    cells = plan_cells(make_config(learners=learners, seeds=[0, 1], queries=1))
    run = tmp_path / "run"
    data = prepare_data(cells, None, run)
    lost = []

    def take_away() -> None:
        end = time.monotonic() + 300
        while not all((cell.folder(run) / ".lock").is_file() for cell in cells) and time.monotonic() < end:
            time.sleep(0.05)
        lost.extend(cell.id for cell in cells if not (cell.folder(run) / "cell.json").is_file())
        cluster()

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    outcome = run_on_ray(cells, data, run, "cpu", runner=run_cell)
    thread.join()
    end = time.monotonic() + 120  # Ray's own list of nodes learns of it later than the task's owner does
    while len(alive := workers_alive()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert lost == [cell.id for cell in cells]  # both were under way
    assert len(alive) == 1
    assert outcome.failed == {}
    assert sorted(outcome.done) == [cell.id for cell in cells]
