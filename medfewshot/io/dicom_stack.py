"""Sort DICOM slices by position, and derive their affine or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.geometry import LPS_TO_RAS, SHEAR_TOLERANCE, check_affine

_SAME_POSITION_MM = 0.01
_PARALLEL_TOLERANCE = 1e-3
_ROUNDING_MM = 0.2
"""How far aside two positions lead that are rounded to 0.1 mm in each coordinate."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """One DICOM file, or one frame of an enhanced file.

    Attributes:
        size: Columns, rows, frames.
        spacing_mm: Of the pixels, along a row and along a column. 1 mm if the file does not state it.
        thickness_mm: Of the slice. None if the file does not state it.
        step_mm: The spacing between slices that the file itself states.
        pose: ``(3, 3)`` in LPS: the position in mm, and the unit vectors along which column and row index grow. None if
            the file lacks any of them, or the spacing.
        facts: What can tell acquisitions apart, such as the echo time: see ``dicom_acquisitions``.
        inverted: Whether low values are white (MONOCHROME1). GDCM would invert the values themselves.
        frame: Of an enhanced multi-frame file, from 0. None if the file is the slice.
        rescale: Slope and intercept of a frame. The reader of single-frame files applies their own.
    """

    path: Path
    series: str
    description: str
    modality: str
    sop_class: str
    size: tuple[int, int, int]
    components: int
    has_spacing: bool
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    step_mm: float | None
    pose: np.ndarray | None
    facts: Mapping[str, str] = field(default_factory=dict)
    inverted: bool = False
    frame: int | None = None
    rescale: tuple[float, float] = (1.0, 0.0)

    @property
    def name(self) -> str:
        """File name for messages, with the frame number in a multi-frame file."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1} of {self.path.name}"

    @property
    def placed(self) -> np.ndarray:
        """The pose."""
        if self.pose is None:
            raise InputError(
                f"{self.path}: states no position, orientation or pixel spacing, so it is no slice of a volume",
                "take it out of the folder, or put each image in a folder of its own",
            )
        return self.pose


@dataclass(frozen=True)
class DicomSource:
    """What a volume remembers of its series.

    Attributes:
        slices: In the order of the volume's last axis. Empty for a projection.
        frame_of_reference: UID of the coordinate system, or "".
    """

    slices: tuple[Slice, ...]
    frame_of_reference: str

    @property
    def files(self) -> list[Path]:
        """The files, each once, in the order of their first slice."""
        return list(dict.fromkeys(one.path for one in self.slices))

    @property
    def frames(self) -> list[int]:
        """Index of each slice's frame in its file. Empty for files of one slice."""
        return [one.frame for one in self.slices if one.frame is not None]


def sorted_stack(slices: Sequence[Slice], name: str) -> list[Slice]:
    """Sort the slices along their normal; file names and instance numbers are not reliable."""
    _check_alike(slices, name)
    normal = np.cross(*slices[0].placed[1:])
    return sorted(slices, key=lambda one: float(normal @ one.placed[0]))


def stack_affine(stack: Sequence[Slice], name: str) -> np.ndarray:
    """Compute the RAS affine ``(4, 4)`` from the positions, no two of them equal.

    Raises:
        InputError: Slices are missing, or the stack is tilted.
    """
    first, row, column = stack[0].placed
    normal = np.cross(row, column)
    positions = np.array([one.placed[0] for one in stack])
    _check_gaps(stack, name)
    if len(stack) > 1:
        step = _upright((positions[-1] - first) / (len(stack) - 1), normal, stack)
    else:
        step = normal * (stack[0].thickness_mm or stack[0].step_mm or 1.0)
    width, height = stack[0].spacing_mm
    affine = np.eye(4)
    affine[:3] = np.column_stack([row * width, column * height, step, first])
    check_affine(affine, name)
    _check_straight(positions, step, name)
    return LPS_TO_RAS @ affine


def _upright(step: np.ndarray, normal: np.ndarray, stack: Sequence[Slice]) -> np.ndarray:
    """Return the step along the normal, if the deviation from it is a shear by its angle and rounding by its length."""
    straight = normal * (normal @ step)
    aside = float(np.linalg.norm(step - straight))
    rounding = min(_ROUNDING_MM, 0.25 * min(stack[0].spacing_mm))
    is_rounding = aside > SHEAR_TOLERANCE * np.linalg.norm(step) and aside * (len(stack) - 1) < rounding
    return straight if is_rounding else step


