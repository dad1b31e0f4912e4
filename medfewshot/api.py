"""Functions for notebooks and scripts: adapt, segment, evaluate; on paths, arrays and images of other packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot import workflow
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_pairs
from medfewshot.inference import Segmentation
from medfewshot.io import NO_SPACING, VolumeLike, as_volume, open_film
from medfewshot.metrics import check_label_maps
from medfewshot.planning import named_labels
from medfewshot.settings import AdaptSettings, EvaluateSettings, InferenceSettings, SegmentSettings
from medfewshot.types import Progress, Volume
from medfewshot.workflow import SegmentedFilm, SupportSource


def adapt(
    support: SupportSource,
    *,
    cohort: Iterable[VolumeLike] = (),
    settings: AdaptSettings | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> VolumeSegmenter:
    """Adapt to a handful of labelled scans.

    Args:
        support: A folder in one of the layouts of :func:`medfewshot.datasets.read_dataset`, or (image, label) pairs of
            paths, arrays or MetaTensors.
        cohort: Some of the scans that are to be segmented: training imitates their contrast if it differs.
        settings: How to adapt; default: :class:`~medfewshot.settings.AdaptSettings`.
        progress: Receives events of the stages; may cancel.
        overrides: Single settings, e.g. ``learner="atlas", labels={6: "spleen"}``: the fields of
            :class:`~medfewshot.settings.AdaptSettings`. They win over ``settings``.

    Returns:
        A :class:`~medfewshot.bundle.VolumeSegmenter`: pass it to :func:`segment`, or ``.save(folder)`` it.

    Raises:
        InputError: A file, pair or setting cannot be used; the message names it and a remedy.
    """
    settings = (settings or AdaptSettings()).replace(**overrides)
    scans = workflow.read_supports(support, frame=settings.frame, progress=progress)
    return workflow.adapt(scans, settings, cohort=map(as_volume, cohort), progress=progress)


def segment(
    image: VolumeLike,
    segmenter_or_support: VolumeSegmenter | SupportSource,
    *,
    settings: InferenceSettings | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **overrides: Any,
) -> Segmentation:
    """Segment one volume; labels come back on its own grid with the supports' own label values.

    Args:
        image: A path, array, tensor, Volume, or image of MONAI, TorchIO, nibabel or SimpleITK. Several volumes in one
            file are its channels.
        segmenter_or_support: What :func:`adapt` returned (it stays on its device), the folder it was saved in, or a
            support as in :func:`adapt`.
        settings: How to segment; default: :class:`~medfewshot.settings.InferenceSettings`.
        device: Where to adapt, or where to load a saved segmenter.
        progress: Receives events; may cancel.
        overrides: Single settings, e.g. ``uncertainty=True``; with a support also those of :func:`adapt`.

    Raises:
        InputError: An input or setting cannot be used.
        TypeError: Settings of the adaptation are given for a segmenter that is adapted already.
    """
    film = open_film(image) if isinstance(image, (str, PathLike)) else None
    volume = as_volume(image) if film is None else film.as_channels()
    own = {name: overrides.pop(name) for name in tuple(overrides) if name in InferenceSettings.model_fields}
    segmenter = get_segmenter(segmenter_or_support, query=volume, device=device, progress=progress, **overrides)
    if film is not None and film.count != segmenter.channels:
        problem = f"{film.name}: contains {film.count} volumes, and {segmenter.channels} channel(s) are needed"
        raise InputError(problem, "use segment_film if they are frames")
    result = segmenter.segment(volume, (settings or InferenceSettings()).replace(**own), progress)
    return replace(result, warnings=(*volume.warnings, *result.warnings))


def segment_film(
    film: str | PathLike[str],
    segmenter_or_support: VolumeSegmenter | SupportSource,
    *,
    settings: SegmentSettings | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **overrides: Any,
) -> SegmentedFilm:
    """Segment a time series frame by frame; see :class:`medfewshot.workflow.SegmentedFilm`.

    Args:
        film: A file or a DICOM series with several time points.
        segmenter_or_support: As in :func:`segment`. A label of a frame of this film is a support too.
        settings: How to segment, and which cavities to measure.
        device: Where to adapt, or where to load a saved segmenter.
        progress: Receives one event per frame; may cancel.
        overrides: Settings of :func:`adapt` for a support, e.g. ``frame=0``.

    Raises:
        InputError: The file is no film, or an input or setting cannot be used.
    """
    opened = open_film(film)
    if opened is None:
        raise InputError(f"{film}: contains one volume", "use segment")
    segmenter = get_segmenter(segmenter_or_support, device=device, progress=progress, **overrides)
    return workflow.segment_film(opened, segmenter, settings or SegmentSettings(), progress=progress)


def evaluate(
    predictions: VolumeLike,
    references: VolumeLike,
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float | None = None,
) -> Evaluation:
    """Score predictions against references: Dice, HD95, surface distance and surface Dice per case and label.

    Args:
        predictions: A folder or file; or the label map of one case (array, MetaTensor, Volume).
        references: The same kind.
        labels: Value -> name, or values, of the structures to score. Default: every value that occurs, or what the run
            learned.
        spacing_mm: Voxel size of plain arrays. Without it, distances count voxels, and volumes in ml are undefined.
        tolerance_mm: Of the surface Dice; default 2 mm.

    Raises:
        InputError: A path cannot be read, nothing matches, or the label maps state their own voxel size.
        GridMismatchError: The grids differ.
    """
    given = {"tolerance_mm": tolerance_mm} if tolerance_mm is not None else {}
    settings = EvaluateSettings(labels=labels, **given)
    if isinstance(predictions, (str, PathLike)) and isinstance(references, (str, PathLike)):
        if spacing_mm is not None:
            raise InputError("spacing_mm is for arrays: files state their voxel size", "remove it")
        return workflow.evaluate(Path(predictions), Path(references), settings)
    pair = [as_volume(one, label=True) for one in (predictions, references)]
    pair = [replace(one, warnings=tuple(text for text in one.warnings if text != NO_SPACING)) for one in pair]
    if spacing_mm is not None:
        if stated := next((one for one in pair if one.has_spacing), None):
            raise InputError(f"{stated.name}: states its voxel size, so spacing_mm is of no use", "remove it")
        check_label_maps(pair[0].data[0], pair[0].data[0], spacing_mm)
        affine = np.diag([*map(float, spacing_mm), 1, 1][:4])
        pair = [replace(one, affine=affine, has_spacing=True) for one in pair]
    asked = named_labels(settings.labels, {})
    cases = [(pair[1].name, pair[0], pair[1])]
    return evaluate_pairs(cases, labels=asked or None, expected=asked, tolerance_mm=settings.tolerance_mm)


def get_segmenter(
    given: VolumeSegmenter | SupportSource,
    *,
    query: Volume | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **overrides: Any,
) -> VolumeSegmenter:
    """Return the given segmenter, load it from the given folder, or adapt to the given support to segment ``query``."""
    saved = isinstance(given, (str, PathLike)) and (Path(given) / DESCRIPTION).is_file()
    if not saved and not isinstance(given, VolumeSegmenter):
        settings = AdaptSettings(device=device).replace(**overrides)
        scans = workflow.read_supports(given, frame=settings.frame, progress=progress)
        cohort = () if query is None else (query,)
        return workflow.adapt(scans, settings, query=query, cohort=cohort, progress=progress)
    if overrides:
        raise TypeError(f"{', '.join(overrides)}: the segmenter is adapted already; give these to adapt()")
    return given if isinstance(given, VolumeSegmenter) else load_segmenter(Path(str(given)), resolve_device(device))
