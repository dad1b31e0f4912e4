"""Work in threads, and on Ray: a cluster of two nodes in this machine, and what goes wrong."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import toys
from boards import make_config, only_cell

from medfewshot.benchmark import plan_cells, prepare_data, run_benchmark
from medfewshot.benchmark.run import run_one
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.bundle import load_segmenter
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings, SegmentSettings, WorkerSettings
from medfewshot.types import Cancelled, Progress
from medfewshot.workers import Lost, RayCluster, Threads, make_workers
from medfewshot.workflow import SavedModel, adapt, evaluate, open_batch, read_supports, segment


class FakeRay:
    """One node that runs tasks when they are waited for; ``lost`` are answers whose node goes away."""

    class exceptions:  # as in ray
        class RayError(Exception):
            pass

    def __init__(self, lost: tuple[object, ...] = (), problem: object = None, nodes: int = 1) -> None:
        self.lost, self.asked, self.problem = lost, [], problem
        self.alive = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}, "NodeID": "n", "NodeManagerAddress": "ip"}]
        self.alive *= nodes
        affinity = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=affinity)

    def is_initialized(self):
        return True

    def nodes(self):
        return self.alive

    def remote(self, **resources):
        self.asked.append(resources)

        def decorate(function):
            if "scheduling_strategy" in resources and self.problem is not None:
                function = self.check
            return SimpleNamespace(remote=lambda *words: (lambda: function(*words), object()))

        return decorate

    def check(self, *_):
        if isinstance(self.problem, str):
            raise self.exceptions.RayError(self.problem)
        return self.problem

    def wait(self, waiting, num_returns, timeout):
        return [waiting[-1]], waiting[:-1]

    def get(self, ready):
        answer = ready[0]()
        names = [*answer[0].done, *answer[0].skipped] if isinstance(answer, tuple) and self.lost else [answer]
        if any(name in self.lost for name in names):
            raise self.exceptions.RayError("trace\nthe node is gone")
        return answer


def double(item, progress):
    progress.update(0, 1)
    return 2 * item


@pytest.mark.parametrize("jobs", [1, 3])
def test_threads_do_every_item_once(jobs):
    assert sorted(Threads(jobs).run(double, range(20))) == [(number, 2 * number) for number in range(20)]


def test_threads_work_at_the_same_time():
    barrier = threading.Barrier(2, timeout=10)
    together = Threads(2).run(lambda item, progress: barrier.wait() >= 0, [0, 1])
    assert [result for _, result in together] == [True, True]


@pytest.mark.parametrize("jobs", [1, 2])
def test_threads_stop_when_cancelled_and_raise_what_goes_wrong(jobs):
    with pytest.raises(Cancelled):
        list(Threads(jobs).run(double, [1, 2, 3], Progress(cancelled=lambda: True)))
    with pytest.raises(TypeError):
        list(Threads(jobs).run(double, [1, None, 3]))


def test_threads_that_are_left_end(tmp_path):
    begun = []

    def long(item, progress):
        begun.append(item)
        while item:  # the first is done at once, the others wait until they are cancelled
            progress.update(0, 1)
            time.sleep(0.001)

    running = Threads(2).run(long, range(100))
    assert next(running) == (0, None)
    running.close()
    assert len(begun) < 10


def test_settings_choose_the_workers():
    assert make_workers(WorkerSettings()) == Threads(1)
    assert make_workers(WorkerSettings(jobs=3)) == Threads(3)
    assert make_workers(WorkerSettings(ray="auto", cpus=2)) == RayCluster("auto", 2, 0)
    with pytest.raises(InputError, match="give one of them"):
        make_workers(WorkerSettings(ray="auto", jobs=2))
    for alone in ({"cpus": 2}, {"gpus": 1}):
        with pytest.raises(InputError, match="only a Ray cluster takes cores and GPUs"):
            make_workers(WorkerSettings(**alone))


def on_fake(monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "ray", fake)
    return RayCluster("here", cpus=2, gpus=0.5)


def test_a_lost_node_is_an_answer(monkeypatch):
    cluster = on_fake(monkeypatch, FakeRay(lost=(4,)))
    assert dict(cluster.run(double, [1, 2])) == {0: 2, 1: Lost("the node is gone")}


@pytest.mark.parametrize(
    ("fake", "line"),
    [
        (FakeRay(nodes=0), "here: no node has 2 cores and 0.5 GPUs; start nodes, or ask for less"),
        (
            FakeRay(problem="trace\nNo module named 'medfewshot'"),
            "node ip: cannot run medfewshot .*; install medfewshot",
        ),
        (FakeRay(problem=("/data is not there", "share it")), "node ip: /data is not there; share it"),
    ],
)
def test_a_cluster_that_cannot_do_the_work(monkeypatch, fake, line):
    cluster = on_fake(monkeypatch, fake)
    with pytest.raises(InputError, match=line), cluster.ready():
        pass


def test_a_node_without_the_data(tmp_path, monkeypatch):
    cluster = on_fake(monkeypatch, FakeRay())
    with pytest.raises(InputError, match=r"absent is not there .*use a folder that all nodes share"):
        cluster.ready(tmp_path, tmp_path / "absent").__enter__()


def test_a_node_with_another_folder_of_that_name(tmp_path, monkeypatch):
    class Elsewhere(FakeRay):
        def get(self, ready):
            moved = [path.rename(tmp_path.with_name(path.name)) for path in tmp_path.iterdir()]
            try:
                return super().get(ready)
            finally:
                [path.rename(tmp_path / path.name) for path in moved]

    cluster = on_fake(monkeypatch, Elsewhere())
    with pytest.raises(InputError, match=rf"{tmp_path} is another folder .*use a folder that all nodes share"):
        cluster.ready(results=tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_outcomes_of_all_nodes_come_together(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    cells = plan_cells(make_config(seeds=[0, 1, 2]))
    data = prepare_data(cells, None, tmp_path)
    fake = FakeRay(lost=(cells[1].id,))
    cluster = on_fake(monkeypatch, fake)
    told = []
    outcome = run_benchmark(cells, data, tmp_path, "cpu", log=told.append, runner=run_cell, cluster=cluster)
    assert {"num_cpus": 2, "num_gpus": 0.5} in fake.asked
    assert sorted(outcome.done) == [cells[0].id, cells[2].id]
    assert outcome.failed == {cells[1].id: "the node is gone"}
    assert len(told) == 3
    again = run_benchmark(cells, data, tmp_path, "cpu", log=told.append, runner=run_cell, cluster=cluster)
    assert sorted(again.skipped) == [cells[0].id, cells[2].id]


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    cell = only_cell(learners=[{"name": "a", "learner": "finetune"}])
    found, _ = run_one(cell, data=tmp_path, run=tmp_path / "absent", device="cpu")
    assert "use a folder that all nodes share" in found.failed[cell.id]
    assert not (tmp_path / "absent").exists()


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install"):
        RayCluster().ready().__enter__()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "no.such.host.invalid:6379"])
def test_a_wrong_address_is_one_line_at_once(monkeypatch, address):
    fake = FakeRay()
    fake.is_initialized = lambda: False  # and it has no init
    on_fake(monkeypatch, fake)
    with pytest.raises(InputError, match=rf"{address}: no such cluster \(.*\); check the address"):
        RayCluster(address).ready().__enter__()


def test_no_such_cluster(monkeypatch):
    class NoCluster(FakeRay):
        def is_initialized(self):
            return False

        def init(self, **settings):
            raise ConnectionError("nobody there\nand more")

    on_fake(monkeypatch, NoCluster())
    with pytest.raises(InputError) as error:
        RayCluster("auto").ready().__enter__()
    assert "auto: no such cluster (nobody there)" in str(error.value)


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
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default: the workers would starve beside other tests
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
    outcome = run_benchmark(
        cells, data, tmp_path / "run", "cpu", log=told.append, runner=run_cell, cluster=RayCluster()
    )
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


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Scans, one of them damaged, their references, and a small model of a few steps."""
    folder = toys.make_folders(tmp_path_factory.mktemp("cohort"))
    quick = AdaptSettings(learner="finetune", weights="none", steps=2, width=4, device="cpu")
    adapt(read_supports(folder / "annotated"), quick).save(folder / "model")
    (folder / "cohort" / "broken.nii.gz").write_bytes(b"no scan")
    return folder


