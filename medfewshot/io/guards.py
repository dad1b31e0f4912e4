"""Turns what libraries throw into one line that names the file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medfewshot.errors import InputError

MOST_VOXELS_PER_BYTE = 50_000
"""What the best of the compressions in use makes of a constant image (bzip2; gzip reaches 1,000)."""
_ITK_PREFIX = re.compile(r"^(sitk::ERROR: |ITK ERROR: |\w+\(0x[0-9a-f]+\): )+")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A damaged file can raise nearly anything (zlib, EOF, struct, ITK), so everything becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: does not fit into memory ({_reason(error)}); crop or downsample it, or check its header"
        ) from error
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); it may be damaged or cut short: copy or export it again"
        ) from error


def check_size(shape: Sequence[int], bytes_per_voxel: int, path: Path) -> None:
    """Raise InputError where a header promises more than this machine's memory, or than the file can hold.

    Asked before anything is allocated: a few kilobytes can inflate to terabytes, and an allocation that is granted may
    still end the process later. A folder, or a header with its voxels in another file, is held against memory alone.
    """
    voxels, size = math.prod(int(n) for n in shape), "x".join(map(str, shape))
    needed, memory = voxels * (bytes_per_voxel + 4), _memory_bytes()
    if needed > memory:
        raise InputError(
            f"{path}: is {size} voxels by its header and does not fit into memory ({needed / 1e9:.3g} GB of "
            f"{memory / 1e9:.3g}); crop or downsample it, or check its header"
        )
    held = path.stat().st_size if path.is_file() and path.suffix.lower() not in (".mhd", ".nhdr") else math.inf
    if voxels > MOST_VOXELS_PER_BYTE * held:
        raise InputError(
            f"{path}: is {size} voxels by its header, more than its {held} bytes can hold; it may be damaged or cut "
            "short: copy or export it again"
        )


def _memory_bytes() -> float:
    """Physical memory; unknown (and then unlimited) where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK prints C++ warnings to stderr; what matters in them is checked here and raised or kept as a warning."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _reason(error: BaseException) -> str:
    """The end of a message, where ITK names the cause; its "Reason:" is the last errno, whatever that was about."""
    lines = [_ITK_PREFIX.sub("", line.strip()) for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Reason:", "Exception thrown in"))]
    text = " ".join(told[-2:]) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
