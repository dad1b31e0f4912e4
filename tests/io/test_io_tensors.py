"""Tensors and plain data come back; what is damaged is one line."""

from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError

from medfewshot.errors import InputError
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors


def test_tensors_and_facts_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.arange(6).view(2, 3).T, "y": torch.tensor(0.5)}, {"step": 3})
    tensors, facts = read_tensors(path)
    assert torch.equal(tensors["x"], torch.arange(6).view(2, 3).T)
    assert float(tensors["y"]) == 0.5
    assert facts == {"step": 3}
    write_tensors(path, tensors)
    assert read_tensors(path)[1] == {}


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.ones(2)})

    def full(*args, **options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {"x": torch.zeros(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert torch.equal(read_tensors(path)[0]["x"], torch.ones(2))


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"\x08\0\0\0\0\0\0\0[1,2,3] "])
def test_what_is_damaged_is_one_line(tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with (
        pytest.raises(InputError, match="the weights are damaged") as error,
        refuse_damage("the weights are damaged", "x"),
    ):
        read_tensors(path)
    assert "\n" not in str(error.value)


def test_an_input_error_passes_as_it_is():
    with pytest.raises(InputError, match=r"^another version$"), refuse_damage("damaged", "copy it again"):
        raise InputError("another version")
