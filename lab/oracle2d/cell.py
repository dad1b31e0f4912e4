"""One fold: adapt to each of three support slices, segment the slices that go with it. 1-way, 1-shot, 2D."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.oracle2d.config import OracleCell
from lab.oracle2d.protocol import Fold, make_folds, pooled_dice, query_chunks, support_slices
from lab.oracle2d.scans import Stack, Statistics, normalise, read_stack, statistics_of
from lab.peers import known_learners
from medfewshot.benchmark.cells import RECORD, SCORES, read_json, remove_leftovers
from medfewshot.benchmark.environment import describe_run, peak_device_memory_gb, peak_memory_gb
from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.io import strict_json, write_csv, write_text
from medfewshot.learners import make_learner, read_seen
from medfewshot.learners.base import Learner, Segmenter
from medfewshot.types import Case, Progress, Support

SLICES_AT_ONCE = 8


def run_oracle_cell(
    cell: OracleCell, data: Path, folder: Path, device: str = "auto", progress: Progress | None = None
) -> None:
    """Leave ``scores.csv`` (one row per query scan and class) and then ``cell.json`` in ``folder``.

    ``data``: the folder that the dataset's folder lies in. Classes that an earlier call has finished are taken from
    ``folder / "labels"``. Raises InputError for scans that cannot be used.
    """
    progress = progress or Progress()
    begun = time.perf_counter()
    names, cases, fold = find_fold(cell, data)
    statistics = _training_statistics(cell, cases, fold)
    support = read_stack(cases[fold.support], cell.dataset.modality)
    queries = [read_stack(cases[index], cell.dataset.modality) for index in fold.query]
    read = time.perf_counter() - begun
    settings = cell.learner.settings.replace(seed=cell.seed, device=device)
    records = []
    for number, value in enumerate(cell.dataset.test_labels):
        progress.update(number, len(cell.dataset.test_labels), names[value])
        path = folder / "labels" / f"{value}.json"
        if not path.is_file():
            learner = make_learner(settings, learners=known_learners())
            found = segment_class(learner, support, queries, value, statistics)
            for row in found["rows"]:
                row["label_name"] = names[value]
            write_text(path, strict_json(found))
        records.append(read_json(path))
    rows = [row for record in records for row in record["rows"]]
    write_csv(folder / SCORES, rows)
    write_text(folder / RECORD, strict_json(_record(cell, support, records, rows, device, read)))
    remove_leftovers(folder)


def find_fold(cell: OracleCell, data: Path) -> tuple[dict[int, str], list[Case], Fold]:
    """Names of the test classes, all labelled cases in file-name order, and the cell's fold of them."""
    root = data / cell.dataset.source
    dataset = read_dataset(root)
    cases = sorted(dataset.labelled, key=lambda case: (case.image_path.name, str(case.image_path)))
    unknown = sorted(set(cell.dataset.test_labels) - set(dataset.labels)) if dataset.labels else []
    if unknown:
        raise InputError(f"{root}: has no label {unknown[0]}; it has {', '.join(map(str, dataset.labels))}")
    fold = make_folds(len(cases))[cell.fold]
    shared = {cases[index].subject_id for index in fold.query} & {
        cases[index].subject_id for index in (fold.support, *fold.training)
    }
    if shared:
        raise InputError(f"{root}: subject {min(shared)} has scans on both sides of fold {cell.fold}")
    return {value: dataset.labels.get(value, f"label {value}") for value in cell.dataset.test_labels}, cases, fold


