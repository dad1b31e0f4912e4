"""Workers: run a function on many items, in threads of this process or on the nodes of a Ray cluster.

References:
    Moritz et al. 2018, "Ray: A distributed framework for emerging AI applications".
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

from medfewshot import __version__
from medfewshot.errors import InputError
from medfewshot.settings import WorkerSettings
from medfewshot.types import Progress

IN_FLIGHT = 256
"""Items that wait at a cluster at a time: more than it has cores, and few enough to look through quickly."""
SECONDS_BETWEEN_LOOKS = 2.0
_MARK = ".medfewshot"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """An item without a result, because its worker ended."""

    reason: str


@dataclass(frozen=True)
class Threads:
    """Threads of this process.

    Args:
        jobs: Number of threads. With one, the caller's own thread does the work.
    """

    jobs: int = 1

    @contextmanager
    def ready(self, *folders: Path, results: Path | None = None) -> Iterator[None]:
        """Do nothing: threads see what this process sees."""
        yield

    def run(
        self, function: Callable[[Item, Progress], Result], items: Sequence[Item], progress: Progress | None = None
    ) -> Generator[tuple[int, Result | Lost], None, None]:
        """Run a function on every item.

        Args:
            function: Receives an item and a progress. It reports events only if there is one job, and is cancelled
                together with ``progress``.
            items: What to work on, in this order.
            progress: Receives the events of a single job; may cancel.

        Yields:
            Position of an item and its result, in the order in which they are done.

        Raises:
            Cancelled: ``progress`` cancels. The exceptions of ``function`` are raised too.
        """
        progress = progress or Progress()
        if self.jobs == 1:
            for number, item in enumerate(items):
                yield number, function(item, progress.part(number, len(items)))
            return
        stop = threading.Event()
        silent = Progress(cancelled=lambda: stop.is_set() or progress.cancelled())
        with ThreadPoolExecutor(self.jobs) as pool:
            todo, waiting = iter(enumerate(items)), dict[Future[Result], int]()
            try:
                while True:
                    for number, item in islice(todo, 2 * self.jobs - len(waiting)):
                        waiting[pool.submit(function, item, silent)] = number
                    if not waiting:
                        return
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(future), future.result()
            finally:
                stop.set()
                for future in waiting:
                    future.cancel()


@dataclass(frozen=True)
class RayCluster:
    """Nodes of a Ray cluster that share folders. Needs the extra ``ray``.

    Args:
        address: ``local`` starts Ray on this machine, ``auto`` finds the cluster of this machine; or ``HOST:PORT``.
        cpus: Cores of one item; Ray sets its OMP_NUM_THREADS to it.
        gpus: GPUs of one item.
    """

    address: str = "local"
    cpus: float = 1
    gpus: float = 0

    @contextmanager
    def ready(self, *folders: Path, results: Path | None = None) -> Iterator[None]:
        """Connect to the cluster for a ``with`` block, before anything is written, and check its nodes.

        Args:
            folders: Folders or files that every node must see.
            results: Folder that every node writes to; a file in it shows whether a node has another one of that name.

        Raises:
            InputError: Ray is not installed, there is no such cluster, or a node lacks a folder or this version of the
                package.
        """
        with self._connected() as ray:
            with NamedTemporaryFile(prefix=".", suffix=_MARK, dir=results) if results else nullcontext() as mark:
                self._check_nodes(ray, [*folders, *([Path(mark.name)] if mark else [])])
            yield

    def run(
        self, function: Callable[[Item, Progress], Result], items: Sequence[Item], progress: Progress | None = None
    ) -> Generator[tuple[int, Result | Lost], None, None]:
        """Run a function on every item, like :meth:`Threads.run`. Function, items and results must be small.

        If a node is lost, Ray runs its items again on another node. An item that ends its worker several times is
        :class:`Lost`, and so is one whose function raises an exception.

        Raises:
            InputError: There is no cluster, or no node is left.
        """
        progress = progress or Progress()
        with self._connected() as ray:
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(lambda function, item: function(item, Progress()))
            todo, waiting = iter(enumerate(items)), dict[Any, int]()
            try:
                while True:
                    for number, item in islice(todo, IN_FLIGHT - len(waiting)):
                        waiting[task.remote(function, item)] = number
                    if not waiting:
                        return
                    if progress.cancelled():
                        progress.update(0, 1)
                    ready, _ = ray.wait(list(waiting), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
                    if not ready:
                        self._nodes(ray)
                    for reference in ready:
                        yield waiting.pop(reference), _result(ray, reference)
            finally:
                for reference in waiting:  # none, unless the work was interrupted
                    ray.cancel(reference, force=True)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Ray, connected; a connection that was there before is used and left as it is."""
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise InputError("Ray is not installed", 'pip install "ray>=2.40"', setting="ray") from None
        if ray.is_initialized():
            yield ray
            return
        settings = {"include_dashboard": False} if self.address == "local" else {}
        try:
            self._check_address()
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **settings)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{self.address}: no such cluster ({reason})", "check the address, or try local", setting="ray"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()

    def _check_address(self) -> None:
        """Look whether anything answers: Ray itself waits for a wrong address for ten minutes."""
        if self.address in ("local", "auto"):
            return
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("it is not HOST:PORT")
        socket.create_connection((host, int(port)), timeout=5).close()

    def _nodes(self, ray: Any) -> list[dict[str, Any]]:
        """List the nodes that can take an item."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        nodes = [
            node
            for node in ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0) >= number for name, number in wanted.items())
        ]
        if not nodes:
            problem = f"{self.address}: no node has {self.cpus:g} cores and {self.gpus:g} GPUs"
            raise InputError(problem, "start nodes, or ask for less", setting=("cpus", "gpus"))
        return nodes

    def _check_nodes(self, ray: Any, folders: Sequence[Path]) -> None:
        """Check that every node can do the work."""
        asked = []
        for node in self._nodes(ray):
            there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            check = ray.remote(num_cpus=0, scheduling_strategy=there)(_node_problem)
            asked.append((node["NodeManagerAddress"], check.remote(__version__, [str(folder) for folder in folders])))
        for address, reference in asked:
            answer = _result(ray, reference)
            if isinstance(answer, Lost):
                problem = f"node {address}: cannot run medfewshot ({answer.reason})"
                raise InputError(problem, f"install medfewshot {__version__} there", setting="ray")
            if answer:
                raise InputError(f"node {address}: {answer[0]}", answer[1], setting="ray")


Workers = Threads | RayCluster


def make_workers(settings: WorkerSettings) -> Workers:
    """Return the workers that the settings ask for.

    Raises:
        InputError: They ask for threads and for a cluster, or for cores of no cluster.
    """
    if settings.ray is None:
        if (settings.cpus, settings.gpus) != (1, 0):
            raise InputError("only a Ray cluster takes cores and GPUs", "use jobs", setting=("cpus", "gpus", "jobs"))
        return Threads(settings.jobs)
    if settings.jobs > 1:
        raise InputError("jobs on this machine and a cluster are given", "give one of them", setting=("jobs", "ray"))
    return RayCluster(settings.ray, settings.cpus, settings.gpus)


def _node_problem(version: str, folders: Sequence[str]) -> tuple[str, str] | None:
    """Return what keeps this node from working, and what to do; None if nothing."""
    host = socket.gethostname()
    if version != __version__:
        return f"has medfewshot {__version__}, this machine has {version} ({host})", "install one version"
    missing = next((folder for folder in folders if not os.path.exists(folder)), None)
    if missing is not None:
        what = f"{os.path.dirname(missing)} is another folder" if missing.endswith(_MARK) else f"{missing} is not there"
        return f"{what} ({host})", "use a folder that all nodes share"
    return None


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Lost(str(error).strip().splitlines()[-1])
