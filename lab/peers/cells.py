"""The segmenter of a cell whose learner may be a peer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.peers import SCAN_PEERS, known_learners
from lab.peers.nnunet import NnUnet, NnUnetSegmenter
from medfewshot.benchmark.adaptation import KEPT, ScanSegmenter, adapt_cell, adaptation_facts, read_supports
from medfewshot.benchmark.cells import Cell, read_json
from medfewshot.devices import resolve_device
from medfewshot.inference import Segmentation
from medfewshot.io import strict_json, write_text
from medfewshot.learners import make_learner
from medfewshot.types import Case, Plan, Progress, Volume

PEER_RECORD = "adaptation.json"
"""Written when a peer is done: without it, its folder is not used."""


@dataclass(frozen=True)
class PeerSegmenter:
    """A peer that takes whole scans, with the same record as any other adaptation."""

    segmenter: NnUnetSegmenter
    record: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        """How scans become network input."""
        return self.segmenter.plan

    def segment(self, volume: Volume) -> Segmentation:
        """Segment one scan on its original grid."""
        return self.segmenter.segment(volume)


def adapt_any(
    cell: Cell, names: Mapping[int, str], cases: Sequence[Case], folder: Path, device: str, progress: Progress
) -> ScanSegmenter:
    """Adapt like :func:`~medfewshot.benchmark.adaptation.adapt_cell`, for learners of the package and for peers."""
    if cell.learner.settings.learner in SCAN_PEERS:
        return _adapt_scans(cell, names, cases, folder / KEPT, device, progress)
    return adapt_cell(cell, names, cases, folder, device, progress, learners=known_learners())


def _adapt_scans(
    cell: Cell, names: Mapping[int, str], cases: Sequence[Case], kept: Path, device: str, progress: Progress
) -> PeerSegmenter:
    if (kept / PEER_RECORD).is_file():
        record = read_json(kept / PEER_RECORD)
        return PeerSegmenter(NnUnetSegmenter(kept, record["learner"], resolve_device(device)), record)
    progress.update(0, 1, "reading supports")
    scans, known = read_supports(cell, names, cases)
    settings = cell.learner.settings.replace(seed=cell.seed, device=device)
    learner = make_learner(settings, progress, known_learners())
    assert isinstance(learner, NnUnet)
    segmenter = learner.adapt_scans(scans.images, scans.labels, known, cell.dataset.modality, kept)
    reported, facts = segmenter.record, adaptation_facts(names, known)
    peaks = [value for value in (facts["peak_gb"], reported["peak_gb"]) if value is not None]
    lost = not math.isfinite(reported.get("final_loss", 0.0))
    record = {
        **facts,
        "learner": reported,
        "seconds": {
            "read": scans.seconds,
            "plan": reported["seconds"]["plan"],
            "adapt": reported["seconds"]["train"],
        },
        "peak_gb": max(peaks) if peaks else None,
        "warnings": [f"{settings.learner}: its loss is not a number; it did not learn"] if lost else [],
    }
    write_text(kept / PEER_RECORD, strict_json(record))
    return PeerSegmenter(segmenter, record)
