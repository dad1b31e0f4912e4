"""Problems that are visible only by comparing cases. Each check is one function in ``CHECKS``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from medfewshot.datasets import Dataset
from medfewshot.inspection.result import CaseRow, Problem

SPACING_RATIO = 2.0
SCALE_RATIO = 10.0
ANISOTROPY = 5.0
Check = Callable[[Dataset, Sequence[CaseRow]], Iterator[Problem]]


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
    by_count: dict[int, list[CaseRow]] = defaultdict(list)
    for row in rows:
        if row.spacing_mm:
            by_count[len(row.spacing_mm)].append(row)
    if len(by_count) > 1:
        two = by_count[2] or rows
        yield Problem("error", two[0].image, "2D and 3D images in one dataset", "Split them into two datasets")
    for group in by_count.values():
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
        found = ", ".join(f"{code} ({count})" for code, count in codes.most_common())
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
