"""Devices are taken at their word, and a missing one is an error that says what there is."""

from __future__ import annotations

import pytest
import torch

from medfewshot.devices import autocast, describe_device, has_fast_bf16, resolve_device
from medfewshot.errors import InputError


@pytest.fixture
def machine(monkeypatch):
    """Pretend that so many CUDA devices, and MPS, are there."""

    def pretend(cuda: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


def test_auto_takes_cuda_then_mps_then_the_cpu(machine):
    machine(cuda=1, mps=True)
    assert resolve_device("auto").type == "cuda"
    machine(cuda=0, mps=True)
    assert resolve_device("auto").type == "mps"
    machine(cuda=0)
    assert resolve_device() == torch.device("cpu")


def test_a_named_device_is_taken_at_its_word(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert str(resolve_device(name)) == name


def test_gpu_is_another_word_for_cuda(machine):
    machine(cuda=2)
    assert str(resolve_device("gpu")) == "cuda"
    assert str(resolve_device("GPU:1")) == "cuda:1"


@pytest.mark.parametrize("name", ["gpus", "cuda:x", "", "meta", "xpu", "cuda:-1"])
def test_an_unknown_device_lists_the_known(name, machine):
    machine(cuda=1)
    with pytest.raises(InputError, match="choose auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


def test_a_missing_device_says_what_there_is(machine):
    machine(cuda=1)
    with pytest.raises(InputError, match=r"device cuda:1: this machine has 1 CUDA device"):
        resolve_device("cuda:1")
    machine(cuda=0)
    with pytest.raises(InputError, match=r"device cuda: this machine has 0 CUDA device"):
        resolve_device("cuda")
    with pytest.raises(InputError, match="has no MPS"):
        resolve_device("mps")


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_used_where_it_is_native(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    cpu = torch.device("cpu")
    assert has_fast_bf16(cpu) is native
    with autocast(cpu):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)
    assert describe_device(cpu).startswith("cpu (")
    assert ("bf16" if native else "float32") in describe_device(cpu)


def test_without_the_private_probes_float32_is_the_answer(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert not has_fast_bf16(torch.device("cpu"))
    assert not has_fast_bf16(torch.device("mps"))
