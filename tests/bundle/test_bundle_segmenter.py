"""A segmenter goes to disk and comes back the same; damage is told in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from medfewshot.bundle import DESCRIPTION, WEIGHTS, VolumeSegmenter, load_segmenter
from medfewshot.errors import InputError
from medfewshot.learners.base import FunctionSegmenter
from medfewshot.settings import AdaptSettings
from medfewshot.types import Volume
from medfewshot.workflow import LabelledScans, adapt


def adapted(learner: str, **settings) -> VolumeSegmenter:
    image, label = toys.make_scan(0)
    images, labels = [Volume(image[None].astype(np.float32), toys.AFFINE)], [Volume(label[None], toys.AFFINE)]
    return adapt(LabelledScans(images, labels), AdaptSettings(learner=learner, device="cpu", **settings))


@pytest.mark.parametrize("learner", ["finetune", "prototype", "ridge", "in_context"])
def test_a_saved_segmenter_gives_the_same_labels(tmp_path, learner):
    segmenter = adapted(learner, steps=2, width=4)
    segmenter.save(tmp_path / "s")
    state = torch.get_rng_state()
    again = load_segmenter(str(tmp_path / "s"))
    assert torch.equal(torch.get_rng_state(), state)
    assert again.plan == segmenter.plan
    assert again.whole_volume == segmenter.whole_volume
    assert {path.name for path in (tmp_path / "s").iterdir()} == {DESCRIPTION, WEIGHTS, "configs", "docs", "LICENSE"}
    query = Volume(toys.make_scan(1)[0][None].astype(np.float32), toys.AFFINE)
    first, second = segmenter.segment(query), again.segment(query)
    assert np.array_equal(first.labels, second.labels)
    assert first.confidence == second.confidence
    image = torch.randn(2, 1, 16, 16, 16)
    assert torch.equal(segmenter(image), again(image))
    assert again(image).shape == (2, 3, 16, 16, 16)


def test_the_description_is_strict_json(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    adapted("toy").save(tmp_path)
    content = json.loads((tmp_path / DESCRIPTION).read_text(), parse_constant=pytest.fail)
    assert content["record"]["learner"]["final_loss"] is None


def test_what_cannot_be_saved():
    segmenter = VolumeSegmenter(None, FunctionSegmenter(lambda image: image))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be saved"):
        segmenter.save(None)  # type: ignore[arg-type]


def test_files_of_others_are_not_replaced(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    (tmp_path / "LICENSE").write_text("mine")
    with pytest.raises(InputError, match="LICENSE: exists already"):
        adapted("toy").save(tmp_path)
    assert (tmp_path / "LICENSE").read_text() == "mine"
    adapted("toy").save(tmp_path, overwrite=True)
    adapted("toy").save(tmp_path)  # in place of an earlier one


def test_new_weights_never_lie_beside_an_old_description(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    adapted("toy").save(tmp_path)
    toys.fill_disk(monkeypatch, "segmenter.json")
    with pytest.raises(OSError, match="No space"):
        adapted("toy").save(tmp_path)
    with pytest.raises(InputError, match="is no segmenter"):
        load_segmenter(tmp_path)


def set_key(key: str, value: object):
    def change(text: str) -> str:
        return json.dumps({**json.loads(text), key: value})

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "",
        set_key("kind", "oracle"),
        set_key("config", {}),
        set_key("config", None),
        set_key("plan", {}),
        set_key("plan", {"axes": [[1]]}),
        set_key("format_version", 99),
    ],
)
def test_a_damaged_description(tmp_path, change):
    adapted("finetune", steps=1, width=4).save(tmp_path)
    path = tmp_path / DESCRIPTION
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError) as error:
        load_segmenter(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "adapt" in str(error.value)


def test_damaged_weights(tmp_path):
    adapted("prototype", steps=1, width=4).save(tmp_path)
    path = tmp_path / WEIGHTS
    whole = path.read_bytes()
    for content in (whole[:-8], b"", b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            load_segmenter(tmp_path)


@pytest.mark.parametrize("learner", ["finetune", "hybrid"])
def test_a_segmenter_of_format_version_1_is_read(tmp_path, learner):
    """Version 1 saved a network's tensors without ``network.`` in front of their names."""
    segmenter = adapted(learner, steps=1, width=4)
    segmenter.save(tmp_path)
    tensors = {name.replace("network.", "", 1): value for name, value in load_file(tmp_path / WEIGHTS).items()}
    if learner == "hybrid":  # it holds a network, whose own prefix stays
        tensors = {name if name.startswith("atlas.") else f"network.{name}": value for name, value in tensors.items()}
        tensors = {name.replace("network.network.", "network."): value for name, value in tensors.items()}
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / DESCRIPTION).write_text(set_key("format_version", 1)((tmp_path / DESCRIPTION).read_text()))
    image = torch.randn(1, 1, *toys.SHAPE)
    assert torch.equal(load_segmenter(tmp_path)(image), segmenter(image))
