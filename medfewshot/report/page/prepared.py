"""What the page needs of a scan, written while the scan is in memory, so that the report need not read it again."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from medfewshot.io import atomic_path
from medfewshot.report.page.volumes import DisplayVolumes, display_volumes

FOLDER = "report"
PREVIEW_WIDTH = 1100


def prepared_path(folder: Path, case: str) -> Path:
    """The file that :func:`prepare_case` writes for ``case`` into the run's ``folder``."""
    return folder / FOLDER / f"{case}.npz"


def prepare_case(
    folder: Path,
    case: str,
    *,
    labels_file: Path,
    image: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray,
    values: Sequence[int],
    uncertainty: np.ndarray | None = None,
) -> Path | None:
    """Write what the viewer shows of a case into ``folder/report``.

    Call it after ``labels_file`` is written: if that file changes later (a correction by hand), the prepared volumes no
    longer count, and the report reads the scan and its labels again.

    Args:
        folder: the run's folder.
        case: name of the case.
        labels_file: the file in which the labels are.
        image: ``(X, Y, Z)``.
        labels: ``(X, Y, Z)`` label values.
        affine: ``(4, 4)``, voxel -> RAS mm.
        values: label values of the page's structures, in order.
        uncertainty: ``(X, Y, Z)`` in 0..1.

    Returns:
        The written file; None for a 2D image, which the viewer does not show.
    """
    if labels.ndim != 3:
        return None
    volumes = display_volumes(image, labels, affine, values=values, uncertainty=uncertainty)
    arrays = {name: array for name, array in vars(volumes).items() if array is not None}
    path = prepared_path(folder, case)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, labels_digest=_digest(labels_file), **arrays)
    return path


def load_case(folder: Path, case: str, *, labels_file: Path) -> DisplayVolumes | None:
    """The volumes of :func:`prepare_case`; None if they are missing, damaged or older than the labels."""
    try:
        with np.load(prepared_path(folder, case), allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        if str(arrays.pop("labels_digest")) != _digest(labels_file):
            return None
        plain: dict[str, Any] = {name: tuple(arrays.pop(name).tolist()) for name in ("shape", "steps", "window")}
        return DisplayVolumes(**arrays, **plain)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def preview_uri(path: Path) -> str:
    """A picture as a data URI: JPEG, at most ``PREVIEW_WIDTH`` pixels wide."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PREVIEW_WIDTH, 10 * PREVIEW_WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
