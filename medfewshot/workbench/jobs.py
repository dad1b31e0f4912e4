"""Jobs of a project, one at a time in a thread: learn from the examples, and write drafts of the other scans."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from medfewshot.errors import InputError, one_line
from medfewshot.types import Cancelled, Event, Progress
from medfewshot.workbench.learn import Learning
from medfewshot.workbench.project import Project


@dataclass
class _Job:
    number: int
    case: str
    started: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    status: str = "running"
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    stage_started: float = field(default_factory=time.monotonic)
    message: str = ""
    error: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the stage ends, from its speed so far; None if that is unknown."""
        spent = time.monotonic() - self.stage_started
        if self.status != "running" or not self.total or not self.done:
            return None
        return round(spent * (self.total - self.done) / self.done, 1)


class Jobs:
    """The jobs of one project. Safe to call from several threads.

    Args:
        project: The project.
        learn: Makes what a job does: see :class:`~medfewshot.workbench.learn.Learning`.
    """

    def __init__(self, project: Project, *, learn: Callable[..., Any] = Learning) -> None:
        self._project, self._learn = project, learn
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._thread: threading.Thread | None = None

    def start_learn(self, *, open_case: str | None = None) -> str:
        """Start to learn in the background.

        Args:
            open_case: The case that the user looks at; its drafts come first.

        Returns:
            The id of the job.

        Raises:
            InputError: Another job is running, the case is unknown, or there is no example.
        """
        if open_case is not None:
            self._project.case(open_case)
        if not self._project.examples():
            raise InputError("no structure is drawn yet", "draw one in a scan, then learn")
        with self._lock:
            if self._job is not None and self._job.status == "running":
                raise InputError("a job is running", "wait for it or cancel it")
            job = _Job(1 if self._job is None else self._job.number + 1, open_case or "")
            self._job = job
            self._thread = threading.Thread(target=self._run, args=(job, open_case), name="medfewshot-job", daemon=True)
            self._thread.start()
        return str(job.number)

    def cancel(self) -> None:
        """Ask the running job to stop. What it wrote stays."""
        if self._job is not None:
            self._job.cancel.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until no job is running."""
        if self._thread is not None:
            self._thread.join(seconds)

    def state(self) -> dict[str, Any]:
        """Describe the newest job.

        Returns:
            ``id``, ``running``, ``status`` (idle, running, done, failed or cancelled), ``stage``, ``case``, ``done`` of
            ``total`` in the stage, ``seconds`` since its start, ``seconds_left`` of the stage, ``message``, ``error``
            (why it failed) and ``warnings``.
        """
        with self._lock:
            job = self._job or _Job(0, "", status="idle")
            return {
                "id": str(job.number), "running": job.status == "running", "status": job.status, "stage": job.stage,
                "case": job.case, "done": job.done, "total": job.total,
                "seconds": round(time.monotonic() - job.started, 1), "seconds_left": job.seconds_left,
                "message": job.message, "error": job.error, "warnings": list(job.warnings),
            }  # fmt: skip

    def _run(self, job: _Job, open_case: str | None) -> None:
        def report(event: Event) -> None:
            with self._lock:
                if event.stage != job.stage:
                    job.stage, job.stage_started = event.stage, time.monotonic()
                job.done, job.total, job.message = event.done, event.total, event.text

        progress = Progress(report=report, cancelled=job.cancel.is_set)
        try:
            self._learn(self._project, open_case=open_case, progress=progress, warn=job.warnings.append).run()
            status, error = "done", ""
        except Cancelled:
            status, error = "cancelled", ""
        except Exception as problem:  # a job must never take the server down; the terminal shows the details
            if not isinstance(problem, (InputError, OSError)):
                traceback.print_exception(problem)
            status, error = "failed", one_line(problem)
        with self._lock:
            job.status, job.error = status, error
