"""``run.json`` and ``statistics.csv``: what is known of a run, written after every volume, read to resume."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medfewshot.bundle import VolumeSegmenter, strict_json
from medfewshot.devices import describe_device
from medfewshot.errors import InputError
from medfewshot.inference import InferenceOptions
from medfewshot.io import write_csv, write_text
from medfewshot.planning import plan_to_dict
from medfewshot.report import prepared_path

RUN_RECORD = "run.json"
STATISTICS = "statistics.csv"
REPORT = "report.html"
FORMAT_VERSION = 1


def flag_warning(flag: str) -> str:
    """A flag of :mod:`medfewshot.quality` among a volume's warnings."""
    return f"look closely: {flag}"


@dataclass(frozen=True)
class CohortOptions:
    """What is written for every volume besides its labels."""

    inference: InferenceOptions = field(default_factory=InferenceOptions)
    previews: bool = True
    dicom_seg: bool = False
    """Besides, for a DICOM series, a DICOM segmentation object (which names the patient, as the series does)."""
    resume: bool = False
    overwrite: bool = False
    report: bool = True
    """Prepare what the report's viewer shows, while the scan is in memory."""


@dataclass(frozen=True)
class VolumeResult:
    """One entry of ``outputs`` in the run's record."""

    case: str
    inputs: tuple[str, ...]
    status: str
    """``done`` or ``failed``."""
    stamp: str = ""
    """Of the input files, by which it shows that one was replaced; empty in records of the first release."""
    labels: str | None = None
    files: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    predicted_dice: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    statistics: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


class RunRecord:
    """The record of one run, on disk from its first moment; ``add`` writes it anew with one more result.

    Writing takes longer with every volume, so where it would take more than a tenth of the time it is put off until a
    later volume, or ``finish``, or the end of a ``with`` block: what a sudden death then loses is done again.
    """

    def __init__(
        self, folder: Path, segmenter: VolumeSegmenter, options: CohortOptions, command: Sequence[str] | None
    ) -> None:
        self.folder, self.segmenter, self.options = folder, segmenter, options
        self.command = list(command) if command is not None else None
        self.started = _now()
        self.fingerprint = _fingerprint(segmenter, options)
        self.results: list[VolumeResult] = []
        self._earlier: dict[tuple[str, ...], VolumeResult] = {}
        self._due = 0.0
        self._unwritten = False

    def start(self, earlier: Mapping[tuple[str, ...], VolumeResult]) -> None:
        """Write the record with the results of an earlier run, each of which counts until it is made again."""
        self._earlier = dict(earlier)
        self._write(None)

    def add(self, result: VolumeResult) -> None:
        self.results.append(result)
        self._earlier.pop(tuple(result.inputs), None)
        self._unwritten = True
        if time.monotonic() >= self._due:
            self._write(None)

    def finish(self) -> None:
        """Results of scans that were not asked for this time stay in the record, as their files do in the folder."""
        self._write(_now())

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unwritten:
            self._write(None)

    def earlier_results(self) -> dict[tuple[str, ...], VolumeResult]:
        """Results of a run that was stopped, by input paths: those that are still there.

        Raises InputError where they came from another segmenter or other options.
        """
        path = self.folder / RUN_RECORD
        if not path.is_file():
            return {}
        try:
            content = read_record(self.folder)
            same = content["fingerprint"] == self.fingerprint
            results = [VolumeResult(**entry) for entry in content["outputs"]]
        except (KeyError, TypeError):
            raise InputError(f"{path}: is damaged; use --overwrite to start again") from None
        if not same:
            raise InputError(
                f"{self.folder}: holds results of another segmenter or other options; "
                "choose another folder, or --overwrite to replace them"
            )
        done = [replace(r, inputs=tuple(r.inputs)) for r in results if r.status == "done" and self._complete(r)]
        return {result.inputs: result for result in done}

    def _complete(self, result: VolumeResult) -> bool:
        """Whether all of its files are there, and all that this run is to write."""
        there = result.labels and all((self.folder / name).is_file() for name in (result.labels, *result.files))
        wanted = [f"previews/{result.case}.png"] if self.options.previews else []
        if self.options.dicom_seg and Path(result.inputs[0]).is_dir():
            wanted.append(f"dicom_seg/{result.case}.dcm")
        return bool(there) and set(wanted) <= set(result.files)

    def _write(self, finished: str | None) -> None:
        begun = time.monotonic()
        write_text(self.folder / RUN_RECORD, strict_json(self._content(finished)))
        rows = [{"case": result.case, **row} for result in self._known() for row in result.statistics]
        if rows:
            write_csv(self.folder / STATISTICS, rows)
        self._unwritten = False
        self._due = time.monotonic() + 10 * (time.monotonic() - begun)

    def _known(self) -> list[VolumeResult]:
        return [*self.results, *self._earlier.values()]

    def _content(self, finished: str | None) -> dict[str, Any]:
        adapted = dict(self.segmenter.record)
        spent: Counter[str] = Counter()
        for result in self.results:
            spent.update(result.seconds)
        warnings = [f"{result.case}: {text}" for result in self.results for text in result.warnings]
        return {
            "format_version": FORMAT_VERSION,
            "command": self.command,
            "started": self.started,
            "finished": finished,
            "device": describe_device(self.segmenter.device),
            "seed": adapted.get("seed"),
            "supports": adapted.get("supports", []),
            "plan": plan_to_dict(self.segmenter.plan),
            "adaptation": {key: adapted[key] for key in ("settings", "device", "learner") if key in adapted},
            "options": asdict(self.options.inference),
            "seconds": {**adapted.get("seconds", {}), **{name: round(time, 3) for name, time in spent.items()}},
            "outputs": [asdict(result) for result in self._known()],
            "warnings": [*adapted.get("warnings", ()), *warnings],
            "versions": versions(),
            "fingerprint": self.fingerprint,
        }


def read_record(folder: Path) -> dict[str, Any]:
    """The record in ``folder``. Raises InputError where it is damaged."""
    path = folder / RUN_RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged; use --overwrite to start again")
    return content


def remove_results(folder: Path) -> None:
    """Delete the files of an earlier run, which its record names, and no others."""
    if not (folder / RUN_RECORD).is_file():
        return
    try:
        entries = [VolumeResult(**entry) for entry in read_record(folder)["outputs"]]
    except (InputError, KeyError, TypeError):
        entries = []
    for entry in entries:
        for name in (entry.labels, *entry.files, prepared_path(Path(), entry.case)):
            path = folder / name if name else folder
            if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                path.unlink()
    for name in (STATISTICS, REPORT):
        (folder / name).unlink(missing_ok=True)
    (folder / RUN_RECORD).unlink()


def versions() -> dict[str, str]:
    """What the result depends on besides the data."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("medfewshot", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fingerprint(segmenter: VolumeSegmenter, options: CohortOptions) -> str:
    """Whether earlier results came from this very segmenter and these options."""
    digest = hashlib.sha256(strict_json([plan_to_dict(segmenter.plan), asdict(options.inference)]).encode())
    for name, tensor in sorted(segmenter.segmenter.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
