"""Write the files that make the folder of a segmenter a MONAI bundle: metadata, inference config, README and licence.

The format is MONAI's Bundle Specification (https://docs.monai.io/en/latest/mb_specification.html), except for the
weights: they stay safetensors, which cannot run code, and ``medfewshot.integrations.load_network`` reads them. The
texts are in ``templates``, with gaps in braces that plan and record fill. This module does not import MONAI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from medfewshot.io import strict_json, write_text
from medfewshot.types import Plan

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
READ_ME = "docs/README.md"
LICENCE = "LICENSE"
TEMPLATES = {METADATA: "metadata.json", INFERENCE: "inference.json", READ_ME: "README.md", LICENCE: "LICENSE.txt"}
"""File of the bundle, below its folder -> its template."""
PACKAGES = ("monai", "torch", "numpy", "medfewshot", "nibabel", "pytorch-ignite")
KEEPS_SUPPORTS = (
    "**This folder contains these scans and labels** (resampled): every new scan is registered to them. "
    "Share it as carefully as the scans themselves."
)


def write_monai_files(folder: Path, plan: Plan, record: Mapping[str, Any]) -> None:
    """Write the bundle's text files from the plan and the segmenter's record (supports and warnings)."""
    facts = {"bundle": _plain(folder.name or "bundle")} | _facts_of_plan(plan) | _facts_of_record(record)
    for name, template in TEMPLATES.items():
        text = (files("medfewshot.bundle") / "templates" / template).read_text(encoding="utf-8")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            write_text(folder / name, strict_json(_fill(json.loads(text), facts)))
        else:
            write_text(folder / name, text.format_map(facts).rstrip() + "\n")


def _fill(content: Any, facts: Mapping[str, Any]) -> Any:
    """Fill the gaps of JSON content; text that is one gap only becomes the fact itself."""
    if isinstance(content, dict):
        return {key: _fill(value, facts) for key, value in content.items()}
    if isinstance(content, list):
        return [_fill(value, facts) for value in content]
    if not isinstance(content, str):
        return content
    gap = re.fullmatch(r"\{([^{}]+)\}", content)
    return facts[gap[1]] if gap else content.format_map(facts)


def _facts_of_plan(plan: Plan) -> dict[str, Any]:
    modality = _modality(plan)
    intensities = dict.fromkeys(_plain(f"{n.kind} ({n.reason})") for n in plan.normalization)
    return {
        "names": ", ".join(plan.labels.values()),
        "labels": {str(value): name for value, name in plan.labels.items()},
        "label_rows": "\n".join(f"| {value} | {_plain(label)} |" for value, label in plan.labels.items()),
        "label_dtype": "uint8" if max(plan.label_values) < 256 else "int32",
        "classes": plan.classes,
        "class_names": {str(i): name for i, name in enumerate(["background", *plan.labels.values()])},
        "dims": plan.spatial_dims,
        "channels": plan.channels,
        "image_channels": {str(i): f"channel {i} of the image, normalised" for i in range(plan.channels)},
        "image_format": "hounsfield" if modality == "CT" else "magnitude",
        "modality": modality,
        "intensities": ", ".join(intensities),
        "spacing": _by(plan.spacing_mm),
        "patch": _by(plan.patch_size),
        "patch_size": list(plan.patch_size),
    }


def _facts_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    # File names only: folders may contain names of people, and bundles are shared.
    pairs = [(Path(pair["image"]).name, Path(pair["label"]).name) for pair in record.get("supports", [])]
    supports = "\n".join(f"- {_code(image)}, labels {_code(label)}" for image, label in pairs) or "- not recorded"
    warnings = "\n".join(f"- {_plain(text)}" for text in record.get("warnings", []))
    return {
        "shots": len(pairs),
        "supports": f"{supports}\n\n{KEEPS_SUPPORTS}" if record.get("keeps_supports") else supports,
        "warnings": f"\n## Warnings\n\n{warnings}" if warnings else "",
        **{package: version_of(package).split("+")[0] for package in PACKAGES},
    }


def _modality(plan: Plan) -> str:
    """Return ``"CT"`` if the plan has a window in HU, else the modality that the supports state, or ``"n/a"``."""
    if any(n.kind == "window" for n in plan.normalization):
        return "CT"
    stated = [n.reason.removeprefix("modality ") for n in plan.normalization if n.reason.startswith("modality ")]
    return stated[0] if stated else "n/a"


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def _plain(text: str) -> str:
    """Escape every character that has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> str:
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
