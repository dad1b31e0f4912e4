"""Segmentation of many volumes, one after the other: read, segment, write, record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError, some
from medfewshot.heart import find_cavities
from medfewshot.io import (
    EXPORTS,
    Film,
    ReadImage,
    case_id,
    claimed,
    files_without_image,
    format_of,
    images_below,
    labels_without_image,
    open_scan,
    read_image,
)
from medfewshot.planning import check_like_support
from medfewshot.settings import SegmentSettings
from medfewshot.types import Case, Plan, Progress
from medfewshot.workers import Lost, RayCluster, Threads, Workers
from medfewshot.workflow.one_case import Batch, SavedModel, failure, segment_case, segment_on_node
from medfewshot.workflow.outputs import inputs_of, stamp_of
from medfewshot.workflow.record import (
    REPORT,
    RUN_RECORD,
    STATISTICS,
    CaseResult,
    RunRecord,
    flag_warning,
    remove_results,
    remove_scores,
)
from medfewshot.workflow.report import reasons_to_review
from medfewshot.workflow.volumes import channels_a_scan, check_channels, check_tables_folder, find_cases

MIN_COHORT = 3
"""From this number of scans on, flags on most of them say something about the supports."""


@dataclass(frozen=True)
class RunResult:
    """Results of a run.

    Args:
        results: One per volume.
        folder: Folder of the results.
        resumed: Number of results that an earlier run made.
        warnings: Of what was skipped, of the adaptation and of every volume.
    """

    results: tuple[CaseResult, ...]
    folder: Path
    resumed: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """Results of the scans that could not be segmented."""
        return tuple(result for result in self.results if result.status == "failed")

    @cached_property
    def review(self) -> dict[tuple[str, int], str]:
        """(case, label value) of each structure to review -> one reason in at most six words."""
        return reasons_to_review(self.results)

    @property
    def notes(self) -> tuple[str, ...]:
        """The warnings, without the flags of the results."""
        flags = {f"{one.case}: {flag_warning(flag)}" for one in self.results for flag in one.flags}
        return tuple(warning for warning in self.warnings if warning not in flags)


def open_batch(
    inputs: Sequence[Path],
    folder: Path,
    settings: SegmentSettings | None = None,
    *,
    channels: int = 1,
    plan: Plan | None = None,
    read: ReadImage = read_image,
) -> Batch:
    """Find the volumes and check what can be checked before adaptation costs time.

    Args:
        inputs: Files, DICOM series folders, or folders of them.
        folder: Where results are to be written.
        settings: What is written, and what happens to earlier results.
        channels: Images per volume.
        plan: Of the segmenter, if there is one already; a single volume must fit it.
        read: Reads the image of a case from its channel files.

    Raises:
        InputError: Nothing is found, the folder cannot take the results, or the only volume cannot be segmented.
    """
    settings = settings or SegmentSettings()
    for name in settings.exports:
        EXPORTS[name].check_available()
    cases = find_cases(inputs, channels)
    check_results_folder(folder, cases, settings)
    first, stamp = None, ""
    if len(cases) == 1:
        check_channels(cases[0], channels)
        stamp = stamp_of(cases[0])
        first = open_scan(cases[0].image_paths, channels=channels, read=read)
        if plan is not None:
            check_like_support(first.first if isinstance(first, Film) else first, plan)
    skipped = [file for given in inputs for file in files_without_image(given)]
    warnings = []
    if skipped:
        text = f"{len(skipped)} DICOM file(s) without an image ignored, such as {skipped[0]}"
        warnings.append(f"{text}; check that no scan is missing")
    if alone := [file for given in inputs for file in labels_without_image(given)]:
        warnings.append(
            f"{len(alone)} file(s) named like labels ignored, such as {alone[0]}; name the file if it is a scan"
        )
    if channels == 1 and (count := channels_a_scan(case.image_path for case in cases)) > 1:
        warnings.append(
            f"the names say that each scan has {count} files, its channels, but the model has one channel: "
            "each file is segmented by itself; give a folder with the channel that it learned from"
        )
    known = {path.resolve() for case in cases for path in case.image_paths}
    named = {path.absolute() for case in cases for path in case.image_paths}
    links = [file for given in inputs if given.is_dir() for file in sorted(given.iterdir()) if file.is_symlink()]
    if doubles := [file.name for file in links if file.resolve() in known and file.absolute() not in named]:
        warnings.append(f"{len(doubles)} link(s) to others of the scans ignored: {some(doubles)}")
    deeper = [file for given in inputs for file in images_below(given) if file.resolve() not in known]
    if deeper := [file for file in deeper if not (file.parent / RUN_RECORD).is_file()]:  # results are no scans
        warnings.append(f"{len(deeper)} image(s) in subfolders ignored, such as {deeper[0]}; give their folders too")
    return Batch(tuple(cases), folder, settings, first=first, stamp=stamp, read=read, warnings=tuple(warnings))


def check_results_folder(folder: Path, cases: Sequence[Case], settings: SegmentSettings) -> None:
    """Check that results in ``folder`` replace neither scans nor unrelated files."""
    check_tables_folder(folder)
    if not folder.is_dir():
        return
    inputs = {path.resolve() for case in cases for path in case.image_paths}
    if any(folder.resolve() in (path, path.parent) for path in inputs):
        raise InputError(f"{folder}: contains the scans themselves", "give another folder", setting="output")
    if (folder / RUN_RECORD).exists():
        if settings.resume or settings.overwrite:
            return
        raise InputError(
            f"{folder}: already contains results", "continue or replace them", setting=("resume", "overwrite")
        )
    names = {case.case_id for case in cases}
    taken = [path for path in sorted(folder.iterdir()) if format_of(path) and case_id(path) in names]
    taken += [path for path in (folder / STATISTICS, folder / REPORT) if path.exists()]
    if taken:
        raise InputError(
            f"{taken[0]}: exists already, and no run.json beside it", "give another folder", setting="output"
        )


def segment(
    batch: Batch,
    segmenter: VolumeSegmenter,
    *,
    command: Sequence[str] | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
    saved: SavedModel | None = None,
) -> RunResult:
    """Segment every volume of ``batch`` into its folder. One bad volume does not stop the rest.

    Args:
        batch: The volumes, the folder and the settings.
        segmenter: What adaptation made.
        command: The command line, for the record.
        progress: Receives events within and between volumes; may cancel: what is done stays and can be resumed.
        workers: Who segments; None for this thread. The results are the same.
        saved: Where a cluster's nodes find the segmenter. Only a cluster needs it.

    Returns:
        The results; a volume that cannot be segmented is among them as ``failed``.

    Raises:
        InputError: The folder cannot be used, or a cavity is no structure; nothing is written.
    """
    folder, settings = batch.folder, batch.settings
    progress = (progress or Progress()).at("segmenting")
    check_results_folder(folder, batch.cases, settings)
    find_cavities([*segmenter.plan.labels.values()], settings.cavities)
    record = RunRecord(folder, segmenter, settings, command, warnings=batch.warnings)
    folder.mkdir(parents=True, exist_ok=True)
    workers, todo = workers or Threads(), []
    shared = [path.absolute() for path in (*([saved.folder] if saved else []), batch.cases[0].image_path)]
    with claimed(folder) as free, workers.ready(*shared, results=folder):
        if not free:
            raise InputError(f"{folder}: another run writes into it", "wait for it, or give another folder")
        earlier = record.earlier_results() if settings.resume and not settings.overwrite else {}
        if settings.overwrite:
            remove_results(folder)
        _check_same_scans(batch.cases, earlier.values(), folder)
        record.start(earlier)
        with record:
            for case in batch.cases:
                known = earlier.get(inputs_of(case))
                if known is not None and known.stamp in ("", stamp_of(case)):
                    record.add(known)
                else:
                    todo.append(case)
            if any(inputs_of(case) in earlier for case in todo) and remove_scores(folder):
                record.about_input += ("the scores in the folder were of earlier scans and were removed: score again",)
            resumed = len(record.results)
            work = _work(batch, segmenter, record, workers, saved)
            if isinstance(workers, RayCluster):  # its processes start in other folders
                todo = [replace(one, image_paths=tuple(path.absolute() for path in one.image_paths)) for one in todo]
            with closing(workers.run(work, todo, progress)) as results:
                for done, (number, found) in enumerate(results, start=1):
                    result = failure(todo[number], found) if isinstance(found, Lost) else found
                    record.add(replace(result, inputs=inputs_of(todo[number])))  # a link may lead elsewhere on a node
                    progress.update(done, len(todo), result.case)
            order = {inputs_of(case): number for number, case in enumerate(batch.cases)}
            record.results.sort(key=lambda result: order[result.inputs])
            record.about_input += cohort_warning(record.results)
            record.reasons = reasons_to_review(record.results)
    return RunResult(tuple(record.results), folder, resumed, tuple(record.warnings()))


def _work(
    batch: Batch, segmenter: VolumeSegmenter, record: RunRecord, workers: Workers, saved: SavedModel | None
) -> Callable[[Case, Progress], CaseResult]:
    """Return what segments one case. Nothing but paths and settings goes to the nodes of a cluster."""
    batch = replace(batch, cases=())
    if not isinstance(workers, RayCluster):
        return partial(segment_case, segmenter=segmenter, batch=batch)
    if saved is None:
        raise InputError("the nodes of a cluster need a saved segmenter", "save it first", setting="ray")
    record.device = f"{saved.device}, on the Ray cluster {workers.address}"
    saved = replace(saved, folder=saved.folder.resolve())
    batch = replace(batch, folder=batch.folder.resolve(), first=None, stamp="")
    return partial(segment_on_node, saved=saved, fingerprint=record.fingerprint, batch=batch)


def cohort_warning(results: Sequence[CaseResult]) -> tuple[str, ...]:
    """Say if most scans of a run have flags: then the supports do not represent them, and no single scan is odd."""
    done = [result for result in results if result.status == "done"]
    flagged = [result.case for result in done if result.flags]
    if len(done) < MIN_COHORT or 2 * len(flagged) <= len(done):
        return ()
    return (
        f"{len(flagged)} of {len(done)} scans are unlike the labelled scans ({some(flagged)}): label one of them "
        "too, or give labelled scans of this kind",
    )


def _check_same_scans(cases: Sequence[Case], earlier: Iterable[CaseResult], folder: Path) -> None:
    """Check that no result replaces the result of another scan."""
    known = {result.case.casefold(): result for result in earlier}
    for case in cases:
        result = known.get(case.case_id.casefold())
        if result is not None and result.inputs != inputs_of(case):
            raise InputError(
                f"{folder / str(result.labels)}: is the result of {result.inputs[0]}, not of {case.image_path}",
                "give another folder, or replace what is there",
                setting=("output", "overwrite"),
            )
