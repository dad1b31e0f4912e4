"""Logs of a training run: CSV files, TensorBoard if it is installed, and MLflow on request."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from medfewshot.errors import InputError
from medfewshot.io import write_text

TRAINING, VALIDATION, BOARD = "training.csv", "validation.csv", "tensorboard"
MLFLOW = "mlflow.json"
"""Names the MLflow run of a folder."""
EXPERIMENT = "medfewshot"
DATABASE = "mlflow.db"
LONGEST_PARAM = 500
"""Characters of a parameter; older MLflow servers refuse more."""
PARAMS_AT_ONCE = 100


class Logs:
    """Appends rows to the logs of a run; rows after ``step`` are dropped, because a resumed run writes them again.

    Args:
        folder: Folder of the run.
        step: The step that the run continues from.
        mlflow: A tracking URI or a folder that also receives rows and settings.
        settings: Plain data, for MLflow.
        warn: Receives one line for each kind of trouble with MLflow.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int = 0,
        mlflow: str | None = None,
        settings: Mapping[str, Any] | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (TRAINING, VALIDATION):
            _drop_rows_after(folder / name, step)
        self._board = _tensorboard(folder / BOARD, step)
        self._mlflow = None if mlflow is None else MlflowRun(mlflow, folder, settings=settings or {}, warn=warn)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row, which begins with ``step``, to the file ``name``; its rows have the same columns."""
        path, line = self.folder / name, ",".join(map(str, row.values())) + "\n"
        if path.is_file():
            with path.open("a", newline="", encoding="utf-8") as file:
                file.write(line)  # a single system call, so that a kill leaves complete rows
        else:
            write_text(path, ",".join(row) + "\n" + line)
        kind = Path(name).stem
        values = {f"{kind}/{key}": float(value) for key, value in row.items() if key != "step"}
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, row["step"])
        if self._mlflow is not None:
            self._mlflow.write(values, int(row["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")

    def close(self, status: str = "FINISHED") -> None:
        """End the TensorBoard and MLflow logs; ``status`` is MLflow's name for how the run ended."""
        if self._board is not None:
            self._board.close()
        if self._mlflow is not None:
            self._mlflow.close(status)


class MlflowRun:
    """The MLflow run of a folder; a new one unless the folder names one.

    A resumed run computes some rows again that an earlier process sent; these are not sent twice. If the server does
    not answer, rows wait for the next call and training continues, because the CSV files contain everything.

    Args:
        where: A tracking URI or a folder.
        folder: Folder of the training run.
        settings: Logged as parameters.
        warn: Receives one line for each kind of trouble.

    Raises:
        InputError: MLflow is not installed or does not answer at the start.
    """

    def __init__(self, where: str, folder: Path, *, settings: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        check_mlflow(where)
        self._warn, self._warned = warn, False
        record = folder / MLFLOW
        self._waiting: list[Any] = []
        self._earlier: dict[str, int] = {}
        """Last step that an earlier process sent, for every value."""
        try:
            self._client, experiment = _connect(where)
            client = self._client
            if record.is_file():
                self.run_id = str(json.loads(record.read_text(encoding="utf-8"))["run_id"])
                client.update_run(self.run_id, status="RUNNING")
                self._earlier = _last_steps(client, self.run_id)
            else:
                self.run_id = client.create_run(experiment, run_name=folder.absolute().name).info.run_id
                _log_params(client, self.run_id, settings)
                write_text(record, json.dumps({"run_id": self.run_id}) + "\n")
        except Exception as error:  # MLflow raises many kinds of errors
            way_out = f", or remove {record} for a new run" if record.is_file() else ""
            raise InputError(
                f"MLflow at {where} cannot be used ({_first_line(error)})", f"check it{way_out}", setting="mlflow"
            ) from error

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Send values of a step, except those that an earlier process sent."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [
            Metric(key, value, now, step) for key, value in values.items() if step > self._earlier.get(key, -1)
        ]
        self._send()

    def close(self, status: str) -> None:
        """Send what is waiting and end the run with ``status``; warn if the server lacks values."""
        self._send()
        if self._waiting:
            self._warn(f"MLflow lacks {len(self._waiting)} values of this run; the CSV files contain them")
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as error:
            self._warn_once(error)

    def _send(self) -> None:
        try:
            if self._waiting:
                self._client.log_batch(self.run_id, metrics=self._waiting)
            self._waiting = []
        except Exception as error:
            self._warn_once(error)

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warn(f"MLflow did not always answer ({_first_line(error)}); rows are sent with later ones")
        self._warned = True


def check_mlflow(where: str) -> None:
    """Check that MLflow is installed, before any work is done. Its usage statistics, on by default, are off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise InputError(f"{where}: MLflow is not installed", "pip install mlflow", setting="mlflow") from None


def _connect(where: str) -> tuple[Any, str]:
    """Connect to a tracking URI, or to the database file (for ``mlflow ui``) in a folder.

    Returns:
        The client, and the id of the package's experiment.
    """
    from mlflow import MlflowClient

    place = None
    if "://" not in where and where != "databricks":
        folder = Path(where).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        where, place = f"sqlite:///{(folder / DATABASE).as_posix()}", (folder / "artifacts").as_uri()
    client = MlflowClient(tracking_uri=where)
    if (known := client.get_experiment_by_name(EXPERIMENT)) is not None:
        return client, str(known.experiment_id)
    return client, str(client.create_experiment(EXPERIMENT, artifact_location=place))


def _last_steps(client: Any, run_id: str) -> dict[str, int]:
    keys = client.get_run(run_id).data.metrics
    return {key: max(metric.step for metric in client.get_metric_history(run_id, key)) for key in keys}


def _log_params(client: Any, run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(re.sub(r"[^\w./ -]", "_", k, flags=re.ASCII), v[:LONGEST_PARAM]) for k, v in _flat(settings)]
    for first in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[first : first + PARAMS_AT_ONCE])


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted names with their values as text."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _drop_rows_after(path: Path, step: int) -> None:
    lines = _whole_lines(path)
    if lines:
        write_text(path, "".join([lines[0], *(row for row in lines[1:] if int(row.split(",")[0]) <= step)]))
    else:
        path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[str]:
    """Read the complete lines of a log, header first; a kill may cut off the last one.

    Cells are names and numbers, never quoted.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n") and line.count(",") == lines[0].count(",")]


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
