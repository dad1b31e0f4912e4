"""A segmenter or dataset from a stranger runs no code and writes nothing elsewhere; results name no patient."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import corpus_dicom
import numpy as np
import pytest
import toys
import yaml

from medfewshot.bundle import DESCRIPTION, WEIGHTS, load_segmenter
from medfewshot.cli import main
from medfewshot.errors import InputError
from medfewshot.learners.finetune import NetworkSegmenter
from medfewshot.settings import AdaptSettings, SegmentSettings, load_settings
from medfewshot.workflow import open_batch, segment


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch '{self.path}'",))


@pytest.fixture
def scans(tmp_path, monkeypatch) -> Path:
    toys.install(monkeypatch)
    return toys.make_folders(tmp_path)


def run(monkeypatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["medfewshot", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def folder(scans, monkeypatch) -> Path:
    words = ("--support-dir", scans / "annotated", "--learner", "toy", "--device", "cpu", "--quiet")
    assert run(monkeypatch, "adapt", *words, "-o", scans / "segmenter") == 0
    return scans / "segmenter"


def change(folder: Path, **keys: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


# --- no code ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_pickle_in_the_place_of_a_file_is_not_opened(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(InputError, match="the segmenter is damaged"):
        load_segmenter(folder)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("name", ["odd.nii", "odd.nii.gz", "odd.nrrd", "odd.mha", "odd.png", "odd.dcm"])
def test_a_pickle_named_like_a_scan_is_not_opened(scans, monkeypatch, folder, name):
    (scans / name).write_bytes(pickle.dumps(Bomb(scans / "boom")))
    assert run(monkeypatch, "segment", scans / name, "--segmenter", folder, "-o", scans / "out") == 2
    assert not (scans / "boom").exists()


def test_a_configuration_builds_no_objects(tmp_path):
    text = yaml.dump(Bomb(tmp_path / "boom"))
    assert "!!python" in text
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match="not valid YAML"):
        load_settings(AdaptSettings, tmp_path / "settings.yaml")
    assert not (tmp_path / "boom").exists()


def test_nothing_unpickles_on_the_way_from_file_to_result(scans, monkeypatch, folder):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr("torch.load", refuse)
    words = ("--segmenter", folder, "-o", scans / "out", "--device", "cpu", "--no-previews")
    assert run(monkeypatch, "segment", scans / "cohort", *words) == 0


# --- a hostile segmenter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "os.system"},
        {"kind": "../../toy"},
        {"kind": None},
        {"kind": ["toy"]},
        {"format_version": "1; import os"},
        {"config": {"__class__": "os.system"}, "kind": "network"},
        {"config": {"network": {"dims": 3, "features": [10**9]}}, "kind": "network"},
        {"plan": None},
        {"plan": {"spatial_dims": 10**9}},
    ],
)
def test_descriptions_that_ask_for_too_much(folder, keys):
    change(folder, **keys)
    with pytest.raises(InputError) as caught:
        load_segmenter(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", [10**6] * 3),
        ("patch_size", [0, 0, 0]),
        ("patch_size", [-4, 8, 8]),
        ("spacing_mm", [1e-7] * 3),
        ("spacing_mm", [0.0, 1, 1]),
        ("spacing_mm", [1, float("nan"), 1]),
        ("axes", [[0, 0, 0]] * 3),
        ("channels", 10**9),
        ("labels", {str(n): "x" for n in range(1, 70_000)}),
        ("labels", {"-1": "x"}),
        ("labels", {"0": "background"}),
        ("labels", {}),
        ("normalization", []),
        ("spatial_dims", 7),
    ],
)
def test_plans_that_no_support_gives(folder, field, value):
    content = json.loads((folder / DESCRIPTION).read_text())
    change(folder, plan=content["plan"] | {field: value})
    with pytest.raises(InputError, match="the segmenter is damaged"):
        load_segmenter(folder)


def test_weights_of_absurd_shapes_and_extra_keys(folder):
    header = {"means": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(InputError, match="damaged"):
        load_segmenter(folder)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + bytes(16))
    with pytest.raises(InputError, match="damaged"):
        load_segmenter(folder)


def test_a_network_takes_only_its_own_weights():
    import torch

    from medfewshot.backbones import UNet

    network = UNet(2, 1, 2, 4, [[1, 1], [2, 2], [2, 2], [1, 1]])
    segmenter = NetworkSegmenter(network)
    tensors = segmenter.state_dict()
    again = NetworkSegmenter.from_config(segmenter.config())
    again.load_state_dict(tensors)
    with pytest.raises(RuntimeError):
        again.load_state_dict(tensors | {"hook": torch.zeros(3)})


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../../evil", "..\\evil", "$(touch boom)", "a\0b"])
def test_structure_names_are_only_names(folder, scans, name):
    """They appear in tables and pictures; no file is named after them."""
    content = json.loads((folder / DESCRIPTION).read_text())
    change(folder, plan=content["plan"] | {"labels": {"205": name, "420": "<script>alert(1)</script>"}})
    before = {path for path in scans.rglob("*") if path.is_file()}
    result = segment(open_batch([scans / "cohort" / "q0.nii.gz"], scans / "out"), load_segmenter(folder))
    assert not result.failed
    new = {path for path in scans.rglob("*") if path.is_file()} - before
    assert {str(path.relative_to(scans / "out")) for path in new} == {
        "q0.nii.gz", "data_dictionary.csv", "previews/q0.png", "report/q0.npz", "run.json", "statistics.csv",
    }  # fmt: skip


def test_symbolic_links_in_the_output_are_not_followed_out(folder, scans):
    """A result replaces a link of its name; what the link points to stays."""
    precious, result = scans / "precious.nii.gz", scans / "out" / "q0.nii.gz"
    precious.write_text("mine")
    settings, model = SegmentSettings(previews=False, overwrite=True), load_segmenter(folder)
    segment(open_batch([scans / "cohort" / "q0.nii.gz"], scans / "out", settings), model)
    result.unlink()
    result.symlink_to(precious)
    segment(open_batch([scans / "cohort" / "q0.nii.gz"], scans / "out", settings), model)
    assert precious.read_text() == "mine"
    assert not result.is_symlink()


def test_html_is_written_by_one_template_engine_that_escapes():
    """Names, paths and warnings come from files: what renders them escapes them, and nothing else renders."""
    package = Path(__file__).resolve().parents[1] / "medfewshot"
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    rendering = [path for path, text in sources.items() if "jinja2" in text or ("</" in text and "<div" in text)]
    assert rendering
    assert all("autoescape=True" in sources[path] for path in rendering)


# --- privacy ---------------------------------------------------------------------------------------------------------

PLANTED = ("PLANTED", "PID-83041", "19010203")


def names_found_in(folder: Path, planted: tuple[str, ...]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.name.endswith(".gz"):
                import gzip

                content = gzip.decompress(content)
            found += [f"{word} in {path.name}" for word in planted if word.encode() in content]
    return found


def test_no_patient_in_any_result_or_line(scans, monkeypatch, capsys):
    series = corpus_dicom.series(scans / "pacs", name="series")
    label = np.zeros(toys.SHAPE, np.uint8)
    label[2:7, 3:9, 3:9] = 1
    from medfewshot.io import read_image, write_label

    write_label(scans / "label.nii.gz", label, read_image(series))
    words = ("--support", f"{series}={scans / 'label.nii.gz'}", "--learner", "toy", "--device", "cpu")
    assert run(monkeypatch, "segment", scans / "pacs", *words, "-o", scans / "out", "--json", "--probabilities") == 0
    (scans / "pacs" / "series" / "003.dcm").unlink()
    assert run(monkeypatch, "segment", scans / "pacs" / "series", *words, "-o", scans / "out2") == 2
    told = capsys.readouterr()
    assert not [word for word in PLANTED if word in told.out + told.err]
    assert names_found_in(scans / "pacs", PLANTED), "the names are planted indeed"
    assert names_found_in(scans / "out", PLANTED) == []


def test_no_patient_from_a_nifti_header(scans, monkeypatch, folder):
    """``descrip``, ``aux_file``, ``intent_name`` and extensions of a NIfTI file often hold names."""
    import nibabel as nib

    image = nib.Nifti1Image(toys.make_scan(5)[0], toys.AFFINE)
    image.header["descrip"], image.header["aux_file"] = b"PLANTED^NAME", b"PID-83041"
    image.header["intent_name"], image.header["db_name"] = b"19010203", b"PLANTED"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"PLANTED^NAME PID-83041"))
    nib.save(image, scans / "named.nii.gz")
    words = ("--segmenter", folder, "--device", "cpu", "--uncertainty", "-o", scans / "out")
    assert run(monkeypatch, "segment", scans / "named.nii.gz", *words) == 0
    assert names_found_in(scans / "out", PLANTED) == []


@pytest.mark.real
def test_no_patient_of_a_real_series(data_root, scans, monkeypatch, folder, capsys):
    import pydicom

    series = data_root / "dicom" / "t1post"
    if not series.is_dir():
        pytest.skip("dicom/t1post is not among the real scans")
    header = pydicom.dcmread(next(path for path in sorted(series.iterdir()) if path.is_file()), stop_before_pixels=True)
    planted = tuple(
        text for key in ("PatientName", "PatientID", "PatientBirthDate") if len(text := str(header.get(key, ""))) > 3
    )
    assert planted
    words = ("--segmenter", folder, "--device", "cpu", "-o", scans / "out")
    assert run(monkeypatch, "segment", series, *words) == 0
    told = capsys.readouterr()
    assert not [word for word in planted if word in told.out + told.err]
    assert names_found_in(scans / "out", planted) == []
