"""The segmenter of a cell: adapted to its supports, or found where an earlier process left it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medfewshot.adaptation import adapt_volumes, make_learner, read_cases
from medfewshot.benchmark.cells import Cell, read_json
from medfewshot.benchmark.environment import peak_device_memory_gb, peak_memory_gb
from medfewshot.benchmark.peers import SCAN_PEERS, NnUnet, NnUnetSegmenter, known_learners, known_segmenters
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, load_segmenter, strict_json
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.io import write_text
from medfewshot.types import Case, Plan, Progress, Volume

KEPT = "segmenter"
PEER_RECORD = "adaptation.json"
"""Written when a peer is done: without it, its folder is not to be used."""


class ScanSegmenter(Protocol):
    """Segments volumes on their native grid; ``record`` says how it came about."""

    @property
    def plan(self) -> Plan: ...
    @property
    def record(self) -> Mapping[str, Any]: ...
    def segment(self, volume: Volume) -> Segmentation: ...


@dataclass(frozen=True)
class PeerSegmenter:
    """A peer that takes whole scans, with the same record as any other adaptation."""

    segmenter: NnUnetSegmenter
    record: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        return self.segmenter.plan

    def segment(self, volume: Volume) -> Segmentation:
        return self.segmenter.segment(volume)


@dataclass(frozen=True)
class _Supports:
    """What a cell's supports are on disk. ``names``: of all labels asked for; ``marked``: values that occur."""

    images: Sequence[Volume]
    labels: Sequence[Volume]
    names: Mapping[int, str]
    marked: frozenset[int]
    read_seconds: float

    @property
    def known(self) -> dict[int, str]:
        return {value: name for value, name in self.names.items() if value in self.marked}

    @property
    def facts(self) -> dict[str, Any]:
        """For the record: also the memory that this process has taken so far."""
        return {
            "unmarked": [name for value, name in self.names.items() if value not in self.marked],
            "peak_gb": peak_memory_gb(),
            "peak_device_gb": peak_device_memory_gb(),
        }


def adapted_segmenter(
    cell: Cell, names: Mapping[int, str], supports: Sequence[Case], folder: Path, device: str, progress: Progress
) -> ScanSegmenter:
    """The segmenter of this cell, from disk where an earlier process left it there.

    A label that no support of this draw marks can be neither learned nor scored: the record names it. Raises
    InputError where the supports mark none.
    """
    peer = cell.learner.learner in SCAN_PEERS
    found = (_load_peer if peer else _load)(folder / KEPT, device)
    if found is not None:
        return found
    progress.update(0, 1, "reading supports")
    read = _read(supports, names)
    if not read.known:
        raise InputError(f"{cell.id}: no support of this draw marks {', '.join(names.values())}; use another seed")
    return (_adapt_peer if peer else _adapt)(cell, read, folder / KEPT, device, progress)


def _read(supports: Sequence[Case], names: Mapping[int, str]) -> _Supports:
    begun = time.perf_counter()
    images, labels = read_cases(supports)
    seconds = round(time.perf_counter() - begun, 3)
    marked = frozenset(int(value) for label in labels for value in np.unique(label.data))
    return _Supports(images, labels, names, marked, seconds)


def _load(kept: Path, device: str) -> ScanSegmenter | None:
    if not (kept / DESCRIPTION).is_file():
        return None
    try:
        return load_segmenter(kept, resolve_device(device), known_segmenters())
    except InputError:
        shutil.rmtree(kept)
        return None


def _adapt(cell: Cell, read: _Supports, kept: Path, device: str, progress: Progress) -> ScanSegmenter:
    entry = cell.learner
    settings = entry.settings(cell.seed, device, modality=cell.dataset.modality, labels=read.known)
    adapted = adapt_volumes(read.images, read.labels, settings, read.names, progress, known_learners())
    record = {**adapted.record, "seconds": {**adapted.seconds, "read": read.read_seconds}, **read.facts}
    VolumeSegmenter(adapted.plan, adapted.segmenter, record).save(kept, known_segmenters())
    # What is segmented with is what a resumed cell would find: the same numbers either way.
    return load_segmenter(kept, resolve_device(device), known_segmenters())


def _load_peer(kept: Path, device: str) -> ScanSegmenter | None:
    if not (kept / PEER_RECORD).is_file():
        return None
    record = read_json(kept / PEER_RECORD)
    return PeerSegmenter(NnUnetSegmenter(kept, record["learner"], resolve_device(device)), record)


def _adapt_peer(cell: Cell, read: _Supports, kept: Path, device: str, progress: Progress) -> ScanSegmenter:
    learner = make_learner(cell.learner.settings(cell.seed, device), progress, known_learners())
    assert isinstance(learner, NnUnet)
    segmenter = learner.adapt_scans(read.images, read.labels, read.known, cell.dataset.modality, kept)
    told, facts = segmenter.record, read.facts
    seconds = {"read": read.read_seconds, "plan": told["seconds"]["plan"], "adapt": told["seconds"]["train"]}
    peaks = [value for value in (facts["peak_gb"], told["peak_gb"]) if value is not None]
    lost = not math.isfinite(told.get("final_loss", 0.0))
    record = {
        **facts,
        "learner": told,
        "seconds": seconds,
        "peak_gb": max(peaks) if peaks else None,
        "warnings": [f"{cell.learner.learner}: its loss is no number; it did not learn"] if lost else [],
    }
    write_text(kept / PEER_RECORD, strict_json(record))
    return PeerSegmenter(segmenter, record)
