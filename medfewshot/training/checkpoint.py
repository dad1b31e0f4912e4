"""Optimizer states as named tensors, for the checkpoints of a run.

A checkpoint replaces the previous one atomically, so a run can be stopped at any moment. It contains no random state:
every episode draws from its own generator, seeded by the run's seed and the episode's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

NAME = "checkpoint.safetensors"


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
    parameters = {name: parameter for parameter, name in names.items()}
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for full, value in tensors.items():
        name, _, what = full.rpartition(".")
        parameter = parameters[name]
        kept = torch.empty_like(parameter).copy_(value) if value.ndim else value.clone()
        owners[parameter].state[parameter][what] = kept


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
