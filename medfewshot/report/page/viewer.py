"""What the viewer shows of a case: 8-bit volumes, coarser if the scan is large.

They are written while the scan is in memory, so that the report need not read it again.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from medfewshot.intensities import robust_window
from medfewshot.io import atomic_path
from medfewshot.report.page.content import Viewer

FOLDER = "report"
LARGEST_CASE = 3_000_000
"""Voxels of one case in the page."""
ALL_CASES = 40_000_000
"""Voxels of all cases together: about as many bytes in the page."""
SMALLEST_CASE = 100_000
MOST_FRAMES = 40
"""Frames of a film that the viewer plays."""


def voxel_budget(cases: int) -> int:
    """Number of voxels that each of ``cases`` cases may have."""
    return int(np.clip(ALL_CASES // max(1, cases), SMALLEST_CASE, LARGEST_CASE))


@dataclass(frozen=True)
class DisplayVolumes:
    """A scan and its label maps as the viewer shows them.

    Attributes:
        grey: ``(X, Y, Z)`` uint8; 0 and 255 stand for the two ends of ``window``.
        labels: ``(X, Y, Z)`` uint8 ranks; 0 is background, rank i is the i-th structure of the page.
        affine: ``(4, 4)``, voxel -> RAS mm, of the scan itself.
        shape: voxels of the scan itself along each axis; two for a 2D image, whose arrays have one slice.
        steps: voxels of the scan along each edge of a shown voxel.
        window: intensities of the scan at grey levels 0 and 255.
        uncertainty: ``(X, Y, Z)`` uint8, 255 stands for 1.
        reference: ``(X, Y, Z)`` uint8 ranks.
        film_grey: ``(X, Y, Z, T)`` uint8, frames of the film that the scan is a frame of.
        film_labels: ``(X, Y, Z, T)`` uint8 ranks.
        film_frames: Number of each of these frames in the film.
        paused: Place of the scan among these frames.
    """

    grey: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    window: tuple[float, float]
    uncertainty: np.ndarray | None = None
    reference: np.ndarray | None = None
    film_grey: np.ndarray | None = None
    film_labels: np.ndarray | None = None
    film_frames: np.ndarray | None = None
    paused: int = 0

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel edges of the scan, ``(3,)``."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def grid(self) -> np.ndarray:
        """Affine ``(4, 4)`` of the shown voxels, voxel -> RAS mm."""
        block = np.diag([*map(float, self.steps), 1.0])
        block[:3, 3] = [(step - 1) / 2 for step in self.steps]
        return self.affine @ block

    def coarser(self, budget: int) -> DisplayVolumes:
        """Return the same with at most ``budget`` voxels; without the reference."""
        film, film_labels = self.film_grey, self.film_labels
        frames = 1 if film is None else film.shape[3]
        steps = coarsening(self.grey.shape, self.spacing_mm * self.steps, max(1, budget // frames))
        if max(steps) == 1:
            return self
        doubt = self.uncertainty
        return replace(
            self,
            grey=_bytes(_block_mean(self.grey, steps)),
            labels=_block_ranks(self.labels, steps),
            steps=tuple(a * b for a, b in zip(self.steps, steps, strict=True)),
            uncertainty=None if doubt is None else _bytes(_block_mean(doubt, steps)),
            reference=None,
            film_grey=None if film is None else _each(film, lambda one: _bytes(_block_mean(one, steps))),
            film_labels=None if film_labels is None else _each(film_labels, lambda one: _block_ranks(one, steps)),
        )

    def with_reference(self, labels: np.ndarray, values: Sequence[int]) -> DisplayVolumes:
        """Return the same with a reference on the scan's grid; for ``values`` see :func:`display_volumes`."""
        return replace(self, reference=_block_ranks(ranks_of(_solid(labels), values), self.steps))

    def _structure(self, rank: int | None) -> np.ndarray:
        maps = [labels for labels in (self.labels, self.reference) if labels is not None]
        return next((labels == rank for labels in maps if rank in labels), self.labels)

    def encoded(self, rank: int | None = None) -> Viewer:
        """Encode the volumes as NIfTI files in text.

        Args:
            rank: The structure at which the viewer opens, or at its reference if it is missing; None for all.
        """
        grid, (low, high) = self.grid, self.window
        note = _edges(self.spacing_mm * self.steps)
        if max(self.steps) > 1:
            note += f", coarser than the scan: {_edges(self.spacing_mm)}"
        return Viewer(
            image=_nifti(
                self.grey if self.film_grey is None else self.film_grey, grid, slope=(high - low) / 255, intercept=low
            ),
            labels=_nifti(self.labels if self.film_labels is None else self.film_labels, grid),
            reference=None if self.reference is None else _nifti(self.reference, grid),
            uncertainty=None if self.uncertainty is None else _nifti(self.uncertainty, grid, slope=1 / 255),
            centre_mm=_centre(self._structure(rank), grid),
            note=note,
            frames=() if self.film_frames is None else tuple(self.film_frames.tolist()),
            paused=self.paused,
        )


