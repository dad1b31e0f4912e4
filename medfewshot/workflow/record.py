"""``run.json`` and ``statistics.csv``: the record of a run, written after every volume and read to resume."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Any

from medfewshot.bundle import VolumeSegmenter
from medfewshot.bundle.monai_files import version_of
from medfewshot.data_dictionary import describe_columns, write_table
from medfewshot.devices import describe_device
from medfewshot.errors import InputError
from medfewshot.evaluation.files import PLOTS
from medfewshot.io import EXPORTS, atomic_path, strict_json
from medfewshot.planning import plan_to_dict
from medfewshot.report import prepared_path
from medfewshot.report.page.split import remove_parts
from medfewshot.settings import InferenceSettings, SegmentSettings

RUN_RECORD = "run.json"
STATISTICS = "statistics.csv"
EJECTION = "ejection.csv"
REPORT = "report.html"
SCORES = ("summary.json", "scores.csv", "summary.csv", "films.csv", *PLOTS)
"""Files of an evaluation. It always writes the first three."""
FORMAT_VERSION = 1
_NO_OUTPUTS = '\n  "outputs": []'
"""Where the entries of ``outputs`` go in the text of a record: only its own keys are two spaces from the left."""
_ADAPTATION = ("settings", "device", "learner", "weights_have_seen", "earlier")


def flag_warning(flag: str) -> str:
    """Return how a flag of :mod:`medfewshot.quality` reads among a volume's warnings."""
    return f"look closely: {flag}"


@dataclass(frozen=True)
class CaseResult:
    """One entry of ``outputs`` in the run's record."""

    case: str
    inputs: tuple[str, ...]
    status: str
    """``done`` or ``failed``."""
    stamp: str = ""
    """Of the input files: shows that one was replaced since. Empty in records of the first release."""
    labels: str | None = None
    files: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    predicted_dice: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    statistics: tuple[dict[str, Any], ...] = ()
    frame: int | None = None
    """Of a film: the frame that ``statistics`` and the picture are about."""
    ejections: tuple[dict[str, Any], ...] = ()
    """Of a film of the heart: one row per cavity."""
    warnings: tuple[str, ...] = ()
    learned: bool = False
    """Whether it is one of the labelled scans, or a copy of one."""
    error: str | None = None
    traceback: str | None = None
    """Of a failure that is not the input's fault."""


