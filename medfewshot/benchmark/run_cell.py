"""Run one cell, from its supports to its record; a killed run resumes with the query where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.benchmark.adaptation import ScanSegmenter, adapt_cell
from medfewshot.benchmark.cells import RECORD, SCORES, Cell, picture_of, read_json, remove_leftovers
from medfewshot.benchmark.config import ALL
from medfewshot.benchmark.environment import describe_run, peak_device_memory_gb, peak_memory_gb
from medfewshot.datasets import read_dataset
from medfewshot.episodes import draw_support
from medfewshot.errors import InputError, some
from medfewshot.evaluation import evaluate_arrays, mean
from medfewshot.io import StructureNames, read_complete_examples, strict_json, write_csv, write_text
from medfewshot.report import save_preview
from medfewshot.types import Case, Progress, Volume


def run_cell(
    cell: Cell,
    data: Path,
    folder: Path,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    adapt: Callable[..., ScanSegmenter] = adapt_cell,
) -> None:
    """Adapt, segment every query, score; leave ``scores.csv`` and then ``cell.json`` in ``folder``.

    Partial work stays in ``folder`` (``segmenter/``, ``cases/``); the next call continues with it.

    Args:
        cell: The cell.
        data: The folder that contains the dataset's folder.
        folder: Folder of the cell.
        device: Where to adapt and segment.
        progress: Receives events.
        adapt: Adapts to the supports, with the arguments of :func:`~medfewshot.benchmark.adaptation.adapt_cell`.

    Raises:
        InputError: Scans cannot be used.
    """
    progress = progress or Progress()
    begun = time.perf_counter()
    names, supports, queries, ignore = find_scans(cell, data)
    segmenter = adapt(cell, names, supports, folder, device, progress)
    check_seen(segmenter.record.get("weights_have_seen", {}), cell, queries)
    records = []
    for number, case in enumerate(queries):
        progress.update(number, len(queries), f"segmenting {case.case_id}")
        records.append(_segmented(cell, case, segmenter, folder, ignore))
    progress.update(len(queries), len(queries), "writing scores")
    write_csv(folder / SCORES, [row for record in records for row in record["rows"]])
    record = _record(cell, supports, segmenter, records, device)
    record["seconds"]["last_process"] = round(time.perf_counter() - begun, 3)
    write_text(folder / RECORD, strict_json(record))
    remove_leftovers(folder)


def find_scans(cell: Cell, data: Path) -> tuple[dict[int, str], list[Case], list[Case], int | None]:
    """Label names, supports and queries of a cell, and the label value of voxels that are not annotated.

    Raises:
        InputError: The dataset lacks what the split names.
    """
    root = data / cell.dataset.source
    dataset = read_dataset(root)
    cases = sorted(dataset.labelled, key=lambda case: (case.image_path.name, str(case.image_path)))
    pool, query = cell.dataset.split
    if max(pool[-1], query[-1]) >= len(cases):
        problem = f"contains {len(cases)} labelled scans, the split reaches to number {max(pool[-1], query[-1])}"
        raise InputError(f"{root}: {problem}", "complete the dataset, or give pool and queries in the benchmark file")
    drawn = pool if cell.shots == ALL else draw_support(pool, cell.shots, cell.seed)
    supports = [cases[index] for index in drawn]
    queries = [cases[index] for index in query][: cell.queries]
    shared = {case.subject_id for case in supports} & {case.subject_id for case in queries}
    if shared:
        raise InputError(f"{root}: subject {min(shared)} is in the support and in the queries", "correct the split")
    return _label_names(cell, dataset.labels, root), supports, queries, dataset.ignore


def _label_names(cell: Cell, known: Mapping[int, str], root: Path) -> dict[int, str]:
    wanted = cell.dataset.labels
    if isinstance(wanted, dict):
        return dict(wanted)
    if wanted is None and not known:
        raise InputError(f"{root}: names no labels", "give them in the benchmark file")
    values = wanted if wanted is not None else tuple(known)
    unknown = sorted(set(values) - set(known)) if known else []
    if unknown:
        raise InputError(f"{root}: has no label {unknown[0]}", f"it has {some(known)}")
    return {value: known.get(value, f"label {value}") for value in values}


def check_seen(seen: Mapping[str, Any], cell: Cell, queries: Sequence[Case]) -> None:
    """Check that weights were not trained on a query.

    Raises:
        InputError: They were.
    """
    subjects = set(seen.get(cell.dataset.source, {}).get("subjects", ()))
    known = sorted({case.subject_id for case in queries} & subjects)
    if known:
        problem = f"was trained on {known[0]}, a query of {cell.dataset.name}"
        raise InputError(f"{cell.learner.settings.weights}: {problem}", "train without the query set")


def _segmented(cell: Cell, case: Case, segmenter: ScanSegmenter, folder: Path, ignore: int | None) -> dict[str, Any]:
    """Rows and seconds of one query, from disk if an earlier process has made them."""
    path = folder / "cases" / f"{case.case_id}.json"
    if path.is_file():
        return read_json(path)
    begun = time.perf_counter()
    if case.label_path is None:
        raise InputError(f"{case.image_path}: has no label, so it cannot be a query", "correct the split")
    examples = read_complete_examples(case, ignore=ignore)
    seconds = {"read": time.perf_counter() - begun, "segment": 0.0, "metrics": 0.0}
    rows: list[dict[str, Any]] = []
    table = StructureNames(segmenter.plan.labels, source="the labelled scans", grows=False)
    for image, reference in examples:
        truth = table.match(reference).data[0]
        name = case.case_id if image.frame is None else f"{case.case_id} frame {image.frame}"
        rows += _scored(cell, replace(case, case_id=name), image, truth, segmenter, folder, seconds)
    record = {"case": case.case_id, "rows": rows, "seconds": {key: round(value, 4) for key, value in seconds.items()}}
    write_text(path, strict_json(record))
    return read_json(path)


def _scored(
    cell: Cell, case: Case, image: Volume, truth: np.ndarray, segmenter: ScanSegmenter, folder: Path,
    seconds: dict[str, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Segment one image, or one frame of a film, and score it; adds to ``seconds``."""
    begun = time.perf_counter()
    segmentation = segmenter.segment(image)
    segmented = time.perf_counter()
    found, names = segmentation.labels, segmenter.plan.labels
    about: dict[str, Any] = {"case_id": case.case_id, "subject_id": case.subject_id, "tolerance_mm": cell.tolerance_mm}
    scores = evaluate_arrays(found, truth, image.spacing_mm, labels=names, **about)
    seconds["segment"] += segmented - begun
    seconds["metrics"] += time.perf_counter() - segmented
    if cell.pictures:
        picture = picture_of(folder, case.case_id)
        picture.parent.mkdir(exist_ok=True)
        title = f"{case.case_id}, {cell.learner.name}, K = {cell.shots}"
        save_preview(picture, image.data, found, image.affine, names, reference=truth, title=title)
    return [
        score.row()
        | {
            "confidence": segmentation.confidence.get(score.label),
            "predicted_dice": segmentation.predicted_dice.get(score.label),
            "flags": "; ".join(segmentation.flags),
            "seconds": round(seconds["read"] + segmented - begun, 3),
        }
        for score in scores
    ]


