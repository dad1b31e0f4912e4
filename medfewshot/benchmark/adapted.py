"""The segmenter of a cell: adapted to its supports, or read from disk if an earlier process left it there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from medfewshot import workflow
from medfewshot.benchmark.cells import Cell
from medfewshot.benchmark.environment import peak_device_memory_gb, peak_memory_gb
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.learners import LEARNERS, LearnerSpec
from medfewshot.structures import boxes
from medfewshot.types import Case, Plan, Progress, Volume
from medfewshot.workflow import LabelledScans

KEPT = "segmenter"
"""Folder of the adapted segmenter inside that of its cell."""


class ScanSegmenter(Protocol):
    """Segments volumes on their native grid; ``record`` describes the adaptation."""

    @property
    def plan(self) -> Plan: ...
    @property
    def record(self) -> Mapping[str, Any]: ...
    def segment(self, volume: Volume) -> Segmentation: ...


@dataclass(frozen=True)
class Supports:
    """The supports of a cell, read from disk.

    Attributes:
        scans: images, label maps, and the names of all structures that the cell asks for.
        marked: label values that occur in the label maps.
    """

    scans: LabelledScans
    marked: frozenset[int]

    @property
    def known(self) -> dict[int, str]:
        """The structures that at least one support marks."""
        return {value: name for value, name in self.scans.names.items() if value in self.marked}

    @property
    def facts(self) -> dict[str, Any]:
        """Entries of the record: unmarked structures, and the peak memory of this process so far."""
        return {
            "unmarked": [name for value, name in self.scans.names.items() if value not in self.marked],
            "peak_gb": peak_memory_gb(),
            "peak_device_gb": peak_device_memory_gb(),
        }


def read_supports(cell: Cell, names: Mapping[int, str], cases: Sequence[Case]) -> Supports:
    """Read the supports of a cell.

    Raises:
        InputError: The supports mark none of the structures in ``names``.
    """
    scans = replace(workflow.read_supports(cases), names=names)
    supports = Supports(scans, frozenset(value for label in scans.labels for value in boxes(label.data[0])))
    if not supports.known:
        raise InputError(f"{cell.id}: no support of this draw marks {', '.join(names.values())}", "use another seed")
    return supports


def adapt_cell(
    cell: Cell,
    names: Mapping[int, str],
    cases: Sequence[Case],
    folder: Path,
    device: str,
    progress: Progress,
    *,
    learners: Mapping[str, LearnerSpec] = LEARNERS,
) -> ScanSegmenter:
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
    found = _load(kept, device, learners)
    if found is not None:
        return found
    read = read_supports(cell, names, cases)
    settings = cell.learner.settings.replace(
        seed=cell.seed, device=device, modality=cell.dataset.modality, labels=read.known
    )
    adapted = workflow.adapt(read.scans, settings, progress=progress, learners=learners)
    record = {**adapted.record, "seconds": {**adapted.record["seconds"], "read": read.scans.seconds}, **read.facts}
    VolumeSegmenter(adapted.plan, adapted.segmenter, record).save(kept)
    # Segment with the saved segmenter, as a resumed cell does, so that both give the same numbers.
    return load_segmenter(kept, resolve_device(device), learners)


def _load(kept: Path, device: str, learners: Mapping[str, LearnerSpec]) -> ScanSegmenter | None:
    if not (kept / DESCRIPTION).is_file():
        return None
    try:
        return load_segmenter(kept, resolve_device(device), learners)
    except InputError:  # a half-written segmenter: adapt again
        shutil.rmtree(kept)
        return None