class RunRecord:
    """The record of one run, on disk from its first moment; ``add`` writes it again with one more result.

    Each result becomes text once; writing then copies text, which takes longer with every volume. If it would take more
    than a tenth of the time, it waits for a later volume or the end of the ``with`` block, which also notes the time.
    A process that is killed meanwhile repeats what was not yet recorded.
    """

    def __init__(
        self,
        folder: Path,
        segmenter: VolumeSegmenter,
        settings: SegmentSettings,
        command: Sequence[str] | None,
        *,
        warnings: Sequence[str] = (),
        reviews: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.segmenter, self.settings, self.about_input = folder, segmenter, settings, tuple(warnings)
        self.command = list(command) if command is not None else None
        self.started, self.device = _now(), describe_device(segmenter.device)
        self.fingerprint = fingerprint_of(segmenter, settings)
        self.results: list[CaseResult] = []
        self.reasons: Mapping[tuple[str, int], str] = {}
        self._reviews = reviews or {}
        self._earlier: dict[tuple[str, ...], CaseResult] = {}
        self._entries: dict[str, str] = {}
        self._due = 0.0
        self._unwritten = False

    def start(self, earlier: Mapping[tuple[str, ...], CaseResult]) -> None:
        """Write the record with the results of an earlier run; each counts until this run replaces it."""
        self._earlier = dict(earlier)
        self._entries = {result.case: _entry(result) for result in earlier.values()}
        self._write(None)

    def add(self, result: CaseResult) -> None:
        """Add the result of one scan; write the file if the last writing is long enough ago."""
        self.results.append(result)
        self._earlier.pop(result.inputs, None)
        self._entries[result.case] = _entry(result)
        self._unwritten = True
        if time.monotonic() >= self._due:
            self._write(None)

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Results of scans that this run did not ask for stay in the record, as their files stay in the folder."""
        if kind is None or self._unwritten:
            self._write(_now() if kind is None else None)

    def earlier_results(self) -> dict[tuple[str, ...], CaseResult]:
        """Finished results of a run that was stopped, by input paths.

        Raises:
            InputError: They came from another segmenter or other settings, or the record is damaged.
        """
        if not (self.folder / RUN_RECORD).is_file():
            return {}
        content, results = read_run(self.folder)
        if content.get("fingerprint") != self.fingerprint:
            raise InputError(
                f"{self.folder}: contains results of another model or other settings",
                "give another folder, or replace them",
                setting="overwrite",
            )
        return {result.inputs: result for result in results if result.status == "done" and self._complete(result)}

    def _complete(self, result: CaseResult) -> bool:
        """Return whether all of its files exist, and all that this run is to write."""
        there = result.labels and all((self.folder / name).is_file() for name in (result.labels, *result.files))
        wanted = [f"previews/{result.case}.png"] if self.settings.previews else []
        for export in (EXPORTS[name] for name in self.settings.exports if result.frame is None):
            if Path(result.inputs[0]).is_dir() or not export.needs_series:
                wanted.append(export.file_of(result.case))
        cavities = {name.casefold() for name in self.settings.cavities} if result.frame is not None else set()
        measured = {str(row["name"]).casefold() for row in result.ejections}
        return bool(there) and set(wanted) <= set(result.files) and cavities <= measured

    def _write(self, finished: str | None) -> None:
        begun = time.monotonic()
        head, _, tail = strict_json(self._content(finished)).partition(_NO_OUTPUTS)
        with atomic_path(self.folder / RUN_RECORD) as path, open(path, "w", encoding="utf-8", newline="") as file:
            file.write(head + _NO_OUTPUTS[:-1])
            for number, result in enumerate(self._known()):
                file.write((",\n" if number else "\n") + self._entries[result.case])
            file.write(("\n  ]" if self._entries else "]") + tail)
        rows = [self._row(result, row) for result in self._known() for row in result.statistics]
        beats = [{"case": result.case, **row} for result in self._known() for row in result.ejections]
        for name, table in ((STATISTICS, rows), (EJECTION, beats)):
            if table:
                write_table(self.folder / name, table)
        film = next((result for result in self._known() if result.frame is not None and result.statistics), None)
        if film is not None:
            describe_columns(self.folder, "films/*.csv", ("frame", "time_s", *film.statistics[0]))
        self._unwritten = False
        self._due = time.monotonic() + 10 * (time.monotonic() - begun)

    def _row(self, result: CaseResult, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of ``statistics.csv``; ``reasons`` to review come from the comparison of all scans."""
        about: dict[str, Any] = {"case": result.case}
        about |= {"review_status": self._reviews.get(result.case)} if self._reviews else {}
        about |= {} if result.frame is None else {"frame": result.frame}
        return about | {**row, "review": self.reasons.get((result.case, row["label"]), row.get("review", ""))}

    def warnings(self) -> list[str]:
        """List the warnings about skipped files, the adaptation and every volume of this run."""
        of_cases = [f"{result.case}: {text}" for result in self.results for text in result.warnings]
        return [*self.about_input, *self.segmenter.record.get("warnings", ()), *of_cases]

    def _known(self) -> list[CaseResult]:
        return [*self.results, *self._earlier.values()]

    def _content(self, finished: str | None) -> dict[str, Any]:
        adapted = dict(self.segmenter.record)
        spent: Counter[str] = Counter()
        for result in self.results:
            spent.update(result.seconds)
        return {
            "format_version": FORMAT_VERSION,
            "command": self.command,
            "started": self.started,
            "finished": finished,
            "device": self.device,
            "seed": adapted.get("seed"),
            "supports": adapted.get("supports", []),
            "plan": plan_to_dict(self.segmenter.plan),
            "adaptation": {key: adapted[key] for key in _ADAPTATION if key in adapted},
            "options": _inference(self.settings),
            "seconds": {**adapted.get("seconds", {}), **{name: round(time, 3) for name, time in spent.items()}},
            "outputs": [],
            "warnings": self.warnings(),
            "versions": versions(),
            "fingerprint": self.fingerprint,
        }


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record in ``folder``.

    Raises:
        InputError: There is none, it is damaged, or a newer version wrote it.
    """
    path = folder / RUN_RECORD
    if not path.exists():
        raise InputError(f"{folder}: contains no results (no run.json)", "give a folder that medfewshot segment wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise damaged(folder)
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"{path}: was written by a newer medfewshot (format {version}, known is {FORMAT_VERSION})",
            "update medfewshot",
        )
    return content


def read_run(folder: Path) -> tuple[dict[str, Any], list[CaseResult]]:
    """Read the record in ``folder``, and its ``outputs`` as objects.

    Raises:
        InputError: There is none, or it is damaged.
    """
    content = read_record(folder)
    try:
        return content, [CaseResult(**{**entry, "inputs": tuple(entry["inputs"])}) for entry in content["outputs"]]
    except (KeyError, TypeError):
        raise damaged(folder) from None


def remove_results(folder: Path) -> None:
    """Delete the files of an earlier run, which its record names, its scores, and no others."""
    if not (folder / RUN_RECORD).is_file():
        return
    try:
        entries = read_run(folder)[1]
    except InputError:
        entries = []
    for entry in entries:
        for name in (entry.labels, *entry.files, prepared_path(Path(), entry.case)):
            path = folder / name if name else folder
            if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                path.unlink()
    remove_scores(folder)
    for name in (STATISTICS, EJECTION, RUN_RECORD):
        (folder / name).unlink(missing_ok=True)


def remove_scores(folder: Path) -> bool:
    """Delete the page of results and their scores; return whether there were scores."""
    scores = SCORES if all((folder / name).is_file() for name in SCORES[:3]) else ()
    for name in (REPORT, *scores):
        (folder / name).unlink(missing_ok=True)
    remove_parts(folder / REPORT)
    return bool(scores)


def _entry(result: CaseResult) -> str:
    """Return an entry of ``outputs``, as it stands in the record."""
    return indent(strict_json(asdict(result)).rstrip("\n"), "    ")


def damaged(folder: Path, reason: object = "") -> InputError:
    """Make the error of a record that cannot be understood."""
    detail = f" ({reason})" if str(reason) else ""
    return InputError(f"{folder / RUN_RECORD}: is damaged{detail}", "segment again and replace it", setting="overwrite")


def versions() -> dict[str, str]:
    """Versions of what the result depends on besides the data."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    packages = ("medfewshot", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK")
    return found | {package: version_of(package) for package in packages}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _inference(settings: SegmentSettings) -> dict[str, Any]:
    """Return the settings that decide the values of a result."""
    return settings.model_dump(include=set(InferenceSettings.model_fields))


def fingerprint_of(segmenter: VolumeSegmenter, settings: SegmentSettings) -> str:
    """Return a digest that is equal for results of the same segmenter and settings."""
    digest = hashlib.sha256(strict_json([plan_to_dict(segmenter.plan), _inference(settings)]).encode())
    for name, tensor in sorted(segmenter.segmenter.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
