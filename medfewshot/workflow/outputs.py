"""Files of one segmented volume: labels, maps, picture, other formats; and its entry in the record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medfewshot.inference import Segmentation
from medfewshot.io import EXPORTS, files_of, output_suffix, write_array, write_label, write_label_film
from medfewshot.report import colour_of, prepare_case, save_preview
from medfewshot.settings import SegmentSettings
from medfewshot.types import Case, Colour, Volume
from medfewshot.workflow.films import SegmentedFilm, write_film_tables
from medfewshot.workflow.measures import measure
from medfewshot.workflow.record import CaseResult, flag_warning


def write_outputs(
    case: Case,
    volume: Volume,
    segmentation: Segmentation,
    *,
    names: Mapping[int, str],
    folder: Path,
    settings: SegmentSettings,
    stamp: str,
    read_seconds: float,
    film: SegmentedFilm | None = None,
) -> CaseResult:
    """Write the labels of a volume and what ``settings`` ask for besides.

    Args:
        case: Name and files of the volume.
        volume: Its image, ``(C, *S)``.
        segmentation: Its segmentation on the same grid.
        names: Label value -> name.
        folder: The folder of the run.
        settings: What to write.
        stamp: Of the files of the case before they were read.
        read_seconds: Time that reading the image took, for the record.
        film: The film, if the volume is a frame of one.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    started = time.perf_counter()
    files = _write_maps(case.case_id, volume, segmentation, folder)
    if settings.previews:
        files.append(f"previews/{case.case_id}.png")
        save_preview(
            folder / files[-1], volume.data[0], segmentation.labels, volume.affine, names,
            uncertainty=segmentation.uncertainty, title=case.case_id,
            predicted_dice=segmentation.predicted_dice, flags=segmentation.flags,
        )  # fmt: skip
    exported, notes = _write_exports(
        case.case_id, volume, segmentation.labels, names=names, folder=folder,
        wanted=() if film else settings.exports,
    )  # fmt: skip
    files += exported
    if film is not None:
        files += write_film_tables(folder, case.case_id, film, names)
    labels = f"{case.case_id}{output_suffix(volume, channels=film is not None)}"
    # The labels last: if they exist, everything else of this volume exists too.
    if film is None:
        write_label(folder / labels, segmentation.labels, volume)
    else:
        write_label_film(folder / labels, film.labels, volume)
    if settings.report:
        prepare_case(
            folder, case.case_id, labels_file=folder / labels, image=volume.data[0], labels=segmentation.labels,
            affine=volume.affine, values=tuple(names), uncertainty=segmentation.uncertainty,
            film=film.played if film else None,
        )  # fmt: skip
    flags = [flag_warning(text) for text in segmentation.flags]
    prepared = {("prepare" if name == "plan" else name): time for name, time in segmentation.seconds.items()}
    return CaseResult(
        case=case.case_id,
        inputs=inputs_of(case),
        stamp=stamp,
        status="done",
        labels=labels,
        files=tuple(files),
        seconds={"read": read_seconds, **prepared, "write": round(time.perf_counter() - started, 3)},
        confidence={names[value]: share for value, share in segmentation.confidence.items()},
        predicted_dice={names[value]: dice for value, dice in segmentation.predicted_dice.items()},
        flags=segmentation.flags,
        statistics=tuple(measure(volume, segmentation, names)),
        frame=volume.frame,
        ejections=tuple(one.row() for one in film.ejections) if film else (),
        warnings=(*volume.warnings, *segmentation.warnings, *notes, *flags),
    )


def _write_maps(name: str, volume: Volume, segmentation: Segmentation, folder: Path) -> list[str]:
    """Write class probabilities and uncertainty, if computed; returns the paths relative to ``folder``."""
    maps = {"probabilities": segmentation.probabilities, "uncertainty": segmentation.uncertainty}
    files = []
    for kind, array in maps.items():
        if array is not None:
            suffix = output_suffix(volume, real_numbers=True, channels=kind == "probabilities")
            files.append(f"{kind}/{name}{suffix}")
            write_array(folder / files[-1], array, volume)
    return files


def _write_exports(
    case: str, volume: Volume, labels: np.ndarray, *, names: Mapping[int, str], folder: Path, wanted: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Write the label map in the formats that are asked for besides.

    Returns:
        The paths relative to ``folder``, and warnings.
    """
    files: list[str] = []
    notes: list[str] = []
    colours = {value: rgb(colour_of(rank)) for rank, value in enumerate(names, start=1)}
    for export in (EXPORTS[name] for name in wanted):
        refusal = export.refusal(volume)
        if refusal is not None:
            notes.append(refusal)
            continue
        files.append(export.file_of(case))
        notes += export.write(folder / files[-1], labels, names, volume, colours)
    return files, tuple(dict.fromkeys(notes))


def rgb(colour: str) -> Colour:
    """Return the colour ``#rrggbb`` as numbers from 0 to 1."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def stamp_of(case: Case) -> str:
    """Digest of sizes and times of a case's files: shows a later run that one was replaced."""
    files = [file for path in case.image_paths for file in files_of(path)]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def inputs_of(case: Case) -> tuple[str, ...]:
    """Return the absolute image paths of a case, by which records name it."""
    return tuple(str(path.resolve()) for path in case.image_paths)