def _record(
    cell: Cell, supports: Sequence[Case], segmenter: ScanSegmenter, records: Sequence[dict[str, Any]], device: str
) -> dict[str, Any]:
    adaptation = segmenter.record
    learner = dict(adaptation.get("learner", {}))
    sums = {key: sum(record["seconds"][key] for record in records) for key in ("read", "segment", "metrics")}
    seconds = {
        "read_supports": adaptation["seconds"]["read"],
        "plan": adaptation["seconds"]["plan"],
        "adapt": adaptation["seconds"]["adapt"],
        **{f"{key}_queries": round(value, 3) for key, value in sums.items()},
    }
    plan = segmenter.plan
    return {
        "protocol": "volume",
        "id": cell.id,
        "fingerprint": cell.fingerprint,
        "cell": cell.model_dump(mode="json"),
        "supports": [case.case_id for case in supports],
        "queries": len(records),
        "labels": {str(value): name for value, name in plan.labels.items()},
        "unmarked": adaptation.get("unmarked", []),
        "plan": {"spacing_mm": plan.spacing_mm, "patch_size": plan.patch_size},
        "weights_have_seen": adaptation.get("weights_have_seen", {}),
        "dice": mean(mean(row["dice"] for row in one["rows"] if row["dice"] is not None) for one in records),
        "steps": learner.get("steps"),
        "stopped_by": learner.get("stopped_by"),
        "learner": learner,
        "seconds": seconds,
        "peak_gb": {"adapt": adaptation["peak_gb"], "all": _larger(adaptation["peak_gb"], peak_memory_gb())},
        "peak_device_gb": _larger(adaptation["peak_device_gb"], peak_device_memory_gb()),
        "seconds_per_query": round((sums["read"] + sums["segment"]) / len(records), 4),
        **describe_run(device),
        "warnings": list(adaptation.get("warnings", ())),
    }


def _larger(first: float | None, second: float | None) -> float | None:
    """Adaptation may have been in an earlier process."""
    return max((value for value in (first, second) if value is not None), default=None)
