"""Checkpoints: the whole state of a run in one safetensors file; its header contains plain data as JSON.

A checkpoint replaces the previous one atomically, so a run can be stopped at any moment. It contains no random state:
every episode draws from its own generator, seeded by the run's seed and the episode's number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.errors import InputError
from medfewshot.io import atomic_path

NAME = "checkpoint.safetensors"
_FACTS = "facts"


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` by dotted name; ``facts``: plain data."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; it is on the disk before it replaces the previous one."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_FACTS: json.dumps(dict(checkpoint.facts))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        raise InputError(f"{path}: cannot be resumed from ({reason})", "replace the run", setting="overwrite") from None


def optimizer_tensors(
    optimizers: Sequence[torch.optim.Optimizer], names: Mapping[nn.Parameter, str]
) -> dict[str, Tensor]:
    """Return ``{"<parameter>.<state>": tensor}`` of optimizers whose state is tensors alone (AdamW, Muon)."""
    return {
        f"{name}.{what}": value
        for optimizer in optimizers
        for parameter, name in names.items()
        for what, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizers: Sequence[torch.optim.Optimizer], names: Mapping[nn.Parameter, str], tensors: Mapping[str, Tensor]
) -> None:
    """Undo :func:`optimizer_tensors`; moments keep the memory layout of their parameters."""
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for parameter, name in names.items():
        state = {}
        for full, value in tensors.items():
            owner, _, what = full.rpartition(".")
            if owner == name:
                state[what] = torch.empty_like(parameter).copy_(value) if value.ndim else value.clone()
        if state:
            owners[parameter].state[parameter] = state


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
