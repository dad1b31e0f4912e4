"""Three functions for notebooks and scripts: adapt, segment, evaluate; on paths, arrays and MONAI MetaTensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.adaptation import adapt_volumes, read_cases
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, load_segmenter
from medfewshot.datasets import read_dataset
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_arrays, evaluate_folders
from medfewshot.inference import InferenceOptions, Segmentation
from medfewshot.io import check_affine, check_same_grid, in_frame_of, read_image, read_label
from medfewshot.metrics import DEFAULT_TOLERANCE_MM
from medfewshot.settings import AUTO, AdaptSettings
from medfewshot.types import Progress, Volume

PathOrArray = Any
"""A path, a NumPy array or torch tensor ``(*S)`` or ``(C, *S)``, a MONAI MetaTensor ``(C, *S)``, or a Volume."""


def adapt(
    support: str | PathLike[str] | Sequence[tuple[PathOrArray, PathOrArray]],
    *,
    learner: str = AUTO,
    steps: int | None = None,
    budget_seconds: float | None = 240.0,
    seed: int = 0,
    device: str = "auto",
    weights: str | PathLike[str] | None = AUTO,
    labels: Mapping[int, str] | Sequence[int | str] | None = None,
    modality: str | None = None,
    spacing_mm: float | None = None,
    fast: bool = False,
    progress: Progress | None = None,
) -> VolumeSegmenter:
    """Adapt to a handful of labelled scans.

    Args:
        support: a folder in one of the layouts of :func:`medfewshot.datasets.read_dataset`, or (image, label) pairs.
        learner: a key of :data:`medfewshot.learners.LEARNERS`; ``"auto"`` is ``hybrid`` in 3D and ``finetune`` in 2D.
        steps: optimiser steps; None takes the learner's own number.
        budget_seconds: upper bound on adaptation time; None is no limit.
        weights: a start that meta-training made: a folder, or the name of weights that come with the package.
            ``"auto"`` takes the package's own where they fit (3D, one channel; finetune and hybrid); None begins at
            random.
        labels: structures to learn: label values, a mapping from values to names, or the names that a dataset folder
            gives them; None learns all that the supports hold.
        modality: ``"CT"`` or ``"MR"`` where neither header nor intensities tell.
        spacing_mm: in-plane resolution to work at; None derives it from the supports.
        fast: a grid 1.7 times as coarse and a quarter of the steps.

    Returns:
        A :class:`~medfewshot.bundle.VolumeSegmenter`: pass it to :func:`segment`, or ``.save(folder)`` it.

    Raises:
        InputError: a file, pair or setting that cannot be used; the message names it and a way out.
    """
    images, masks, names = _read_support(support, modality)
    settings = AdaptSettings(
        learner=learner,
        steps=steps,
        budget_seconds=budget_seconds,
        seed=seed,
        device=device,
        weights=None if weights is None else str(weights),
        fast=fast,
        modality=modality,
        spacing_mm=spacing_mm,
        labels=labels,
    )
    adapted = adapt_volumes(images, masks, settings, names, progress)
    return VolumeSegmenter(adapted.plan, adapted.segmenter, adapted.record)


def segment(
    image: PathOrArray,
    segmenter_or_support: VolumeSegmenter | str | PathLike[str] | Sequence[tuple[PathOrArray, PathOrArray]],
    *,
    probabilities: bool = False,
    uncertainty: bool = False,
    device: str = "auto",
    **adapt_options: Any,
) -> Segmentation:
    """Segment one volume; labels come back on its own grid with the supports' own label values.

    ``segmenter_or_support``: what :func:`adapt` returned (it stays on its device), the folder it was saved in, or a
    support as in :func:`adapt` (with ``adapt_options``). Raises InputError for input that cannot be used.
    """
    volume = as_volume(image)
    segmenter = _segmenter(segmenter_or_support, device, adapt_options)
    return segmenter.segment(volume, InferenceOptions(probabilities=probabilities, uncertainty=uncertainty))


def evaluate(
    predictions: PathOrArray,
    references: PathOrArray,
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> Evaluation:
    """Score predictions against references: Dice, HD95, surface distance and surface Dice per case and label.

    Two paths (folders or files), or two label maps (arrays, MetaTensors, Volumes) of one case. ``spacing_mm`` is for
    plain arrays, 1 mm where it is not given. Raises InputError, GridMismatchError where grids differ.
    """
    if isinstance(predictions, (str, PathLike)) and isinstance(references, (str, PathLike)):
        return evaluate_folders(Path(predictions), Path(references), labels=labels, tolerance_mm=tolerance_mm)
    prediction, reference = as_volume(predictions, label=True), as_volume(references, label=True)
    check_same_grid(prediction, reference)
    spacing = tuple(float(s) for s in spacing_mm) if spacing_mm is not None else reference.spacing_mm
    scores = evaluate_arrays(prediction.data[0], reference.data[0], spacing, labels=labels, tolerance_mm=tolerance_mm)
    return Evaluation(tuple(scores), (), tolerance_mm, 0)


def as_volume(value: PathOrArray, *, label: bool = False) -> Volume:
    """A :class:`~medfewshot.types.Volume` from a path, array, tensor, MetaTensor or Volume.

    An array or tensor of 2 or 3 axes is ``(*S)``, one of 4 is ``(C, *S)``, a MetaTensor is always ``(C, *S)``. Only
    MetaTensors carry an affine; the others lie at 1 mm. Raises InputError for what could not be segmented.
    """
    if isinstance(value, Volume):
        if not label and not np.isfinite(value.data).all():
            raise InputError(f"{value.name}: holds NaN or infinite values; replace them before segmenting")
        return value
    if isinstance(value, (str, PathLike)):
        return read_label(Path(value)) if label else read_image(Path(value))
    affine = np.eye(4)
    if hasattr(value, "affine") and hasattr(value, "as_tensor"):
        affine = _square_affine(np.asarray(value.affine, dtype=np.float64))
        check_affine(affine, "array")
        data = value.as_tensor().detach().cpu().numpy()
    else:
        # NumPy has no bfloat16
        plain = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
        data = plain.detach().cpu().numpy() if hasattr(plain, "detach") else np.asarray(plain)
        data = data if data.ndim == 4 else data[None]
    if data.ndim not in (3, 4) or 0 in data.shape:
        raise InputError(f"array of shape {data.shape}: give (X, Y), (X, Y, Z) or (C, X, Y, Z), none of them 0")
    if not np.isfinite(data).all():
        raise InputError("array: holds NaN or infinite values; replace them before segmenting")
    if label:
        if data.shape[0] != 1 or data.min() < 0 or not np.array_equal(data, np.rint(data)):
            raise InputError("label array: labels are whole numbers from 0 up, in one channel")
        if data.max() > np.iinfo(np.int32).max:
            raise InputError(f"label array: label {data.max()} is too large; renumber the labels (below 2^31)")
        return Volume(data.astype(np.int32), affine)
    return Volume(np.ascontiguousarray(data, dtype=np.float32), affine)


def _square_affine(affine: np.ndarray) -> np.ndarray:
    if affine.shape == (4, 4):
        return affine
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full


def _read_support(support: Any, modality: str | None) -> tuple[list[Volume], list[Volume], Mapping[int, str]]:
    if isinstance(support, (str, PathLike)):
        dataset = read_dataset(Path(support))
        images, masks = read_cases(dataset.labelled)
        return images, masks, dataset.labels
    pairs = list(support)
    images = [as_volume(image) for image, _ in pairs]
    masks = [as_volume(mask, label=True) for _, mask in pairs]
    return images, [in_frame_of(image, mask) for image, mask in zip(images, masks, strict=True)], {}


def _segmenter(given: Any, device: str, adapt_options: dict[str, Any]) -> VolumeSegmenter:
    saved = isinstance(given, (str, PathLike)) and (Path(given) / DESCRIPTION).is_file()
    if not saved and not isinstance(given, VolumeSegmenter):
        return adapt(given, device=device, **adapt_options)
    if adapt_options:
        raise TypeError(f"{', '.join(adapt_options)}: the segmenter is adapted already; give these to adapt()")
    return load_segmenter(Path(given), resolve_device(device)) if saved else given
