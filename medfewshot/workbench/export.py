"""What a project exports: masks, DICOM objects, an nnU-Net data set, surfaces, statistics, the model and a report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.bundle import VolumeSegmenter
from medfewshot.data_dictionary import write_table
from medfewshot.datasets import IGNORE_VALUE, PROJECT_FILE
from medfewshot.errors import InputError, did_you_mean, some
from medfewshot.inference import Segmentation
from medfewshot.intensities import looks_like_hounsfield, voxel_digest
from medfewshot.io import EXPORTS as WRITERS
from medfewshot.io import write_array, write_label, write_text
from medfewshot.settings import SegmentSettings
from medfewshot.types import Case, Colour
from medfewshot.workbench.mask_checks import read_mask, read_stored
from medfewshot.workbench.project import Project
from medfewshot.workbench.session import LabelSession
from medfewshot.workbench.state import CaseState
from medfewshot.workbench.surface import surface_of, write_stl
from medfewshot.workflow import report
from medfewshot.workflow.measures import measure_labels
from medfewshot.workflow.outputs import rgb, write_outputs
from medfewshot.workflow.record import RUN_RECORD, RunRecord
from medfewshot.workflow.reviews import REVIEWS, read_review_status, review_status

DONE = ("accepted", "example")
"""Cases with one of these statuses are exported."""


@dataclass
class Exported:
    """What :func:`export` wrote.

    Args:
        files: Every file.
        notes: What was not written, and why; one line each.
        unread: Names of the cases whose scan or mask cannot be used.
    """

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One export: the project, where to write, and the cases with a mask that a person made or accepted."""

    project: Project
    output: Path
    complete: Sequence[CaseState]
    partly: Sequence[CaseState]
    result: Exported

    @property
    def names(self) -> dict[int, str]:
        return {one.value: one.name for one in self.project.structures}

    @property
    def colours(self) -> dict[int, Colour]:
        return {one.value: rgb(one.color) for one in self.project.structures}

    def mask(self, case: CaseState) -> np.ndarray:
        path = self.project.mask_path(case.name)
        assert path is not None
        return read_mask(path, scan=self.project.grid(case.name))


def export(project: Project, formats: Sequence[str], output: Path) -> Exported:
    """Write every case that is labelled or accepted, unless its scan or mask cannot be used.

    Args:
        project: The project.
        formats: Names in :data:`EXPORTS`.
        output: Folder, with one folder or file for each format.

    Raises:
        InputError: A format is unknown, no case is labelled or accepted, no scan of them can be used, a library is
            missing, or ``output`` contains a project, a run, or another folder ``bundle``.
    """
    for name in formats:
        if name not in EXPORTS:
            raise InputError(f"format {name}: unknown{did_you_mean(name, EXPORTS)}", f"choose {', '.join(EXPORTS)}")
    if any((Path(output) / name).is_file() for name in (PROJECT_FILE, RUN_RECORD)):
        raise InputError(f"{output}: contains a project or the results of a run", "give another folder")
    cases = [case for case in project.cases() if case.status in DONE]
    if not cases:
        raise InputError("no case is labelled or accepted yet", "accept a draft, or draw a mask")
    result = Exported()
    cases = _usable(project, cases, result)
    complete = [case for case in cases if project.facts(case.name).complete]
    partly = [case for case in cases if not project.facts(case.name).complete]
    reviews = _write_reviews(project, Path(output))
    for name in formats:
        _FORMATS[name][1](_Job(project, Path(output), complete, partly, result))
        if partly and name not in ("nnunet", "bundle"):
            result.notes.append(f"{name}: partly drawn and not written: {some(case.name for case in partly)}")
        left = {path for path in (Path(output) / name).rglob("*") if path.is_file()} - set(result.files)
        if left and name not in ("report", "bundle"):
            result.notes.append(f"{name}: {len(left)} file(s) of an earlier export are still there: {min(left)}")
    result.files.append(reviews)
    return result


