"""The main job on real scans, small: adapt, segment and evaluate MSD hippocampus through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.episodes import draw_support, fixed_split

TASK = "Task04_Hippocampus"


@pytest.fixture
def hippocampus(data_root) -> Path:
    folder = Path(data_root) / TASK
    if not folder.is_dir():
        pytest.skip(f"{TASK} is not among the real scans")
    return folder


@pytest.mark.real
@pytest.mark.slow
def test_hippocampus_is_found_after_a_few_seconds(run, tmp_path, hippocampus):
    images = sorted((hippocampus / "imagesTr").glob("*.nii.gz"))
    pool, query = fixed_split(TASK)
    supports = [images[i] for i in draw_support(pool, 2, 0)]
    pairs = [f"--support={image}={hippocampus / 'labelsTr' / image.name}" for image in supports]
    kept, out, scores = tmp_path / "kept", tmp_path / "out", tmp_path / "scores"
    assert run("adapt", *pairs, "-o", kept, "--steps", 25, "--device", "cpu", "--budget", 200).code == 0

    queries = tmp_path / "queries"
    queries.mkdir()
    for index in list(query)[:2]:
        shutil.copy(images[index], queries)
    assert run("segment", queries, "--segmenter", kept, "-o", out, "--device", "cpu", "--no-previews").code == 0
    assert run("evaluate", out, "-r", hippocampus / "labelsTr", "-o", scores).code == 0

    summary = json.loads((scores / "summary.json").read_text(encoding="utf-8"))
    assert [row["label_name"] for row in summary["labels"]] == ["Anterior", "Posterior"]
    # 25 steps reach 0.8 in these two scans; many steps and supports reach more (docs/results.md).
    assert summary["all_labels"]["dice_mean"] > 0.7
    for path in sorted(queries.iterdir()):
        image, labels = nib.load(path), nib.load(out / path.name)
        assert labels.shape == image.shape
        assert np.array_equal(labels.affine, image.affine)
        assert labels.get_data_dtype() == np.uint8
