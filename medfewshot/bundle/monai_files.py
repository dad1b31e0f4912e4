"""What makes the folder of a segmenter a MONAI bundle: metadata, an inference config, a read-me and a licence.

The format is MONAI's Bundle Specification (https://docs.monai.io/en/latest/mb_specification.html), but for the weights:
they stay safetensors, which cannot run code, and ``medfewshot.integrations.load_network`` reads them. Everything here
is text about a plan; nothing imports MONAI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medfewshot.bundle.json_text import strict_json
from medfewshot.io import write_text
from medfewshot.types import Plan

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
READ_ME = "docs/README.md"
LICENCE = "LICENSE"
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_OURS = "medfewshot.integrations."

_LICENCE_TEXT = """\
The configuration files in this folder are part of medfewshot and licensed under the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0

The weights were derived from the labelled scans that docs/README.md names. Whoever holds the rights in those scans
decides under which terms the weights may be passed on.
"""


_KEEPS = (
    "**This folder contains these scans and labels** (resampled): every new scan is registered to them. "
    "Share it as carefully as the scans themselves."
)


FILES = (METADATA, INFERENCE, READ_ME, LICENCE)
"""What :func:`write_monai_files` writes, below the bundle's folder."""


def write_monai_files(folder: Path, plan: Plan, record: Mapping[str, Any]) -> None:
    """Write the bundle's text files; ``record`` is that of the segmenter (its supports and warnings are quoted)."""
    files = {
        METADATA: strict_json(metadata(plan, record)),
        INFERENCE: strict_json(inference_config(plan)),
        READ_ME: read_me(folder.name or "bundle", plan, record),
        LICENCE: _LICENCE_TEXT,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)


def metadata(plan: Plan, record: Mapping[str, Any]) -> dict[str, Any]:
    """``configs/metadata.json``: versions, what is segmented, and the network's tensors (on the plan's grid)."""
    names = ", ".join(plan.labels.values())
    modality = _modality(plan)
    shape = list(plan.patch_size)
    image = {
        "type": "image",
        "format": "hounsfield" if modality == "CT" else "magnitude",
        "modality": modality,
        "num_channels": plan.channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): f"channel {i} of the image, normalised" for i in range(plan.channels)},
    }
    prediction = {
        "type": "image",
        "format": "labels",
        "num_channels": plan.classes,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): name for i, name in enumerate(["background", *plan.labels.values()])},
    }
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": "adapted to the supports"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"medfewshot": _version("medfewshot")},
        "optional_packages_version": {name: _version(name) for name in ("nibabel", "pytorch-ignite")},
        "name": f"Few-shot segmentation of {names}",
        "task": f"Few-shot segmentation of {names} in {plan.spatial_dims}D images",
        "description": (
            f"A segmenter adapted to {len(record.get('supports', []))} labelled scan(s). The network works on a grid "
            f"of {_by(plan.spacing_mm)} mm; the workflow brings its result back to each image's own grid."
        ),
        "authors": "whoever adapted it, with medfewshot",
        "copyright": "see LICENSE",
        "intended_use": "research only; not a medical device",
        "data_type": "nifti",
        "label_values": {str(value): name for value, name in plan.labels.items()},
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
    }


def inference_config(plan: Plan) -> dict[str, Any]:
    """``configs/inference.json``: every NIfTI file of ``dataset_dir`` to a label map of its name in ``output_dir``."""
    largest = max(plan.label_values)
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/output'",
        "output_postfix": "",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": _OURS + "load_network", "folder": "@bundle_root"},
        "network": "$@network_def.to(@device)",
        "datalist": {"_target_": _OURS + "list_images", "folder": "@dataset_dir", "channels": plan.channels},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": _OURS + "FewShotInferer", "plan": "$@network_def.plan"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "@output_postfix",
                    "separate_folder": False,
                    "resample": False,
                    "output_dtype": f"$numpy.{'uint8' if largest < 256 else 'int32'}",
                }
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def read_me(name: str, plan: Plan, record: Mapping[str, Any]) -> str:
    """``docs/README.md``: what it segments, how to run it, what it was adapted to, and what it warned of."""
    # File names alone: folders may name people, and a bundle is made to be passed on.
    pairs = [(Path(pair["image"]).name, Path(pair["label"]).name) for pair in record.get("supports", [])]
    supports = [f"- {_code(image)}, labels {_code(label)}" for image, label in pairs]
    labels = [f"| {value} | {_plain(label)} |" for value, label in plan.labels.items()]
    warnings = [f"- {_plain(text)}" for text in record.get("warnings", [])]
    lines = [
        f"# {_plain(name)}",
        "",
        "A few-shot segmenter made by medfewshot. For research only: look at every result before you rely on it.",
        "",
        "| label value | structure |",
        "|---|---|",
        *labels,
        "",
        "## Run it",
        "",
        "With medfewshot's command line (any format that it reads, with previews and a report):",
        "",
        "    medfewshot segment FOLDER --segmenter BUNDLE -o OUT",
        "",
        "Or as a MONAI bundle (NIfTI; needs `pip install medfewshot[monai]`):",
        "",
        "    python -m monai.bundle run --config_file BUNDLE/configs/inference.json --bundle_root BUNDLE \\",
        "        --dataset_dir FOLDER --output_dir OUT",
        "",
        "Label maps come back on each image's own grid, with the label values above.",
        "",
        "## What it was adapted to",
        "",
        *(supports or ["- not recorded"]),
        *(["", _KEEPS] if record.get("keeps_supports") else []),
        "",
        f"Grid: {_by(plan.spacing_mm)} mm; patches of {_by(plan.patch_size)} voxels; intensities: "
        + ", ".join(dict.fromkeys(_plain(f"{n.kind} ({n.reason})") for n in plan.normalization))
        + ".",
        *(["", "## Warnings", "", *warnings] if warnings else []),
    ]
    return "\n".join(lines) + "\n"


def _modality(plan: Plan) -> str:
    """``"CT"`` where the plan has a window in HU, else what the supports said of themselves, or ``"n/a"``."""
    if any(n.kind == "window" for n in plan.normalization):
        return "CT"
    stated = [n.reason.removeprefix("modality ") for n in plan.normalization if n.reason.startswith("modality ")]
    return stated[0] if stated else "n/a"


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def _plain(text: str) -> str:
    """Text in which no character is Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> str:
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "unknown"