def _usable(project: Project, cases: Sequence[CaseState], result: Exported) -> list[CaseState]:
    """Return the cases whose scan and mask can be used together; note the others, and scans that were replaced."""
    problems: dict[str, InputError] = {}
    replaced: list[str] = []
    for name in (case.name for case in cases):
        try:
            scan, mask = project.read_scan(name), project.mask_path(name)
            if mask is not None:
                read_mask(mask, scan=scan)
            if project.facts(name).scan not in ("", voxel_digest(scan.data)):
                replaced.append(name)
        except InputError as error:
            problems[name] = error
    if len(problems) == len(cases):
        raise next(iter(problems.values()))
    result.unread += problems
    if problems:
        result.notes.append(f"not exported: {some(problems)} ({next(iter(problems.values()))})")
    if replaced:
        result.notes.append(f"the scan was replaced after the mask was saved: {some(replaced)}; check the masks")
    return [case for case in cases if case.name not in problems]


def _write_reviews(project: Project, folder: Path) -> Path:
    """Write what reviewers said about every case of the project, those that are not exported too."""
    newest = {review.case: review for review in project.reviews() if review.status}
    rows = []
    for case in project.cases():
        review = newest.get(case.name)
        given = review is not None and review.status == case.status  # of this version, not of an earlier one
        dice, time = (review.dice, review.time) if review is not None and given else (None, "")
        rows.append({
            "case": case.name, "status": case.status, "review_status": review_status(case.status, dice),
            "version": case.version, "draft": case.draft, "dice": dice, "time": time, "note": case.note,
        })  # fmt: skip
    return write_table(folder / REVIEWS, rows)


def _nifti(job: _Job) -> None:
    for case in job.complete:
        path = job.output / "nifti" / f"{case.name}.nii.gz"
        write_label(path, job.mask(case), job.project.grid(case.name))
        job.result.files.append(path)


