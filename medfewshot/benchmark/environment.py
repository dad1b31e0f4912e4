"""Record device, threads, versions and peak memory of a run."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch

from medfewshot.devices import describe_device, resolve_device
from medfewshot.workflow.record import versions


def describe_run(device: str) -> dict[str, Any]:
    """Device, threads, kind of machine and versions, for a cell's record."""
    return {
        "device": describe_device(resolve_device(device)),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "versions": versions(),
    }


def peak_device_memory_gb() -> float | None:
    """Return the peak memory of tensors on a CUDA device, in GB (2**30 bytes); None if no such device was used."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return round(torch.cuda.max_memory_allocated() / 2**30, 3) if used else None


def peak_memory_gb() -> float | None:
    """Most resident memory that this process has had, in GB (2**30 bytes); None where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # rusage would start from what the parent held when it forked
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 2**20, 3)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 3)
