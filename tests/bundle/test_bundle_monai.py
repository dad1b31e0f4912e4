"""A saved segmenter is a MONAI bundle: MONAI's own commands run it, and check it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toys
from monai import bundle as monai_bundle
from monai.bundle import ConfigParser, ConfigWorkflow

import medfewshot
from medfewshot.bundle.monai_files import INFERENCE, LICENCE, METADATA, READ_ME
from medfewshot.errors import InputError
from medfewshot.integrations import FewShotInferer, list_images
from medfewshot.io import read_image, read_label

SCHEMA = Path(__file__).with_name("metadata_schema.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """``annotated``, ``cohort`` and ``kidney``, a bundle of a real learner."""
    root = toys.make_folders(tmp_path_factory.mktemp("bundle"))
    segmenter = medfewshot.adapt(root / "annotated", steps=5, device="cpu", modality="CT")
    segmenter.save(root / "kidney")
    return root


def expected(made: Path, name: str):
    return medfewshot.segment(made / "cohort" / name, made / "kidney", device="cpu").labels


def check_results(made: Path, out: Path) -> None:
    names = sorted(path.name for path in (made / "cohort").iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        written = read_label(out / name)
        assert np.array_equal(written.data[0], expected(made, name))
        assert np.allclose(written.affine, read_label(made / "reference" / name).affine, atol=1e-5)


def test_monai_runs_it(made, tmp_path):
    monai_bundle.run(
        config_file=str(made / "kidney" / INFERENCE),
        bundle_root=str(made / "kidney"),
        dataset_dir=str(made / "cohort"),
        output_dir=str(tmp_path / "out"),
    )
    check_results(made, tmp_path / "out")


def test_monais_command_line_runs_it(made, tmp_path):
    words = [
        "run", "--config_file", made / "kidney" / INFERENCE, "--bundle_root", made / "kidney",
        "--dataset_dir", made / "cohort", "--output_dir", tmp_path / "out", "--output_postfix", "seg",
    ]  # fmt: skip
    source = Path(medfewshot.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.array_equal(read_label(tmp_path / "out" / "q1_seg.nii.gz").data[0], expected(made, "q1.nii.gz"))


def test_verify_net_in_out(made):
    files = {"meta_file": str(made / "kidney" / METADATA), "config_file": str(made / "kidney" / INFERENCE)}
    override = {"bundle_root": str(made / "kidney"), "device": "cpu"}
    monai_bundle.verify_net_in_out("network_def", **files, **override)
    with pytest.raises(ValueError, match="channel number"):
        monai_bundle.verify_net_in_out(
            "network_def", **files, **override, **{"_meta_#network_data_format#outputs#pred#num_channels": 7}
        )


def test_verify_metadata(made, tmp_path):
    # A file that is there is not fetched.
    monai_bundle.verify_metadata(meta_file=str(made / "kidney" / METADATA), filepath=str(SCHEMA))
    broken = json.loads((made / "kidney" / METADATA).read_text())
    del broken["network_data_format"]["outputs"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="outputs"):
        monai_bundle.verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=str(SCHEMA))


def test_the_workflow_has_what_monai_asks_for(made):
    workflow = ConfigWorkflow(
        str(made / "kidney" / INFERENCE), str(made / "kidney" / METADATA), workflow_type="inference",
        logging_file=False, bundle_root=str(made / "kidney"), dataset_dir=str(made / "cohort"),
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    assert isinstance(workflow.network_def, medfewshot.VolumeSegmenter)
    assert isinstance(workflow.inferer, FewShotInferer)


def test_several_channels_and_large_label_values(made, monkeypatch, tmp_path):
    toys.install(monkeypatch)
    support = [(np.stack([image, image]), label) for image, label in (toys.make_scan(0), toys.make_scan(1))]
    segmenter = medfewshot.adapt(support, learner="toy", device="cpu", modality="CT")
    segmenter.save(tmp_path / "pair")
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        toys.save_nifti(tmp_path / "scans" / f"{name}.nii.gz", toys.make_scan(ord(name[0]))[0], np.eye(4))
    monai_bundle.run(
        config_file=str(tmp_path / "pair" / INFERENCE), bundle_root=str(tmp_path / "pair"),
        dataset_dir=str(tmp_path / "scans"), output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    written = read_label(tmp_path / "out" / "a_0000.nii.gz").data
    assert set(np.unique(written)) == {0, *toys.VALUES}  # 420 needs more than 8 bits
    both = [tmp_path / "scans" / f"a_000{i}.nii.gz" for i in (0, 1)]
    array = np.concatenate([read_image(path).data for path in both])
    assert np.array_equal(written[0], medfewshot.segment(array, segmenter).labels)


def test_images_of_a_folder(made, tmp_path):
    names = [Path(item["image"]).name for item in list_images(made / "cohort")]
    assert names == ["q0.nii.gz", "q1.nii.gz", "q2.nii.gz"]
    for name in ("q0.nii.gz", "q1_seg.nii.gz", "a-gt.nii.gz"):
        toys.save_nifti(tmp_path / "some" / name, toys.make_scan(0)[0], np.eye(4))
    toys.save_itk(tmp_path / "some" / "b.nrrd", toys.make_scan(0)[0])
    with pytest.warns(UserWarning, match="3 file"):
        assert len(list_images(tmp_path / "some")) == 1
    for folder in (made / "cohort", tmp_path / "some"):  # the scans themselves, and another file of the same name
        with pytest.raises(InputError, match=r"q0\.nii\.gz: exists already and would be replaced"):
            list_images(made / "cohort", output_dir=folder)
    assert len(list_images(made / "cohort", output_dir=tmp_path / "some", output_postfix="new")) == 3
    with pytest.raises(InputError):
        list_images(tmp_path)
    toys.save_itk(tmp_path / "a.nrrd", toys.make_scan(0)[0])
    with pytest.raises(InputError, match="no NIfTI"):
        list_images(tmp_path)


def test_the_read_me_quotes_without_markup_or_folders(made, monkeypatch, tmp_path):
    segmenter = medfewshot.load_segmenter(made / "kidney")
    record = {
        "supports": [{"image": "/home/a.person/x`y.nii.gz", "label": "/home/a.person/l.nii.gz"}],
        "warnings": ["<script>alert(1)</script> | [x](y)"],
    }
    medfewshot.VolumeSegmenter(segmenter.plan, segmenter.segmenter, record).save(tmp_path / "a_b")
    text = (tmp_path / "a_b" / READ_ME).read_text()
    assert text.startswith("# a\\_b\n")
    assert "a.person" not in text
    assert "`x'y.nii.gz`" in text
    assert "<script>" not in text.replace("\\<", "")
    assert "medical device" not in (tmp_path / "a_b" / LICENCE).read_text()
    described = json.loads((tmp_path / "a_b" / METADATA).read_text())
    assert described["network_data_format"]["inputs"]["image"]["format"] == "hounsfield"
    assert described["label_values"] == {"205": "label 205", "420": "label 420"}


def test_the_config_is_only_data(made):
    parser = ConfigParser()
    parser.read_config(str(made / "kidney" / INFERENCE))
    targets = {item.get("_target_", "") for item in parser.get().values() if isinstance(item, dict)}
    assert {target for target in targets if "." in target} == {
        "medfewshot.integrations.load_network",
        "medfewshot.integrations.list_images",
        "medfewshot.integrations.FewShotInferer",
    }