def display_volumes(
    image: np.ndarray, labels: np.ndarray, affine: np.ndarray, *, values: Sequence[int],
    uncertainty: np.ndarray | None = None, budget: int = LARGEST_CASE, window: tuple[float, float] | None = None,
) -> DisplayVolumes:  # fmt: skip
    """Prepare a case for the viewer.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``. Intensities beyond the 0.5 and 99.5 percentiles are clipped.
        labels: ``(*S)`` label values.
        affine: ``(4, 4)``, voxel -> RAS mm.
        values: label value of rank 1, 2, ...; the first 255 are shown.
        uncertainty: ``(*S)`` in 0..1.
        budget: largest number of voxels; a larger scan is shown coarser.
        window: intensities shown black and white; by default the 0.5 and 99.5 percentiles.
    """
    affine = np.asarray(affine, dtype=np.float64)
    shape, labels, image = labels.shape, _solid(labels), _solid(image)
    steps = coarsening(labels.shape, np.linalg.norm(affine[:3, :3], axis=0), budget)
    low, high = window or robust_window(image)
    return DisplayVolumes(
        grey=_bytes((_block_mean(image, steps) - low) * (255 / (high - low))),
        labels=_block_ranks(ranks_of(labels, values), steps),
        affine=affine,
        shape=shape,
        steps=steps,
        window=(low, high),
        uncertainty=None if uncertainty is None else _bytes(_block_mean(_solid(uncertainty), steps) * 255),
    )


