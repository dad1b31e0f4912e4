"""Segmentation of one volume of many: read, segment, write; what goes wrong becomes its result."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from socket import gethostname

from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError, one_line, some
from medfewshot.intensities import voxel_digest
from medfewshot.io import Film, ReadImage, open_scan, read_image
from medfewshot.settings import SegmentSettings
from medfewshot.types import Case, Progress, Volume
from medfewshot.workers import Lost
from medfewshot.workflow.films import segment_film
from medfewshot.workflow.outputs import inputs_of, stamp_of, write_outputs
from medfewshot.workflow.record import RUN_RECORD, CaseResult, fingerprint_of
from medfewshot.workflow.volumes import check_channels


@dataclass(frozen=True)
class Batch:
    """Volumes to segment and where the results go: see :func:`open_batch`.

    Args:
        cases: The volumes, as paths with a name each.
        folder: Where results are written.
        settings: What is written, and what happens to earlier results.
        first: The volume or the film, if there is only one: it is read already.
        stamp: Of its files before they were read.
        read: Reads the image of a case from its channel files.
        warnings: Of what was skipped.
    """

    cases: tuple[Case, ...]
    folder: Path
    settings: SegmentSettings = field(default_factory=SegmentSettings)
    first: Volume | Film | None = None
    stamp: str = ""
    read: ReadImage = read_image
    warnings: tuple[str, ...] = ()

    @property
    def query(self) -> Volume | None:
        """The volume, or the first frame of the film, if there is only one."""
        return self.first.first if isinstance(self.first, Film) else self.first


@dataclass(frozen=True)
class SavedModel:
    """A segmenter that the nodes of a cluster read.

    Args:
        folder: Where it is saved; all nodes see this folder.
        device: Where it computes, e.g. ``auto``; each node resolves it.
    """

    folder: Path
    device: str = "auto"


def segment_case(case: Case, progress: Progress, *, segmenter: VolumeSegmenter, batch: Batch) -> CaseResult:
    """Segment one volume and write its results.

    Args:
        case: The volume.
        progress: Receives events; may cancel.
        segmenter: What adaptation made.
        batch: The folder and the settings.

    Returns:
        The result, ``failed`` if anything is wrong with the volume.
    """
    begun, stamp = time.perf_counter(), batch.stamp or stamp_of(case)
    progress.update(0, 1, case.case_id)
    try:
        check_channels(case, segmenter.plan.channels)
        scan = batch.first or open_scan(case.image_paths, channels=segmenter.plan.channels, read=batch.read)
        read = round(time.perf_counter() - begun, 3)
        film = None
        if isinstance(scan, Film):
            film = segment_film(scan, segmenter, batch.settings, progress=progress)
            volume, segmentation = replace(film.shown, warnings=scan.first.warnings), film.segmentation
        else:
            volume, segmentation = scan, segmenter.segment(scan, batch.settings, progress)
        seen = seen_warnings(case, scan, segmenter)
        volume = replace(volume, warnings=(*volume.warnings, *seen))
        result = write_outputs(
            case, volume, segmentation, names=segmenter.plan.labels, folder=batch.folder, settings=batch.settings,
            stamp=stamp, read_seconds=read, film=film,
        )  # fmt: skip
        return replace(result, learned=bool(seen))
    except Exception as error:
        # Whatever is wrong with one scan, the others still get their turn; the record and exit code say so.
        return failure(case, error)


def segment_on_node(case: Case, progress: Progress, *, saved: SavedModel, fingerprint: str, batch: Batch) -> CaseResult:
    """Segment one volume on a node of a cluster.

    Args:
        case: The volume.
        progress: May cancel.
        saved: The segmenter; each worker reads it once.
        fingerprint: Of this segmenter and the settings; a node that finds another one refuses it.
        batch: The folder and the settings.

    Returns:
        The result, ``failed`` if anything is wrong with the volume or with the node.
    """
    try:
        segmenter = _loaded(saved, batch.settings, fingerprint)
        if not (batch.folder / RUN_RECORD).is_file():  # of a node that joined later, or lost the folder since
            raise InputError(f"{batch.folder}: is not shared with {gethostname()}", "use a folder that all nodes share")
    except InputError as error:
        return failure(case, error)
    found = segment_case(case, progress, segmenter=segmenter, batch=batch)
    return replace(found, error=f"{found.error} ({gethostname()})") if found.traceback else found


@cache
def _loaded(saved: SavedModel, settings: SegmentSettings, fingerprint: str) -> VolumeSegmenter:
    segmenter = load_segmenter(saved.folder, resolve_device(saved.device))
    if fingerprint_of(segmenter, settings) != fingerprint:
        raise InputError(f"{saved.folder}: is another model on {gethostname()}", "use a folder that all nodes share")
    return segmenter


def seen_warnings(case: Case, scan: Volume | Film, segmenter: VolumeSegmenter) -> tuple[str, ...]:
    """Warn if the segmenter learned from this scan, from a copy of it, or from frames of it."""
    earlier, name = segmenter.record.get("earlier") or {}, scan.name
    supports = [*segmenter.record.get("supports", ()), *earlier.get("supports", ())]
    own = [one for one in supports if one.get("image") == inputs_of(case)[0]]
    if not own and isinstance(scan, Volume) and voxel_digest(scan.data) in [one.get("voxels") for one in supports]:
        return (f"{name}: has the same voxels as one of the labelled scans; do not judge the model by this result",)
    if not own:
        return ()
    frames = [one["frame"] for one in own if "frame" in one]
    if frames:
        return (f"{name}: frame {some(frames)} is labelled; do not judge the model by this frame",)
    return (f"{name}: is one of the labelled scans; do not judge the model by this result",)


def failure(case: Case, error: Exception | Lost) -> CaseResult:
    """Return one line for people; and the traceback, unless the input is to blame."""
    text = one_line(error)
    if isinstance(error, Lost):
        text = f"{case.image_path}: the worker ended ({error.reason}); if it ends again, the scan needs more memory"
    elif not isinstance(error, InputError) and not (isinstance(error, OSError) and error.filename):
        text = f"{case.image_path}: {text}"
    trace = None if isinstance(error, (InputError, Lost)) else "".join(traceback.format_exception(error))
    return CaseResult(case.case_id, inputs_of(case), "failed", error=text, traceback=trace)
