"""Which device computes, and in which number format."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

import torch

from medfewshot.errors import InputError, did_you_mean

KNOWN = ("auto", "cpu", "cuda", "gpu", "mps")


def resolve_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; ``cpu``, ``cuda``, ``cuda:N`` and ``mps`` are taken at their word.

    ``gpu`` is another word for ``cuda``.

    Raises InputError where the device is not there.
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
        raise InputError(f"--device {name}: unknown device{near}; choose auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s); choose auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: MPS is not available on this machine; choose auto or cpu")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 convolutions are native there: elsewhere they are emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Private, but the only questions that tell native bf16 from emulated; without them float32 is the safe answer.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast where it pays, else nothing."""
    if has_fast_bf16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    precision = "bf16" if has_fast_bf16(device) else "float32"
    return f"{device} ({torch.get_num_threads()} threads, {precision})" if device.type == "cpu" else str(device)
