"""One volume after the other: read, segment, write, record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medfewshot.bundle import VolumeSegmenter
from medfewshot.cohort.inputs import check_channels, check_folder
from medfewshot.cohort.record import (
    REPORT,
    RUN_RECORD,
    STATISTICS,
    CohortOptions,
    RunRecord,
    VolumeResult,
    flag_warning,
    remove_results,
)
from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.io import (
    can_refer_to,
    case_id,
    format_of,
    output_suffix,
    read_image,
    write_array,
    write_dicom_seg,
    write_label,
)
from medfewshot.report import prepare_case, save_preview, structure_statistics
from medfewshot.types import Case, Progress, Volume


@dataclass(frozen=True)
class CohortResult:
    """``resumed``: how many of the results an earlier run had made."""

    results: tuple[VolumeResult, ...]
    folder: Path
    resumed: int = 0

    @property
    def failed(self) -> tuple[VolumeResult, ...]:
        return tuple(result for result in self.results if result.status == "failed")


def check_results_folder(folder: Path, cases: Sequence[Case], options: CohortOptions) -> None:
    """Raises InputError where writing into ``folder`` would cost the user a file that nobody spoke for."""
    check_folder(folder)
    if not folder.is_dir():
        return
    inputs = {path.resolve() for case in cases for path in case.image_paths}
    if any(folder.resolve() in (path, path.parent) for path in inputs):
        raise InputError(f"{folder}: holds the scans themselves; give another folder with -o")
    if options.overwrite:
        return
    if (folder / RUN_RECORD).exists():
        if options.resume:
            return
        raise InputError(f"{folder}: already holds results; add --resume to go on or --overwrite to replace them")
    names = {case.case_id for case in cases}
    taken = [path for path in sorted(folder.iterdir()) if format_of(path) and case_id(path) in names]
    taken += [path for path in (folder / STATISTICS, folder / REPORT) if path.exists()]
    if taken:
        raise InputError(f"{taken[0]}: is there already; give another folder with -o, or --overwrite to replace it")


def segment_cohort(
    cases: Sequence[Case],
    segmenter: VolumeSegmenter,
    folder: Path,
    options: CohortOptions | None = None,
    command: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> CohortResult:
    """Segment every case (see :func:`find_cases`) into ``folder``; ``command`` is for the record.

    A volume that cannot be segmented is among the results as ``failed``. Raises InputError for a folder that cannot be
    used, before anything is written.
    """
    options, progress = options or CohortOptions(), progress or Progress()
    check_results_folder(folder, cases, options)
    record = RunRecord(folder, segmenter, options, command)
    earlier = record.earlier_results() if options.resume and not options.overwrite else {}
    if options.overwrite:
        remove_results(folder)
    _check_same_scans(cases, earlier.values(), folder)
    folder.mkdir(parents=True, exist_ok=True)
    resumed = 0
    record.start(earlier)
    with record:
        for number, case in enumerate(cases):
            progress.update(number, len(cases), case.case_id)
            result = earlier.get(_inputs(case))
            result = result if result is not None and result.stamp in ("", _stamp(case)) else None
            resumed += result is not None
            record.add(result or _segment_one(case, segmenter, folder, options, progress.part(number, len(cases))))
        record.finish()
    progress.update(len(cases), len(cases), "done")
    return CohortResult(tuple(record.results), folder, resumed)


def _check_same_scans(cases: Sequence[Case], earlier: Iterable[VolumeResult], folder: Path) -> None:
    """Raises InputError where a result would take the place of another scan's."""
    known = {result.case.casefold(): result for result in earlier}
    for case in cases:
        result = known.get(case.case_id.casefold())
        if result is not None and result.inputs != _inputs(case):
            raise InputError(
                f"{folder / str(result.labels)}: is the result of {result.inputs[0]}, not of {case.image_path}; "
                "give another folder with -o, or --overwrite to replace what is there"
            )


