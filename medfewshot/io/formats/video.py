"""Videos (MP4, AVI, MOV, GIF), through PyAV (extra ``video``). They know no millimetres, and are read as grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import DType, Format, Refuse, check_size
from medfewshot.io.formats.film import Film, TimeAxis
from medfewshot.io.formats.pictures import picture_volume
from medfewshot.types import Volume

_GREY_TOLERANCE = 24
"""Largest difference between colours, of 255, that the compression of a grey video makes."""


def film(path: Path, dtype: DType) -> Film | None:
    """Open a video as a film of ``(1, X, Y)``; None if it has one frame."""
    times_s = _times_s(path)
    if len(times_s) < 2:
        return None
    first, is_colour = next(_pictures(path, [0]))
    warnings = ("is a colour video: read as grey, by its brightness",) if is_colour else ()
    check_size((*first.shape, 1), 4, path)
    axis = TimeAxis((times_s[1] - times_s[0]) or 1.0, seconds=1.0)
    volume = picture_volume(np.array(first.T[None], dtype=dtype), warnings, axis)
    return Film(
        volume, len(times_s),
        lambda numbers: (np.array(picture.T[None], dtype=dtype) for picture, _ in _pictures(path, numbers)), times_s,
    )  # fmt: skip


def read(path: Path, dtype: DType) -> Volume:
    """Read a video of one frame."""
    if len(_times_s(path)) != 1:
        raise InputError(f"{path}: is a video, and one image is needed", "save one frame as PNG")
    picture, _ = next(_pictures(path, [0]))
    return picture_volume(np.array(picture.T[None], dtype=dtype), ())


def _opened(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            f"{path}: is a video, and PyAV, which reads it, is not installed",
            "run: pip install av, or convert it to a multi-page TIFF",
        ) from None
    return av.open(str(path))


def _times_s(path: Path) -> tuple[float, ...]:
    """Return the time of each frame as the file states it, also at a variable frame rate."""
    with _opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: contains no video", "give a film")
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        return tuple(float((stamp - stamps[0]) * stream.time_base) for stamp in stamps)


def _pictures(path: Path, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield frames ``(rows, columns)`` in ascending order, and whether each has colours."""
    wanted = set(numbers)
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number not in wanted:
                continue
            if frame.rotation:
                raise InputError(f"{path}: is stored turned by {frame.rotation} degrees", "save it upright")
            colours = frame.to_ndarray(format="rgb24").astype(np.int16)
            yield frame.to_ndarray(format="gray"), bool((np.ptp(colours, axis=2) > _GREY_TOLERANCE).mean() > 0.001)
            if number == max(wanted):
                return


VIDEO = Format(
    name="a video (MP4, AVI, GIF)",
    suffixes=(".mp4", ".avi", ".mov", ".gif"),
    read=read,
    film=film,
    read_label=Refuse("video compression blurs label values", "save the label as NIfTI or TIFF"),
)