def segment_class(
    learner: Learner, support: Stack, queries: Sequence[Stack], value: int, statistics: Statistics | None
) -> dict[str, Any]:
    """Rows and seconds of one class: one adaptation per support slice, one row per query scan that shows the class."""
    counts = {query.case_id: np.zeros(3, dtype=np.int64) for query in queries}
    chunks = {query.case_id: query_chunks(query.label, value) for query in queries}
    images = {query.case_id: normalise(query, statistics) for query in queries}
    image = normalise(support, statistics)
    seconds = {"adapt": 0.0, "segment": 0.0, "metrics": 0.0}
    steps: list[int | None] = []
    for part, index in enumerate(support_slices(support.label, value)):
        begun = time.perf_counter()
        segmenter = learner.adapt(slice_support(image[index], support.label[index] == value, support.spacing_mm))
        steps.append(segmenter.record.get("steps"))
        adapted = time.perf_counter()
        for query in queries:
            chosen = chunks[query.case_id][part]
            entered = time.perf_counter()
            predicted = _segment(segmenter, images[query.case_id][chosen])
            segmented = time.perf_counter()
            counts[query.case_id] += _confusion(predicted, query.label[chosen] == value)
            seconds["segment"] += segmented - entered
            seconds["metrics"] += time.perf_counter() - segmented
        seconds["adapt"] += adapted - begun
    rows = [_row(query, value, counts[query.case_id], chunks[query.case_id]) for query in queries]
    return {
        "rows": [row for row in rows if row["slices"]],
        "absent": [row["case_id"] for row in rows if not row["slices"]],
        "steps": steps,
        "seconds": {name: round(spent, 4) for name, spent in seconds.items()},
    }


def slice_support(image: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, float]) -> Support:
    """Return one slice, ``image (X, Y)`` and ``mask (X, Y)``, as a 1-way 1-shot support with the slice as patch."""
    return Support(
        images=(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None],),
        labels=(torch.from_numpy(mask.astype(np.int64)),),
        classes=2,
        patch_size=tuple(int(n) for n in image.shape),
        spacing_mm=spacing_mm,
    )


def _training_statistics(cell: OracleCell, cases: Sequence[Case], fold: Fold) -> Statistics | None:
    if cell.dataset.modality != "CT":
        return None
    return statistics_of(read_stack(cases[index], "CT").image for index in fold.training)


@torch.no_grad()
def _segment(segmenter: Segmenter, images: np.ndarray) -> np.ndarray:
    """Return ``(n, X, Y)`` -> bool ``(n, X, Y)``."""
    masks = []
    for some in np.array_split(images, -(-len(images) // SLICES_AT_ONCE)) if len(images) else []:
        logits = segmenter(torch.from_numpy(some)[:, None])
        masks.append(logits.argmax(1).cpu().numpy() == 1)
    return np.concatenate(masks) if masks else np.zeros(images.shape, dtype=bool)


def _confusion(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """True positives, false positives, false negatives."""
    return np.array([(predicted & true).sum(), (predicted & ~true).sum(), (~predicted & true).sum()], dtype=np.int64)


def _row(query: Stack, value: int, counts: np.ndarray, chunks: Sequence[np.ndarray]) -> dict[str, Any]:
    positives, alarms, misses = (int(count) for count in counts)
    return {
        "case_id": query.case_id,
        "subject_id": query.subject_id,
        "label": value,
        "label_name": "",
        "dice": pooled_dice(positives, alarms, misses),
        "true_positives": positives,
        "false_positives": alarms,
        "false_negatives": misses,
        "slices": sum(len(chunk) for chunk in chunks),
    }


def _record(
    cell: OracleCell,
    support: Stack,
    records: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    device: str,
    read_seconds: float,
) -> dict[str, Any]:
    stages = ("adapt", "segment", "metrics")
    spent = {name: round(sum(record["seconds"].get(name, 0.0) for record in records), 3) for name in stages}
    weights = cell.learner.settings.weights
    slices, adaptations = sum(row["slices"] for row in rows), sum(len(record["steps"]) for record in records)
    return {
        "protocol": "oracle-2d",
        "id": cell.id,
        "fingerprint": cell.fingerprint,
        "cell": cell.model_dump(mode="json"),
        "support": support.case_id,
        "weights_have_seen": dict(read_seen(weights)) if weights is not None else {},
        "absent": {str(v): r["absent"] for v, r in zip(cell.dataset.test_labels, records, strict=True) if r["absent"]},
        "steps": [step for record in records for step in record["steps"]],
        "dice": float(np.mean([row["dice"] for row in rows])) if rows else None,
        "seconds": {"read": round(read_seconds, 3), **spent},
        "seconds_per_adaptation": round(spent["adapt"] / max(1, adaptations), 4),
        "seconds_per_query": round(spent["segment"] / max(1, slices), 5),
        "peak_gb": peak_memory_gb(),
        "peak_device_gb": peak_device_memory_gb(),
        **describe_run(device),
    }
