"""Measurements of annotated scans, and checks of each case and of all cases together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from medfewshot.datasets import Dataset, ignored_value
from medfewshot.errors import InputError, counted, some
from medfewshot.inspection.result import CaseRow, Inspection, LabelStats, Problem
from medfewshot.intensities import constant_channels, is_constant, looks_like_hounsfield, subsample, voxel_digest
from medfewshot.io import Film, StructureNames, in_frame_of, open_scan, read_examples, read_label
from medfewshot.structures import TINY_VOXELS, mark_ignored, structures, voxel_size
from medfewshot.types import Case, Progress, Volume

_SAMPLES = 200_000
SPACING_RATIO = 2.0
SCALE_RATIO = 10.0
ANISOTROPY = 5.0
Check = Callable[[Dataset, Sequence[CaseRow]], Iterator[Problem]]


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Read every case once and report its contents and problems; a bad file does not stop the rest.

    Memory does not grow with the cohort, because only numbers are kept.
    """
    progress = progress or Progress()
    rows: list[CaseRow] = []
    problems: list[Problem] = []
    table = StructureNames(dataset.labels, fixed=True)
    for done, case in enumerate(dataset.cases):
        progress.update(done, len(dataset.cases), case.case_id)
        row, found = _measure_case(case, dataset, table)
        rows.append(row)
        problems += found
    progress.update(len(dataset.cases), len(dataset.cases), "")
    dataset = replace(dataset, labels=dataset.labels or table.names)
    problems += [problem for check in CHECKS for problem in check(dataset, rows)]
    problems.sort(key=lambda problem: problem.severity != "error")
    return Inspection(dataset.name, dict(dataset.labels), tuple(rows), tuple(problems))


def _measure_case(case: Case, dataset: Dataset, table: StructureNames) -> tuple[CaseRow, list[Problem]]:
    """Measure one case. A file that cannot be read gives a problem and a row without its numbers."""
    label_file = str(case.label_path) if case.label_path else None
    row = CaseRow(case.case_id, case.subject_id, str(case.image_path), label_file)
    problems: list[Problem] = []
    image = label = scan = None
    try:
        scan = open_scan(case.image_paths, channels=case.channels)
        image = scan.first if isinstance(scan, Film) else scan
        row = replace(row, **_image_numbers(image, case, dataset))
        problems += _image_problems(image, case.image_path)
    except InputError as error:
        problems.append(_problem_from(error, case.image_path))
    if case.label_path is None:
        return row, problems
    try:
        if isinstance(scan, Film):
            label = read_examples(case, ignore=dataset.ignore)[0][1]
        else:
            label = read_label(case.label_path, image=image)
        label = mark_ignored(label, ignored_value(label.names) if dataset.ignore is None else dataset.ignore)
        label = label if image is None else in_frame_of(image, label)
        label = table.match(label)
        row = replace(row, labels=label_stats(label))
    except InputError as error:
        problems.append(_problem_from(error, case.label_path))
        row = row if label is None else replace(row, labels=label_stats(label))
    if label is not None:
        problems += _label_problems(row, label, dataset)
    return replace(row, usable=not any(problem.severity == "error" for problem in problems)), problems


def _problem_from(error: InputError, path: Path) -> Problem:
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
        "spacing_mm": image.spacing_mm if image.has_spacing else None,
        "orientation": "".join(nib.aff2axcodes(image.affine)) if image.spatial_dims == 3 else None,
        "intensity": (low, float(p01), float(median), float(p99), high),
        "modality": case.modality or dataset.modality or image.modality or _guess_modality(image),
        "image_hash": voxel_digest(image.data),
    }


def _guess_modality(image: Volume) -> str | None:
    """Judge the intensities as planning does. Everything else in 3D is called MR; other pictures stay unnamed."""
    if any(looks_like_hounsfield([channel]) for channel in image.data):
        return "CT"
    return "MR" if image.spatial_dims == 3 else None


