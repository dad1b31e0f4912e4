"""Tensors on disk: one safetensors file, whose header may contain plain data as JSON."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfewshot.errors import InputError
from medfewshot.io.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

FACTS = "facts"
"""Key of the header under which the plain data are."""


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any] | None = None,
    *,
    description: Path | None = None,
) -> None:
    """Write tensors by name, and plain data; the file is on the disk before it replaces an earlier one.

    Args:
        path: The file.
        tensors: By name.
        facts: Plain data for the header.
        description: File that describes the tensors. An earlier one goes before its tensors do, so that no description
            ever lies beside tensors that are not its own.

    Raises:
        OSError: The disk is full or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(values, temporary, metadata=None if facts is None else {FACTS: json.dumps(dict(facts))})
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(errno.EIO, str(error)) from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if description is not None:
            description.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (on the CPU) and plain data; wrap it in :func:`refuse_damage`."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get(FACTS, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


@contextmanager
def refuse_damage(problem: str, remedy: str, *, setting: str | tuple[str, ...] = ()) -> Iterator[None]:
    """Turn whatever a missing or damaged file makes the block raise into an InputError.

    Raises:
        InputError: ``problem (reason)``.
    """
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        raise InputError(f"{problem} ({reason})", remedy, setting=setting) from None