class FilmStrip:
    """Collects what the viewer plays of a film: at most :data:`MOST_FRAMES` frames, coarse if they are large.

    Args:
        count: Number of frames of the film.
        values: Label value of rank 1, 2, ...
    """

    def __init__(self, count: int, values: Sequence[int]) -> None:
        self.numbers = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int))
        self.values = values
        self._frames: dict[int, DisplayVolumes] = {}
        self._window: tuple[float, float] | None = None

    def add(self, number: int, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
        """Keep a frame ``(*S)`` and its labels if the viewer plays it."""
        if number in self.numbers:
            budget = max(1, LARGEST_CASE // len(self.numbers))
            self._window = self._window or robust_window(image)
            self._frames[number] = display_volumes(
                image, labels, affine, values=self.values, budget=budget, window=self._window
            )

    def played(self, number: int) -> DisplayVolumes:
        """Return the volumes of a film that is paused at the frame nearest to ``number``."""
        paused = int(np.abs(self.numbers - number).argmin())
        kept = [self._frames[int(one)] for one in self.numbers]
        return replace(
            kept[paused],
            film_grey=np.stack([one.grey for one in kept], -1),
            film_labels=np.stack([one.labels for one in kept], -1),
            film_frames=self.numbers,
            paused=paused,
        )


def prepared_path(folder: Path, case: str) -> Path:
    """Return the file that :func:`prepare_case` writes for ``case`` into the run's ``folder``."""
    return folder / FOLDER / f"{case}.npz"


def prepare_case(
    folder: Path, case: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray, *, labels_file: Path,
    values: Sequence[int], uncertainty: np.ndarray | None = None, film: DisplayVolumes | None = None,
) -> None:  # fmt: skip
    """Write the :func:`display_volumes` of a case into ``folder/report``.

    Call it after ``labels_file`` is written: if that file changes later (a correction by hand), the report ignores the
    prepared volumes, and reads the scan and its labels again.
    """
    volumes = film or display_volumes(image, labels, affine, values=values, uncertainty=uncertainty)
    arrays = {name: array for name, array in vars(volumes).items() if array is not None}
    with atomic_path(prepared_path(folder, case)) as temporary:
        np.savez_compressed(temporary, labels_digest=_digest(labels_file), **arrays)


def load_case(folder: Path, case: str, *, labels_file: Path) -> DisplayVolumes | None:
    """Return the volumes of :func:`prepare_case`; None if they are missing, damaged or older than the labels."""
    try:
        with np.load(prepared_path(folder, case), allow_pickle=False) as file:
            arrays: dict[str, Any] = dict(file)
        if str(arrays.pop("labels_digest")) != _digest(labels_file):
            return None
        arrays |= {name: tuple(arrays[name].tolist()) for name in ("shape", "steps", "window")}
        return DisplayVolumes(**{**arrays, "paused": int(arrays.get("paused", 0))})
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None


def _each(frames: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Change each frame of ``(X, Y, Z, T)``."""
    return np.stack([change(frames[..., number]) for number in range(frames.shape[3])], -1)


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def coarsening(shape: Sequence[int], spacing_mm: Sequence[float] | np.ndarray, budget: int) -> tuple[int, ...]:
    """Voxels per block along each axis: the finest axis is made coarser until the volume fits."""
    steps = [1, 1, 1]
    while np.prod([-(-n // s) for n, s in zip(shape, steps, strict=True)]) > budget:
        sizes = [spacing_mm[i] * steps[i] if shape[i] > steps[i] else np.inf for i in range(3)]
        steps[int(np.argmin(sizes))] += 1
    return tuple(steps)


def _solid(array: np.ndarray) -> np.ndarray:
    """Return a 2D image as a volume of one slice."""
    return array if array.ndim == 3 else array[..., None]


def _edges(lengths: np.ndarray) -> str:
    return " × ".join(f"{length:.2g}" for length in lengths) + " mm"


def _centre(ranks: np.ndarray, affine: np.ndarray) -> tuple[float, float, float]:
    """Return the labelled voxel nearest to the middle of all labelled voxels, or the middle of the scan, in RAS mm."""
    marked = np.argwhere(ranks)
    voxel = (np.array(ranks.shape) - 1) / 2
    if len(marked):
        voxel = marked[np.square(marked - marked.mean(0)).sum(1).argmin()]
    x, y, z = (affine[:3, :3] @ voxel + affine[:3, 3]).round(3).tolist()
    return x, y, z


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).round().astype(np.uint8)


def _block_mean(image: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    import torch
    from torch.nn.functional import avg_pool3d

    voxels = torch.from_numpy(np.ascontiguousarray(np.nan_to_num(image.astype(np.float32, copy=False))))
    return avg_pool3d(voxels[None], tuple(steps), ceil_mode=True, count_include_pad=False)[0].numpy()


def ranks_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Return where each of ``values`` is in ``labels (*S)``: the i-th becomes i, from 1 to 255; uint8."""
    ranks = np.zeros(labels.shape, np.uint8)
    for rank, value in enumerate(values[:255], start=1):
        ranks[labels == value] = rank
    return ranks


def _block_ranks(ranks: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Rank of the voxel in the middle of each block; a structure that this would lose marks all blocks it touches."""
    middle = [np.minimum(np.arange(0, n, step) + step // 2, n - 1) for n, step in zip(ranks.shape, steps, strict=True)]
    small = ranks[np.ix_(*middle)]
    for rank in set(np.unique(ranks)) - set(np.unique(small)) - {0}:
        small[tuple((np.argwhere(ranks == rank) // np.asarray(steps)).T)] = rank
    return small


def _nifti(data: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> str:
    import nibabel as nib

    image: nib.Nifti1Image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, intercept)
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