def _stamp(case: Case) -> str:
    """Sizes and times of a case's files, by which a later run sees that one was replaced."""
    files = [file for path in case.image_paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _inputs(case: Case) -> tuple[str, ...]:
    return tuple(str(path.resolve()) for path in case.image_paths)


def _segment_one(
    case: Case, segmenter: VolumeSegmenter, folder: Path, options: CohortOptions, progress: Progress
) -> VolumeResult:
    begun = time.perf_counter()
    try:
        check_channels(case, segmenter.plan.channels)
        volume = read_image(case.image_paths)
        if _inputs(case)[0] in {support.get("image") for support in segmenter.record.get("supports", ())}:
            seen = f"{volume.name}: is one of the supports; its result says nothing about other scans"
            volume = replace(volume, warnings=(*volume.warnings, seen))
        read = time.perf_counter() - begun
        segmentation = segmenter.segment(volume, options.inference, progress)
        return _write_result(case, volume, segmentation, segmenter, folder, options, read)
    except Exception as error:
        # Whatever is wrong with one scan, the others still get their turn; the record and exit code say so.
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename}: {error.strerror}; check the disk and the path"
        elif not isinstance(error, InputError):
            text = f"{case.image_path}: {text}"
        return VolumeResult(case.case_id, _inputs(case), "failed", error=text)


def _write_result(
    case: Case,
    volume: Volume,
    segmentation: Segmentation,
    segmenter: VolumeSegmenter,
    folder: Path,
    options: CohortOptions,
    read_seconds: float,
) -> VolumeResult:
    started = time.perf_counter()
    names = dict(segmenter.plan.labels)
    files = _write_maps(case.case_id, volume, segmentation, folder)
    if options.previews:
        files.append(f"previews/{case.case_id}.png")
        save_preview(
            folder / files[-1], volume.data[0], segmentation.labels, volume.affine, names,
            uncertainty=segmentation.uncertainty, title=case.case_id,
            predicted_dice=segmentation.predicted_dice, flags=segmentation.flags,
        )  # fmt: skip
    told: tuple[str, ...] = ()
    if options.dicom_seg:
        told = _write_dicom_seg(case.case_id, volume, segmentation, names, folder, files)
    labels = f"{case.case_id}{output_suffix(volume)}"
    # The labels last: where they are, everything else of this volume is too.
    write_label(folder / labels, segmentation.labels, volume)
    if options.report:
        prepare_case(
            folder, case.case_id, labels_file=folder / labels, image=volume.data[0], labels=segmentation.labels,
            affine=volume.affine, values=tuple(names), uncertainty=segmentation.uncertainty,
        )  # fmt: skip
    flagged = [flag_warning(text) for text in segmentation.flags]
    prepared = {("prepare" if name == "plan" else name): time for name, time in segmentation.seconds.items()}
    return VolumeResult(
        case=case.case_id,
        inputs=_inputs(case),
        stamp=_stamp(case),
        status="done",
        labels=labels,
        files=tuple(files),
        seconds={"read": round(read_seconds, 3), **prepared, "write": round(time.perf_counter() - started, 3)},
        confidence={names[value]: share for value, share in segmentation.confidence.items()},
        predicted_dice={names[value]: dice for value, dice in segmentation.predicted_dice.items()},
        flags=segmentation.flags,
        statistics=tuple(_statistics(volume, segmentation, names)),
        warnings=(*volume.warnings, *segmentation.warnings, *told, *flagged),
    )


def _write_maps(name: str, volume: Volume, segmentation: Segmentation, folder: Path) -> list[str]:
    """Write what was asked for of class probabilities and uncertainty; returns the paths relative to ``folder``."""
    files = []
    if segmentation.probabilities is not None:
        suffix = output_suffix(volume, real_numbers=True, channels=True)
        files.append(f"probabilities/{name}{suffix}")
        write_array(folder / files[-1], segmentation.probabilities, volume)
    if segmentation.uncertainty is not None:
        files.append(f"uncertainty/{name}{output_suffix(volume, real_numbers=True)}")
        write_array(folder / files[-1], segmentation.uncertainty, volume)
    return files


def _write_dicom_seg(
    name: str, volume: Volume, segmentation: Segmentation, names: dict[int, str], folder: Path, files: list[str]
) -> tuple[str, ...]:
    if not can_refer_to(volume):
        return (f"{volume.name}: is no DICOM series, so there is no DICOM segmentation of it",)
    files.append(f"dicom_seg/{name}.dcm")
    return write_dicom_seg(folder / files[-1], segmentation.labels, names, volume)


def _statistics(volume: Volume, segmentation: Segmentation, names: dict[int, str]) -> list[dict[str, Any]]:
    rows = structure_statistics(volume.data, segmentation.labels, volume.affine, names)
    for row in rows:
        row["predicted_dice"] = segmentation.predicted_dice.get(row["label"])
        row["flags"] = "; ".join(segmentation.flags)
    if volume.has_spacing:
        return rows
    # A photograph knows no millimetres: only what is counted in pixels is true.
    return [{key: None if key.endswith(("_mm", "_mm2")) else value for key, value in row.items()} for row in rows]
