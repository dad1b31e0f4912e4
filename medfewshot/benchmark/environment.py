"""What a result depends on besides data and settings: device, threads, versions; and the memory it took."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medfewshot import __version__
from medfewshot.devices import describe_device, resolve_device

_PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel")


def describe_run(device: str) -> dict[str, Any]:
    """Device, threads, kind of machine and versions, for a cell's record."""
    return {
        "device": describe_device(resolve_device(device)),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"medfewshot": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_device_memory_gb() -> float | None:
    """Most memory that tensors have taken on a CUDA device, in GB (2**30 bytes); None where it was not used."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return round(torch.cuda.max_memory_allocated() / 2**30, 3)


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
