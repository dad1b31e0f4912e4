"""Distributed training: one process by default, several under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all processes of a run.

    Gradients are not summed by ``DistributedDataParallel``, because that hooks into one forward pass of one module. A
    meta-learner's loss has inner steps, several passes and functional calls.

    Args:
        rank: Number of this process.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every parameter's gradient over all processes, in one message; a missing gradient counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, values: Tensor) -> Tensor:
        """Replace ``values`` by those of the first process."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def share_start(self, module: nn.Module) -> None:
        """Give every process the weights of the first one."""
        for tensor in module.state_dict().values():
            self.from_first(tensor)

    def wait(self) -> None:
        """Wait until every process arrives here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` describes in the environment; without it, this process is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    # NCCL does not let processes share a GPU; sharing is faster if generating episodes takes longer than training.
    dist.init_process_group("nccl" if device.type == "cuda" and not shared else "gloo")
    try:
        yield World(dist.get_rank(), size)
        dist.barrier()  # no process closes connections while another still works
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Give each process of a machine its own GPU; more processes than GPUs share them in turn."""
    local = os.environ.get("LOCAL_RANK")
    if device.type != "cuda" or local is None:
        return device
    return torch.device("cuda", int(local) % torch.cuda.device_count())
