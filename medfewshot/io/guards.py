"""Checks before a file is read, and errors of libraries as one line that names the file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medfewshot.errors import InputError

MOST_VOXELS_PER_BYTE = 50_000
"""How far the best compression in use (bzip2) packs a constant image. gzip reaches 1,000."""
_ITK_PREFIX = re.compile(r"^(sitk::ERROR: |ITK ERROR: |\w+\(0x[0-9a-f]+\): )+")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every exception into an InputError: a damaged file can raise nearly anything (zlib, EOF, struct, ITK)."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: does not fit into memory ({_reason(error)})", "crop or downsample it, or check its header"
        ) from error
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)})", "it may be damaged or cut short: copy or export it again"
        ) from error


def check_size(shape: Sequence[int], bytes_per_voxel: int, path: Path, *, has_voxels: bool = True) -> None:
    """Raise InputError if the size in a header exceeds the memory of this machine, or what the file can hold.

    This comes before any allocation: a few kilobytes can inflate to terabytes, and an allocation that succeeds may
    still end the process later. The size of a folder, or of a file that ``has_voxels`` elsewhere, does not count.
    """
    voxels, size = math.prod(int(n) for n in shape), "x".join(map(str, shape))
    needed, memory = voxels * (bytes_per_voxel + 4), _memory_bytes()
    if needed > memory:
        raise InputError(
            f"{path}: is {size} voxels by its header and does not fit into memory ({needed / 1e9:.3g} GB of "
            f"{memory / 1e9:.3g})",
            "crop or downsample it, or check its header",
        )
    stored = path.stat().st_size if has_voxels and path.is_file() else math.inf
    if voxels > MOST_VOXELS_PER_BYTE * stored:
        raise InputError(
            f"{path}: is {size} voxels by its header, more than its {stored} bytes can hold",
            "it may be damaged or cut short: copy or export it again",
        )


def _memory_bytes() -> float:
    """Physical memory, or infinity if the system (Windows) does not tell it this way."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _reason(error: BaseException) -> str:
    """The end of a message, where ITK names the cause. Its "Reason:" is the last errno, which may be unrelated."""
    lines = [_ITK_PREFIX.sub("", line.strip()) for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("Reason:", "Exception thrown in"))]
    text = " ".join(useful[-2:]) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
