"""Select the device for computation and its number format."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

import torch

from medfewshot.errors import InputError, did_you_mean

KNOWN = ("auto", "cpu", "cuda", "gpu", "mps")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of a name.

    Args:
        name: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"`` (or ``"gpu"``), ``"cuda:N"`` or
            ``"mps"``.

    Raises:
        InputError: The name is unknown, or this machine lacks the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(re.sub(r"^gpu\b", "cuda", name.lower()))
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        near = did_you_mean(name, KNOWN)
        raise InputError(f"unknown device {name}{near}", "choose auto, cpu, cuda, cuda:N or mps", setting="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        lack = f"{torch.cuda.device_count()} CUDA device(s)"
    elif device.type == "mps" and not torch.backends.mps.is_available():
        lack = "no MPS"
    else:
        return device
    raise InputError(f"device {name}: this machine has {lack}", "choose auto or cpu", setting="device")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 convolutions natively. If it emulates them, float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Private, but torch has no public way to tell native bf16 from emulated. Without them float32 is safe.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a bf16 autocast if the device is fast with it, else a context that does nothing."""
    if has_fast_bf16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def describe_device(device: torch.device) -> str:
    """Describe the device in words, e.g. ``"cpu (8 threads, bf16)"``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    precision = "bf16" if has_fast_bf16(device) else "float32"
    return f"{device} ({torch.get_num_threads()} threads, {precision})" if device.type == "cpu" else str(device)
