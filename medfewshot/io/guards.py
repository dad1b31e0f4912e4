"""Turns what libraries throw into one line that names the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medfewshot.types import InputError

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
