"""Adapt a cell's segmenter to its supports, or read it from disk if an earlier process left it there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from medfewshot import workflow
from medfewshot.benchmark.cells import Cell
from medfewshot.benchmark.environment import peak_device_memory_gb, peak_memory_gb
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError, some
from medfewshot.inference import Segmentation
from medfewshot.learners import LEARNERS, LearnerSpec
from medfewshot.structures import boxes
from medfewshot.types import Case, Plan, Progress, Volume
from medfewshot.workflow import LabelledScans

KEPT = "segmenter"
"""Folder of the adapted segmenter inside the folder of its cell."""


class ScanSegmenter(Protocol):
    """Segments volumes on their original grid; ``record`` describes the adaptation."""

    @property
    def plan(self) -> Plan:
        """How scans become network input."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What adaptation reports (steps, seconds, loss), as plain data."""

    def segment(self, volume: Volume) -> Segmentation:
        """Segment one scan on its original grid."""


def read_supports(cell: Cell, names: Mapping[int, str], cases: Sequence[Case]) -> tuple[LabelledScans, dict[int, str]]:
    """Read the supports of a cell.

    Returns:
        The scans, and the structures of ``names`` that at least one of them marks.

    Raises:
        InputError: The supports mark none of the structures.
    """
    scans = replace(workflow.read_supports(cases), names=names)
    marked = {value for label in scans.labels for value in boxes(label.data[0])}
    known = {value: name for value, name in names.items() if value in marked}
    if not known:
        raise InputError(f"{cell.id}: no support of this draw marks {some(names.values())}", "use another seed")
    return scans, known


def adaptation_facts(names: Mapping[int, str], known: Mapping[int, str]) -> dict[str, Any]:
    """Entries of the record: unmarked structures, and the peak memory of this process so far."""
    unmarked = [name for value, name in names.items() if value not in known]
    return {"unmarked": unmarked, "peak_gb": peak_memory_gb(), "peak_device_gb": peak_device_memory_gb()}


def adapt_cell(
    cell: Cell, names: Mapping[int, str], cases: Sequence[Case], folder: Path, device: str, progress: Progress,
    *, learners: Mapping[str, LearnerSpec] = LEARNERS,
) -> ScanSegmenter:  # fmt: skip
    """Adapt to the supports of a cell, or load the segmenter that an earlier process adapted.

    Args:
        cell: The cell.
        names: Label value -> name of the structures to learn. Structures that no support marks are ignored.
        cases: The supports.
        folder: Folder of the cell; the segmenter is saved in it.
        device: Where to adapt and segment.
        progress: Receives events.
        learners: Learners that the cell may name.

    Raises:
        InputError: The supports cannot be read, or mark none of the structures.
    """
    kept = folder / KEPT
    if (kept / DESCRIPTION).is_file():
        try:
            return load_segmenter(kept, resolve_device(device), learners)
        except InputError:  # a half-written segmenter: adapt again
            shutil.rmtree(kept)
    scans, known = read_supports(cell, names, cases)
    settings = cell.learner.settings.replace(
        seed=cell.seed, device=device, modality=cell.dataset.modality, labels=known
    )
    adapted = workflow.adapt(scans, settings, progress=progress, learners=learners)
    seconds = {**adapted.record["seconds"], "read": scans.seconds}
    record = {**adapted.record, "seconds": seconds, **adaptation_facts(names, known)}
    VolumeSegmenter(adapted.plan, adapted.segmenter, record).save(kept, overwrite=True)
    # Segment with the saved segmenter, as a resumed cell does, so that both give the same numbers.
    return load_segmenter(kept, resolve_device(device), learners)