def label_stats(label: Volume) -> tuple[LabelStats, ...]:
    """Measure each structure of a label map ``(1, *S)``."""
    known = label.spatial_dims == 3 and label.has_spacing
    voxel_ml = voxel_size(label.affine, label.spatial_dims) / 1000
    return tuple(
        LabelStats(
            value=value,
            voxels=structure.voxels,
            ml=structure.voxels * voxel_ml if known else None,
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
    if sum(stats.voxels for stats in row.labels) == np.count_nonzero(label.data >= 0):
        way_out = "Make the background 0 and export again"
        problems.append(Problem("error", file, "the label covers the whole image", way_out))
    for stats in row.labels:
        name = label.names.get(stats.value) or dataset.labels.get(stats.value, f"label {stats.value}")
        if stats.voxels <= TINY_VOXELS:
            way_out = "Check that it is meant; if so, keep the spacing fine"
            text = f"{name} has only {counted(stats.voxels, 'voxel')}"
            problems.append(Problem("warning", file, text, way_out))
        if dataset.labels and stats.value not in {**dataset.labels, **label.names}:
            text = f"label value {stats.value} has no name in the data set ({stats.voxels} voxels)"
            way_out = f"Name it, or correct the label: adapt learns it under the name 'label {stats.value}'"
            problems.append(Problem("warning", file, text, way_out))
    return problems


def _unlabelled(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    for note in dataset.notes:
        yield Problem("warning", dataset.name, note)
    without = [row for row in rows if row.label is None]
    if without:
        way_out = "They can be queries only"
        yield Problem("warning", without[0].image, f"{_cases(without)} without a label", way_out)


def _missing_labels(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    with_foreground = [row for row in rows if row.labels]
    values = {*dataset.labels, *(stats.value for row in with_foreground for stats in row.labels)}
    for value in sorted(values):
        name = dataset.labels.get(value, f"label {value}")
        lacking = [row for row in with_foreground if value not in {stats.value for stats in row.labels}]
        if lacking and len(lacking) == len(with_foreground):
            way_out = "Remove the name, or check the label values"
            yield Problem("warning", dataset.name, f"{name} ({value}) is named but occurs in no case", way_out)
        elif lacking:
            text = f"{name} ({value}) does not occur in {_cases(lacking)}"
            way_out = "Annotate it there if it is visible: unlabelled structures teach that they are background"
            yield Problem("warning", str(lacking[0].label), text, way_out)


def _spacings(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    flat = [row for row in rows if row.shape and len(row.shape) == 2]
    deep = [row for row in rows if row.shape and len(row.shape) == 3]
    if flat and deep:
        yield Problem("error", flat[0].image, "2D and 3D images in one dataset", "Split them into two datasets")
    for group in filter(None, ([row for row in one if row.spacing_mm] for one in (flat, deep))):
        spacing = np.array([sorted(row.spacing_mm or ()) for row in group])
        ratio = spacing.max(axis=0) / spacing.min(axis=0)
        if ratio.max() > SPACING_RATIO:
            axis = int(ratio.argmax())
            fine, coarse = group[int(spacing[:, axis].argmin())], group[int(spacing[:, axis].argmax())]
            text = f"spacing {_mm(coarse)} mm, but {_mm(fine)} mm in {fine.image}"
            yield Problem("warning", coarse.image, text, "Choose supports with the spacing of the scans to segment")


def _anisotropy(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    thick = [row for row in rows if row.spacing_mm and max(row.spacing_mm) / min(row.spacing_mm) >= ANISOTROPY]
    if thick:
        worst = max(thick, key=lambda row: max(row.spacing_mm or (1,)) / min(row.spacing_mm or (1,)))
        text = f"very anisotropic voxels in {_cases(thick)}, up to {_mm(worst)} mm"
        yield Problem("warning", worst.image, text, "Nothing to do; structures thinner than a slice may be missed")


def _orientations(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    codes = Counter(row.orientation for row in rows if row.orientation)
    if len(codes) > 1:
        rare = min(codes, key=lambda code: codes[code])
        odd = next(row for row in rows if row.orientation == rare)
        found = some([f"{code} ({count})" for code, count in codes.most_common()])
        way_out = "Nothing to do if the headers are right: scans are turned to the supports' frame"
        yield Problem("warning", odd.image, f"orientations differ: {found}", way_out)


def _duplicates(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    by_hash: dict[str, list[CaseRow]] = defaultdict(list)
    for row in rows:
        if row.image_hash and row.shape:
            by_hash[f"{row.image_hash} {row.shape}"].append(row)
    for first, *others in (group for group in by_hash.values() if len(group) > 1):
        for other in others:
            way_out = "Remove one: a copy among the queries makes results look better than they are"
            yield Problem("warning", other.image, f"the same image as {first.image}", way_out)


def _intensities(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    seen = [row for row in rows if row.intensity]
    scales = np.array([row.intensity[3] - row.intensity[1] for row in seen if row.intensity])
    if len(seen) < 3:
        return
    typical = float(np.median(scales))
    far = (scales > SCALE_RATIO * typical) | (scales * SCALE_RATIO < typical)
    odd = [row for row, is_far in zip(seen, far, strict=True) if is_far]
    if odd:
        text = f"intensity range more than {SCALE_RATIO:g} times off the others' ({typical:.4g}) in {_cases(odd)}"
        way_out = "For CT check rescale slope and units (HU); MR scans are normalised one by one"
        yield Problem("warning", odd[0].image, text, way_out)


def _swapped_sides(dataset: Dataset, rows: Sequence[CaseRow]) -> Iterator[Problem]:
    """Two lateral structures whose order from left to right differs from other cases, or from their names."""
    values = sorted({stats.value for row in rows for stats in row.labels})
    for first, second in combinations(values, 2):
        offsets = [(row, offset) for row in rows if (offset := _offset_mm(row, first, second)) is not None]
        lateral = [abs(x) > 10 and abs(x) > max(abs(y), abs(z)) for _, (x, y, z) in offsets]
        if not offsets or not all(lateral):
            continue
        names = (dataset.labels.get(first, f"label {first}"), dataset.labels.get(second, f"label {second}"))
        expected = _named_side(*names) or (len(offsets) > 2 and np.sign(sum(np.sign(o[0]) for _, o in offsets)))
        wrong = [row for row, offset in offsets if expected and np.sign(offset[0]) != expected]
        if wrong:
            text = f"{names[0]} and {names[1]} have changed sides in {_cases(wrong)}"
            way_out = "Swap the two values, or correct the header if the scan is mirrored"
            yield Problem("warning", str(wrong[0].label), text, way_out)


def _offset_mm(row: CaseRow, first: int, second: int) -> np.ndarray | None:
    found = {stats.value: stats.centroid_mm for stats in row.labels}
    if row.orientation is None or first not in found or second not in found:
        return None
    return np.subtract(found[second], found[first])


def _named_side(first: str, second: str) -> int:
    """Sign of x (RAS, to the right) from first to second if the names differ by left and right only, else 0."""
    first, second = first.lower(), second.lower()
    if "left" in first and first.replace("left", "right") == second:
        return 1
    return -1 if "right" in first and first.replace("right", "left") == second else 0


def _cases(rows: Sequence[CaseRow]) -> str:
    if len(rows) == 1:
        return f"case {rows[0].case_id}"
    named = ", ".join(row.case_id for row in rows[:3])
    return f"{len(rows)} cases ({named}{', ...' if len(rows) > 3 else ''})"


def _mm(row: CaseRow) -> str:
    return "x".join(f"{length:.3g}" for length in row.spacing_mm or ())


CHECKS: tuple[Check, ...] = (
    _unlabelled,
    _missing_labels,
    _duplicates,
    _intensities,
    _spacings,
    _anisotropy,
    _orientations,
    _swapped_sides,
)