def stack_warnings(stack: Sequence[Slice], affine: np.ndarray) -> tuple[str, ...]:
    """Warn of a guess, and if the files state a smaller slice spacing: every second slice may be missing."""
    if len(stack) == 1 and not (stack[0].thickness_mm or stack[0].step_mm):
        return ("a single slice that states no thickness: 1 mm is a guess",)
    stated, found = stack[0].step_mm, float(np.linalg.norm(affine[:3, 2]))
    if len(stack) > 1 and stated and round(found / stated) >= 2 and abs(found / stated - round(found / stated)) < 0.05:
        warning = f"slices lie {found:.4g} mm apart but the files state {stated:.4g} mm: some may be missing throughout"
        return (f"{warning} the series",)
    return ()


def _check_alike(slices: Sequence[Slice], name: str) -> None:
    sizes = sorted({one.size for one in slices})
    if len(sizes) > 1:
        raise InputError(
            f"{name}: the slices differ in size, {', '.join(f'{x}x{y}' for x, y, _ in sizes)} pixels",
            "put each size in its own folder",
        )
    first = slices[0]
    odd = [one for one in slices if not _parallel(first, one)]
    if odd:
        raise InputError(
            f"{name}: {len(odd)} of {len(slices)} slices are turned or scaled against the others, such as "
            f"{odd[0].name} against {first.name} (a localizer?)",
            "put each orientation in its own folder",
        )


def _parallel(first: Slice, second: Slice) -> bool:
    turned = np.abs(first.placed[1:] - second.placed[1:]).max()
    return bool(turned < _PARALLEL_TOLERANCE) and np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-3)


def count_positions(stack: Sequence[Slice]) -> int:
    """Return the number of different positions of sorted slices along their normal."""
    return int((_gaps(stack) >= _SAME_POSITION_MM).sum()) + 1


def at_same_position(first: Slice, second: Slice) -> bool:
    """Return whether two slices lie at one place."""
    return float(np.linalg.norm(first.placed[0] - second.placed[0])) < _SAME_POSITION_MM


def _gaps(stack: Sequence[Slice]) -> np.ndarray:
    normal = np.cross(*stack[0].placed[1:])
    return np.diff([float(normal @ one.placed[0]) for one in stack])


def _check_gaps(stack: Sequence[Slice], name: str) -> None:
    if len(stack) < 2:
        return
    gaps = _gaps(stack)
    # The lower median: if one of four slices is lost, two gaps remain, and the smaller one is the usual one.
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    # Scanners round positions, but never by half a slice or more.
    tolerance = max(0.01 * usual, min(0.1, 0.25 * usual))
    uneven = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if uneven.size:
        raise _gap_error(stack, gaps, usual, uneven, name)


def _gap_error(stack: Sequence[Slice], gaps: np.ndarray, usual: float, uneven: np.ndarray, name: str) -> InputError:
    at = int(uneven[0])
    between = f"between {stack[at].name} and {stack[at + 1].name}"
    multiples = gaps[uneven] / usual
    lost = np.rint(multiples) - 1
    if (lost >= 1).all() and (np.abs(multiples - lost - 1) < 0.1).all():
        return InputError(
            f"{name}: {int(lost.sum())} slice(s) missing, the first {between}: the gap is {gaps[at]:.4g} mm, usually "
            f"{usual:.4g} mm",
            "export the whole series again",
        )
    return InputError(
        f"{name}: the slice spacing varies from {gaps.min():.4g} to {gaps.max():.4g} mm, first {between} "
        f"({gaps[at]:.4g} mm)",
        "export the series again, or resample it to even slices",
    )


def _check_straight(positions: np.ndarray, step: np.ndarray, name: str) -> None:
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    drift = float(np.linalg.norm(positions - expected, axis=1).max())
    if drift > 0.25 * float(np.linalg.norm(step)):
        raise InputError(
            f"{name}: the slices lie up to {drift:.3g} mm off a straight line, so they are no stack of one volume",
            "put each series in its own folder, or resample to even slices",
        )
