"""Segmentation of a film, frame by frame, and what its frames show together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import some
from medfewshot.heart import Ejection, ejections, find_cavities
from medfewshot.inference import Segmentation
from medfewshot.io import Film, write_csv
from medfewshot.report import FilmStrip, save_curve_plot
from medfewshot.report.page.viewer import DisplayVolumes
from medfewshot.settings import SegmentSettings
from medfewshot.types import Progress, Volume
from medfewshot.workflow.measures import SIZES, measure, unit_of
from medfewshot.workflow.own_frames import frames_with_tracker, trackers_of

_PER_VOLUME = ("probabilities", "uncertainty", "dicom_seg", "rtstruct", "seg_nrrd")
"""Settings that write a file of one volume."""


@dataclass(frozen=True)
class SegmentedFilm:
    """Label maps of all frames, and what was measured in them.

    Args:
        labels: ``(frames, *S)``.
        shown: The frame with the most labelled voxels: it is pictured.
        segmentation: The segmentation of this frame, with the warnings of all.
        rows: Measurements of each structure in each frame.
        times_s: Seconds from the first frame, one per frame; empty if unknown.
        ejections: Volumes and ejection fractions of the cavities.
        played: What the report's viewer plays, for films in 3D.
    """

    labels: np.ndarray
    shown: Volume
    segmentation: Segmentation
    rows: tuple[dict[str, Any], ...]
    times_s: tuple[float, ...] = ()
    ejections: tuple[Ejection, ...] = ()
    played: DisplayVolumes | None = None


def segment_film(
    film: Film, segmenter: VolumeSegmenter, settings: SegmentSettings, *, progress: Progress | None = None
) -> SegmentedFilm:
    """Segment every frame of a film; labels of its own frames are carried to the others. Few frames are in memory.

    Args:
        film: The film.
        segmenter: What adaptation made.
        settings: How to segment a frame, and which cavities to measure.
        progress: Receives one event per frame; may cancel.

    Raises:
        InputError: The frames differ from the labelled scans in axes or channels, or a frame cannot be read.
    """
    progress, names = progress or Progress(), segmenter.plan.labels
    cavities = find_cavities(list(names.values()), settings.cavities)
    plain = settings.replace(**dict.fromkeys(_PER_VOLUME, False))
    labels: np.ndarray | None = None
    shown: tuple[int, Volume, Segmentation] | None = None
    rows: dict[int, list[dict[str, Any]]] = {}
    remarks: dict[str, list[int]] = {}
    playable = settings.report and film.first.spatial_dims == 3
    strip = FilmStrip(film.count, tuple(names)) if playable else None
    trackers, notes = trackers_of(film, segmenter)
    for done, (number, volume, tracker) in enumerate(frames_with_tracker(film, trackers)):
        progress.update(done, film.count, volume.name)
        result = segmenter.segment(volume, plain, tracker=tracker)
        labels = np.zeros((film.count, *result.labels.shape), result.labels.dtype) if labels is None else labels
        labels[number] = result.labels
        if strip is not None:
            strip.add(number, volume.data[0], result.labels, volume.affine)
        time = {"time_s": film.times_s[number]} if film.times_s else {}
        rows[number] = [{"frame": number, **time, **row} for row in measure(volume, result, names)]
        for text in result.warnings:
            remarks.setdefault(text, []).append(number)
        size = sum(result.voxels.values())
        if shown is None or (size, -number) > (shown[0], -(shown[1].frame or 0)):
            shown = (size, volume, result)
    assert labels is not None
    assert shown is not None
    _, volume, result = shown
    skipped = [name for name in _PER_VOLUME if dict(settings)[name]]
    table = tuple(row for number in range(film.count) for row in rows[number])
    warnings = (
        *notes,
        *(
            text if len(frames) == film.count else f"frame {some(sorted(frames))}: {text}"
            for text, frames in remarks.items()
        ),
        *([f"{some(skipped)}: not written for films, only their label maps are"] if skipped else []),
    )
    if not film.times_s and film.first.has_spacing:
        warnings += (f"its {film.count} volumes are read as frames, and it states no time between them",)
    curves = {name: [row["volume_ml"] for row in table if row["name"] == name] for name in cavities}
    is_volume = film.first.spatial_dims == 3 and 1 not in film.first.spatial_shape  # a slice is no cavity
    measured = ejections(curves) if is_volume and film.first.has_spacing else ()
    unknown = [one.name for one in measured if one.fraction_percent is None]
    if unknown:
        warnings += (f"{some(unknown)}: not found in a frame, so the ejection fraction is not known",)
    return SegmentedFilm(
        labels,
        volume,
        replace(result, warnings=warnings),
        table,
        film.times_s,
        measured,
        None if strip is None else strip.played(volume.frame or 0),
    )


def write_film_tables(folder: Path, name: str, film: SegmentedFilm, names: Mapping[int, str]) -> list[str]:
    """Write the measurements of all frames as a table and a plot.

    Returns:
        The files relative to ``folder``.
    """
    files = [f"films/{name}.csv", f"films/{name}.png"]
    write_csv(folder / files[0], film.rows)
    unit = unit_of(film.rows)
    curves = {one: [row[SIZES[unit]] for row in film.rows if row["label"] == value] for value, one in names.items()}
    save_curve_plot(
        folder / files[1], curves, unit=unit, times_s=film.times_s,
        marks=sorted({frame for one in film.ejections for frame in (one.ed_frame, one.es_frame)}),
    )  # fmt: skip
    return files
