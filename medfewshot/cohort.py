"""Segment many volumes into a folder: outputs, pictures, statistics and a record of how they came about.

Every file is written whole or not at all, each volume's record as soon as it is done, so that a run can be stopped at
any moment and resumed. One bad volume does not stop the rest.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medfewshot.bundle import VolumeSegmenter
from medfewshot.inference import InferenceOptions, Segmentation
from medfewshot.io import case_id, find_images, output_suffix, read_image, write_array, write_label, write_text
from medfewshot.planning import plan_to_dict
from medfewshot.report import save_preview, structure_statistics, write_csv
from medfewshot.types import InputError, Progress, Volume

RUN_RECORD = "run.json"
STATISTICS = "statistics.csv"


@dataclass(frozen=True)
class CohortOptions:
    """What is written for every volume besides its labels."""

    inference: InferenceOptions = field(default_factory=InferenceOptions)
    previews: bool = True
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class VolumeResult:
    """One line of the run's record."""

    case: str
    input: str
    status: str
    """``done``, ``skipped`` (resumed) or ``failed``."""
    output: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    statistics: tuple[dict[str, Any], ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class CohortResult:
    results: tuple[VolumeResult, ...]
    folder: Path

    @property
    def failed(self) -> tuple[VolumeResult, ...]:
        return tuple(result for result in self.results if result.status == "failed")


def prepare_folder(folder: Path, options: CohortOptions) -> None:
    """Raises InputError when ``folder`` holds results that neither --resume nor --overwrite speaks for."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder with -o")
    if (folder / RUN_RECORD).exists() and not (options.resume or options.overwrite):
        raise InputError(f"{folder}: already holds results; add --resume to go on or --overwrite to replace them")


def output_names(paths: Sequence[Path]) -> list[str]:
    """One result name per input. Raises InputError where two inputs would be written to the same file."""
    names = [case_id(path) for path in paths]
    for name in names:
        same = [str(path) for path, other in zip(paths, names, strict=True) if other == name]
        if len(same) > 1:
            raise InputError(f"{same[0]} and {same[1]}: both would be written as {name}; rename one of them")
    return names


def segment_cohort(
    inputs: Sequence[Path],
    segmenter: VolumeSegmenter,
    folder: Path,
    options: CohortOptions | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> CohortResult:
    """Segment every volume of ``inputs`` (files, DICOM folders, folders of volumes) into ``folder``.

    ``about`` goes into ``run.json`` as it is (command, seed, device, supports, adaptation).
    """
    options, progress = options or CohortOptions(), progress or Progress()
    prepare_folder(folder, options)
    paths = [path for given in inputs for path in find_images(given)]
    names = output_names(paths)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"medfewshot": about or {}, "plan": plan_to_dict(segmenter.plan)}
    fingerprint = _fingerprint(segmenter, options)
    done = _earlier_results(folder, fingerprint) if options.resume else {}
    results: list[VolumeResult] = []
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        progress.update(number, len(paths), name)
        earlier = done.get(str(path.resolve()))
        if earlier is not None:
            results.append(earlier)
        else:
            results.append(_segment_one(path, name, segmenter, folder, options))
        _write_record(folder, record, fingerprint, results)
    progress.update(len(paths), len(paths), "done")
    _write_statistics(folder, results)
    return CohortResult(tuple(results), folder)


def _segment_one(
    path: Path, name: str, segmenter: VolumeSegmenter, folder: Path, options: CohortOptions
) -> VolumeResult:
    begun = time.perf_counter()
    try:
        volume = read_image(path)
        read = time.perf_counter() - begun
        segmentation = segmenter.segment(volume, options.inference)
        return _write_result(path, name, volume, segmentation, segmenter, folder, options, read)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        # Whatever is wrong with one scan, the others still get their turn; the record and exit code say so.
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = text if str(path) in text else f"{path}: {text}"
        return VolumeResult(name, str(path.resolve()), "failed", error=text)


def _write_result(
    path: Path,
    name: str,
    volume: Volume,
    segmentation: Segmentation,
    segmenter: VolumeSegmenter,
    folder: Path,
    options: CohortOptions,
    read_seconds: float,
) -> VolumeResult:
    started = time.perf_counter()
    names = dict(segmenter.plan.labels)
    output = folder / f"{name}{output_suffix(volume)}"
    files = []
    if segmentation.probabilities is not None:
        files.append(f"probabilities/{name}{_map_suffix(volume)}")
        write_array(folder / files[-1], segmentation.probabilities, volume)
    if segmentation.uncertainty is not None:
        files.append(f"uncertainty/{name}{_map_suffix(volume)}")
        write_array(folder / files[-1], segmentation.uncertainty, volume)
    if options.previews:
        files.append(f"previews/{name}.png")
        save_preview(
            folder / files[-1], volume.data[0], segmentation.labels, volume.affine, names,
            uncertainty=segmentation.uncertainty, title=name,
        )  # fmt: skip
    statistics = structure_statistics(volume.data, segmentation.labels, volume.affine, names)
    # The labels last: where they are, everything else of this volume is too.
    write_label(output, segmentation.labels, volume)
    seconds = {"read": round(read_seconds, 3), **segmentation.seconds, "write": round(time.perf_counter() - started, 3)}
    confidence = {names[value]: share for value, share in segmentation.confidence.items()}
    return VolumeResult(
        name, str(path.resolve()), "done", output.name, seconds, confidence,
        (*volume.warnings, *segmentation.warnings), statistics=tuple(statistics), files=tuple(files),
    )  # fmt: skip


def _map_suffix(volume: Volume) -> str:
    """Maps of real numbers need a format that holds them; pictures do not."""
    suffix = output_suffix(volume)
    return suffix if suffix in (".nii", ".nii.gz", ".nrrd", ".mha") else ".tif" if suffix == ".tif" else ".nii.gz"


def _fingerprint(segmenter: VolumeSegmenter, options: CohortOptions) -> str:
    """Whether earlier results came from this very segmenter and these options."""
    import hashlib

    digest = hashlib.sha256(json.dumps(plan_to_dict(segmenter.plan), sort_keys=True).encode())
    digest.update(json.dumps(asdict(options.inference), sort_keys=True).encode())
    inner: Any = segmenter.segmenter
    if hasattr(inner, "tensors"):
        for name, tensor in sorted(inner.tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _earlier_results(folder: Path, fingerprint: str) -> dict[str, VolumeResult]:
    """Results of a run that was stopped, by input path; only those made by the same segmenter and still there."""
    path = folder / RUN_RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["fingerprint"] != fingerprint:
            raise InputError(
                f"{folder}: holds results of another segmenter or other options; choose another folder or --overwrite"
            )
        entries = [VolumeResult(**entry) for entry in record["volumes"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is damaged; use --overwrite to start again") from None
    return {
        entry.input: entry
        for entry in entries
        if entry.status in ("done", "skipped") and entry.output and (folder / entry.output).is_file()
    }


def _write_record(folder: Path, record: dict[str, Any], fingerprint: str, results: Sequence[VolumeResult]) -> None:
    content = {
        **record,
        "fingerprint": fingerprint,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "volumes": [asdict(result) for result in results],
    }
    write_text(folder / RUN_RECORD, json.dumps(content, indent=2, default=str) + "\n")


def _write_statistics(folder: Path, results: Sequence[VolumeResult]) -> None:
    rows = [{"case": result.case, **row} for result in results for row in result.statistics]
    if rows:
        write_csv(folder / STATISTICS, rows)


def versions() -> dict[str, str]:
    """What the result depends on besides the data."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("medfewshot", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
