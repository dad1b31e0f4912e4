"""Measurements of one case, and the problems that are visible without looking at other cases."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from medfewshot.datasets import Dataset
from medfewshot.errors import InputError
from medfewshot.inspection.result import CaseRow, LabelStats, Problem
from medfewshot.intensities import constant_channels, is_constant, looks_like_hounsfield, subsample
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.structures import TINY_VOXELS, structures, voxel_size
from medfewshot.types import Case, Volume

_SAMPLES = 200_000


def measure_case(case: Case, dataset: Dataset) -> tuple[CaseRow, list[Problem]]:
    """Measure one case. A file that cannot be read gives a problem and a row without its numbers."""
    label_file = str(case.label_path) if case.label_path else None
    row = CaseRow(case.case_id, case.subject_id, str(case.image_path), label_file)
    problems: list[Problem] = []
    image = label = None
    try:
        image = read_image(case.image_paths)
        row = replace(row, **_image_numbers(image, case, dataset))
        problems += _image_problems(image, case.image_path)
    except InputError as error:
        problems.append(problem_from(error, case.image_path))
    if case.label_path is None:
        return row, problems
    try:
        label = read_label(case.label_path)
        row = replace(row, labels=label_stats(label))
        if image is not None:
            check_same_grid(image, label)
    except InputError as error:
        problems.append(problem_from(error, case.label_path))
    if label is not None:
        problems += _label_problems(row, label, dataset)
    return replace(row, usable=not any(problem.severity == "error" for problem in problems)), problems


def problem_from(error: InputError, path: Path) -> Problem:
    """Return an error as a problem of the file at ``path``."""
    return Problem("error", str(path), error.problem.removeprefix(f"{path}: "), error.remedy)


def _image_problems(image: Volume, path: Path) -> list[Problem]:
    problems = [Problem("warning", str(path), text) for text in image.warnings]
    if constant := constant_channels(image.data):
        severity: Literal["error", "warning"] = "error" if is_constant(image.data) else "warning"
        problems.append(Problem(severity, str(path), constant, "Export the image again"))
    return problems


def _image_numbers(image: Volume, case: Case, dataset: Dataset) -> dict[str, Any]:
    p01, median, p99 = np.percentile(subsample(image.data, _SAMPLES), (1, 50, 99))
    low, high = float(image.data.min()), float(image.data.max())
    return {
        "shape": image.spatial_shape,
        "channels": image.data.shape[0],
        "spacing_mm": image.spacing_mm,
        "orientation": "".join(nib.aff2axcodes(image.affine)) if image.spatial_dims == 3 else None,
        "intensity": (low, float(p01), float(median), float(p99), high),
        "modality": case.modality or dataset.modality or image.modality or _guess_modality(image),
        "image_hash": hashlib.blake2b(image.data.tobytes(), digest_size=16).hexdigest(),
    }


def _guess_modality(image: Volume) -> str | None:
    """Judge the intensities as planning does. Everything else in 3D is called MR; other pictures stay unnamed."""
    if any(looks_like_hounsfield([channel]) for channel in image.data):
        return "CT"
    return "MR" if image.spatial_dims == 3 else None


def label_stats(label: Volume) -> tuple[LabelStats, ...]:
    """Measure each structure of a label map ``(1, *S)``."""
    flat = label.spatial_dims == 2
    voxel_ml = voxel_size(label.affine, label.spatial_dims) / 1000
    return tuple(
        LabelStats(
            value=value,
            voxels=structure.voxels,
            ml=None if flat else structure.voxels * voxel_ml,
            components=len(structure.component_voxels),
            touches_border=any(
                side.start == 0 or side.stop == n for side, n in zip(structure.box, label.spatial_shape, strict=True)
            ),
            centroid_mm=structure.centroid_mm(label.affine),
        )
        for value, structure in structures(label.data[0]).items()
    )


def _label_problems(row: CaseRow, label: Volume, dataset: Dataset) -> list[Problem]:
    file = str(row.label)
    if not row.labels:
        way_out = "Export the annotation again; a scan without the structure can only be a query"
        return [Problem("error", file, "no foreground: every voxel is 0", way_out)]
    problems = [Problem("warning", file, text) for text in label.warnings]
    if sum(stats.voxels for stats in row.labels) == label.data.size:
        way_out = "Make the background 0 and export again"
        problems.append(Problem("error", file, "the label covers the whole image", way_out))
    for stats in row.labels:
        name = dataset.labels.get(stats.value, f"label {stats.value}")
        if stats.voxels <= TINY_VOXELS:
            way_out = "Check that it is meant; if so, keep the spacing fine"
            text = f"{name} has only {stats.voxels} voxel{'s' if stats.voxels > 1 else ''}"
            problems.append(Problem("warning", file, text, way_out))
        if dataset.labels and stats.value not in dataset.labels:
            text = f"label value {stats.value} has no name ({stats.voxels} voxels)"
            problems.append(Problem("warning", file, text, "Name it, or correct the label; it counts as background"))
    return problems
