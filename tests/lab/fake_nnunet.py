"""Stands in for an interpreter that has nnU-Net: it answers as the driver does, and segments by a threshold.

Called as ``python fake_nnunet.py -I DRIVER FOLDER DEVICE``; every request is noted in ``FOLDER/requests.jsonl``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np


def train(folder: Path, steps: int, **_: Any) -> dict[str, Any]:
    """Raw data are looked at where the driver finds them; the model is the mean intensity of each label."""
    raw = folder / "raw" / "Dataset001_supports"
    description = json.loads((raw / "dataset.json").read_text())
    (files,) = description["dataset"].values()
    image, label = (np.asarray(nib.load(raw / name).dataobj) for name in (files["images"][0], files["label"]))
    means = {int(value): float(image[label == value].mean()) for value in np.unique(label)}
    (folder / "results").mkdir()
    (folder / "results" / "model.json").write_text(json.dumps(means))
    (folder / "seen.json").write_text(json.dumps(description))
    return {
        "steps": steps,
        "stopped_by": "steps",
        "seconds": {"plan": 1.5, "train": 2.5},
        "network": {"patch_size": [8, 8, 8], "spacing_mm": [1.0, 1.0, 1.0]},
        "model": "results",
        "peak_gb": 0.1,
        "versions": {"nnunetv2": "0"},
    }


def predict(folder: Path, model: str, image: str, output: str) -> dict[str, Any]:
    """Every voxel gets the label whose mean intensity is nearest."""
    means = {int(value): mean for value, mean in json.loads((folder / model / "model.json").read_text()).items()}
    scan = nib.load(image)
    distances = np.stack([np.abs(np.asarray(scan.dataobj) - mean) for mean in means.values()])
    found = np.array(list(means), dtype=np.uint8)[distances.argmin(0)]
    nib.save(nib.Nifti1Image(found, scan.affine), f"{output}.nii")
    return {}


def main(folder: Path) -> None:
    for line in sys.stdin:
        with (folder / "requests.jsonl").open("a") as stream:
            stream.write(line)
        request = json.loads(line)
        action = request.pop("do")
        mode = os.environ.get("FAKE_NNUNET")
        if mode == "dies":
            sys.exit(7)
        if mode == "fails":
            print(json.dumps({"error": "ValueError: no good"}), flush=True)
            continue
        if action == "train":
            print(json.dumps({"progress": [1, request["steps"], "loss 0.50"]}), flush=True)
        print(json.dumps({"done": {"train": train, "predict": predict}[action](folder, **request)}), flush=True)


if __name__ == "__main__":
    assert sys.argv[1] == "-I", sys.argv
    assert Path(sys.argv[2]).name == "nnunet_driver.py", sys.argv
    main(Path(sys.argv[3]))