def segment_cohort(folder, out, **more):
    batch = open_batch([folder / "cohort"], out, SegmentSettings(previews=False, report=False, resume=True))
    return segment(batch, load_segmenter(folder / "model"), saved=SavedModel(folder / "model", "cpu"), **more)


KEPT = ("case", "inputs", "status", "labels", "statistics", "flags", "warnings", "error")


def results_of(folder):
    """Voxels of every label map, and what the record says about every scan."""
    arrays = {path.name: np.asarray(nib.load(path).dataobj).tobytes() for path in folder.glob("*.nii.gz")}
    return arrays, [{key: one[key] for key in KEPT} for one in json.loads((folder / "run.json").read_text())["outputs"]]


def test_jobs_give_the_same_results(cohort, tmp_path):
    alone = segment_cohort(cohort, tmp_path / "one")
    assert [one.status for one in alone.results] == ["failed", "done", "done", "done"]
    segment_cohort(cohort, tmp_path / "two", workers=Threads(2))
    assert results_of(tmp_path / "one") == results_of(tmp_path / "two")


@pytest.fixture
def one_thread():
    """As Ray gives a worker of one core; more threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_cluster_gives_the_same_results(cohort, tmp_path, monkeypatch, cluster):
    """Also with one bad scan, when it continues what one process began, and from relative paths; so do the scores."""
    alone = segment_cohort(cohort, tmp_path / "one")
    monkeypatch.chdir(cohort)
    cut = Progress(cancelled=lambda: len(list((tmp_path / "two").glob("*.nii.gz"))) > 0)
    with pytest.raises(Cancelled):
        segment_cohort(cohort, tmp_path / "two", progress=cut)
    spread = segment_cohort(Path(), tmp_path / "two", workers=RayCluster())
    assert (spread.resumed, len(spread.failed)) == (1, 1)
    assert results_of(tmp_path / "one") == results_of(tmp_path / "two")
    assert [one.error for one in spread.failed] == [one.error for one in alone.failed]
    scores = [evaluate(tmp_path / "one", cohort / "reference", workers=who) for who in (Threads(), RayCluster())]
    assert scores[0].score_rows() == scores[1].score_rows()


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
    outcome = run_benchmark(cells, data, run, "cpu", runner=run_cell, cluster=RayCluster())
    thread.join()
    end = time.monotonic() + 120  # Ray's own list of nodes learns of it later than the task's owner does
    while len(alive := workers_alive()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert lost == [cell.id for cell in cells]  # both were under way
    assert len(alive) == 1
    assert outcome.failed == {}
    assert sorted(outcome.done) == [cell.id for cell in cells]