def _with_writer(name: str) -> Callable[[_Job], None]:
    """Return ``.seg.nrrd``, DICOM SEG or RTSTRUCT, through the writers of ``io``."""
    writer = WRITERS[name]

    def write(job: _Job) -> None:
        writer.check_available()
        for case in job.complete:
            source = job.project.read_scan(case.name) if writer.needs_series else job.project.grid(case.name)
            refusal = writer.refusal(source)
            if refusal is not None:
                job.result.notes.append(refusal)
                continue
            path = job.output / writer.file_of(case.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            job.result.notes += writer.write(path, job.mask(case), job.names, source, job.colours)
            job.result.files.append(path)

    return write


def _nnunet(job: _Job) -> None:
    """Write a data set for nnU-Net v2: consecutive label values, and ``ignore`` for what is not drawn."""
    folder = job.output / "nnunet" / "Dataset001_medfewshot"
    values = [one.value for one in job.project.structures]
    if "background" in job.names.values():
        raise InputError("structure background: nnU-Net gives this name to the value 0", "rename the structure")
    table = np.zeros(IGNORE_VALUE + 1, np.uint8)
    for number, value in enumerate(values, start=1):
        table[value] = number
    table[IGNORE_VALUE], channels = len(values) + 1, dict[str, str]()
    for case in (*job.complete, *job.partly):
        scan, path = job.project.read_scan(case.name), job.project.mask_path(case.name)
        assert path is not None
        label = folder / "labelsTr" / f"{case.name}.nii.gz"
        images = [folder / "imagesTr" / f"{case.name}_{number:04d}.nii.gz" for number in range(len(scan.data))]
        for image, channel in zip(images, scan.data, strict=True):
            write_array(image, channel, scan)
        write_label(label, table[read_stored(path, scan=scan)], scan)
        job.result.files += [*images, label]
        # nnU-Net normalises a channel as CT by its name.
        stated = str(job.project.settings.get("modality") or scan.modality or "")
        is_ct = stated.upper().startswith("CT") if stated else looks_like_hounsfield(scan.data)
        is_ct = is_ct and set(channels.values()) <= {"CT"}
        channels |= {str(number): "CT" if is_ct else f"channel {number}" for number in range(len(images))}
    labels: dict[str, int] = {"background": 0, **{job.names[value]: n for n, value in enumerate(values, start=1)}}
    labels |= {"ignore": len(values) + 1} if job.partly else {}
    content = {
        "channel_names": channels, "labels": labels, "numTraining": len(job.complete) + len(job.partly),
        "file_ending": ".nii.gz", "name": "medfewshot",
    }  # fmt: skip
    write_text(folder / "dataset.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    job.result.files.append(folder / "dataset.json")


def _stl(job: _Job) -> None:
    for case in job.complete:
        labels, grid = job.mask(case), job.project.grid(case.name)
        if labels.ndim != 3:
            job.result.notes.append(f"stl: {case.name} is 2D")
            continue
        if not grid.has_spacing:
            job.result.notes.append(f"stl: {case.name} states no voxel size, so a voxel is 1 mm long")
        for value, name in job.names.items():
            mask = labels == value
            if mask.any():
                file = re.sub(r"[^\w.-]+", "_", name).strip(".")[:60] or f"label_{value}"
                path = job.output / "stl" / case.name / f"{value:03d}_{file}.stl"
                write_stl(path, *surface_of(mask, grid.affine))
                job.result.files.append(path)


def _statistics(job: _Job) -> None:
    rows: list[dict[str, Any]] = []
    reviews = read_review_status(job.output)
    for case in job.complete:
        scan, facts = job.project.read_scan(case.name), job.project.facts(case.name)
        about: dict[str, Any] = {"case": case.name, "status": case.status, "review_status": reviews[case.name]}
        about |= {"version": facts.version, "note": case.note}
        rows += [{**about, **row} for row in measure_labels(scan, job.mask(case), job.names)]
    job.result.files.append(write_table(job.output / "statistics.csv", rows))


def _bundle(job: _Job) -> None:
    target = job.output / "bundle"
    if target.exists() and not (target / "segmenter.json").is_file():
        raise InputError(f"{target}: is not the model of an earlier export", "move it away, or give another folder")
    model = _model(job, "bundle")
    if model is None:
        return
    shutil.rmtree(target, ignore_errors=True)
    names = {value: job.names.get(value, name) for value, name in model.plan.labels.items()}
    VolumeSegmenter(replace(model.plan, labels=names), model.segmenter, model.record).save(target)
    job.result.files += sorted(path for path in target.rglob("*") if path.is_file())
    if gone := [name for value, name in names.items() if value not in job.names]:
        job.result.notes.append(f"bundle: the model still finds {some(gone)}, which was removed; learn again")


def _model(job: _Job, name: str) -> VolumeSegmenter | None:
    """Return the newest model, which may have learned before a structure was added, renamed or removed."""
    session = LabelSession(job.project.folder / "segmenters")
    if session.current is None:
        job.result.notes.append(f"{name}: there is no model yet; learn first")
        return None
    return session.segmenter()


def _report(job: _Job) -> None:
    """Write the page about a run, with the masks of the project in place of a model's results."""
    model = _model(job, "report")
    if model is None:
        return
    folder, settings = job.output / "report", SegmentSettings()
    folder.mkdir(parents=True, exist_ok=True)
    reviews = read_review_status(job.output)
    model = VolumeSegmenter(replace(model.plan, labels=job.names), model.segmenter, model.record)
    record = RunRecord(folder, model, settings, ["medfewshot", "export"], reviews=reviews)
    record.start({})
    with record:
        for case in job.complete:
            done = Segmentation(job.mask(case), flags=(f"review: {case.status}", *([case.note] if case.note else [])))
            files = Case(case.name, case.name, None, (case.scan,))
            result = write_outputs(
                files, job.project.read_scan(case.name), done,
                names=job.names, folder=folder, settings=settings, stamp="", read_seconds=0.0,
            )  # fmt: skip
            record.add(result)
    job.result.files.append(report(folder))


_FORMATS: dict[str, tuple[str, Callable[[_Job], None]]] = {
    "nifti": ("masks as NIfTI", _nifti),
    **{name: (writer.title, _with_writer(name)) for name, writer in WRITERS.items()},
    "nnunet": ("a data set for nnU-Net v2, with scans", _nnunet),
    "stl": ("surfaces for 3D printing", _stl),
    "statistics": ("sizes and intensities as a table, with the state of the review", _statistics),
    "bundle": ("the model as a MONAI bundle", _bundle),
    "report": ("a page with pictures of every case", _report),
}
EXPORTS: dict[str, str] = {name: title for name, (title, _) in _FORMATS.items()}
"""Name of each format -> what it is."""
