"""Meta-trained weights on disk: ``start.safetensors`` (tensors) and ``start.json`` (plain data)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medfewshot.backbones import seeded, to_channels_last
from medfewshot.errors import InputError, did_you_mean
from medfewshot.io import write_text
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors
from medfewshot.learners.base import LEARNERS, LearnerSpec

FORMAT_VERSION = 1
DESCRIPTION = "start.json"
WEIGHTS = "start.safetensors"
PACKAGE_WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True, eq=False)
class Start:
    """Meta-trained weights and how they were made.

    Args:
        learner: The learner that was meta-trained.
        module: What its ``build_start`` made.
        options: Options of ``build_start``.
        record: What training reports.
        adaptation: Settings that adaptation must share with training (``LearnerSpec.shared_settings``).
    """

    learner: str
    module: nn.Module
    options: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    adaptation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> Any:
        """The feature network, of the class ``LearnerSpec.network``."""
        return self.module.backbone


def trainable_spec(name: str) -> LearnerSpec:
    """Return the spec of a learner that can be meta-trained.

    Raises:
        InputError: The learner is unknown or cannot be meta-trained.
    """
    known = [spec.name for spec in LEARNERS.values() if spec.build_start is not None]
    if name not in known:
        problem = "has no meta-parameters" if name in LEARNERS else "unknown"
        raise InputError(f"learner {name}: {problem}", f"choose {' or '.join(known)}", setting="learner")
    return LEARNERS[name]


def build_start(learner: str, backbone: nn.Module, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a new start for ``learner``.

    Raises:
        InputError: The learner cannot be meta-trained, uses another class of network, or an option is unknown.
    """
    spec = trainable_spec(learner)
    if not isinstance(backbone, spec.network):
        raise InputError(
            f"learner {learner}: cannot begin with the network of another kind of learner",
            "choose other weights or none",
            setting="weights",
        )
    unknown = sorted(set(options or {}) - set(spec.start_options))
    if unknown:
        raise InputError(
            f"learner {learner}: its start has no option {', '.join(unknown)}", "correct its start options"
        )
    assert spec.build_start is not None
    return spec.build_start(backbone, **(options or {}))


def check_adaptation(learner: str, settings: Mapping[str, Any], where: str) -> None:
    """Check settings that adaptation shares with meta-training.

    Raises:
        InputError: One is unknown or has a wrong value; the message begins with ``where``.
    """
    known = LEARNERS[learner].shared_settings
    for name, value in settings.items():
        if name not in known:
            remedy = f"known are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{where} {name!r:.40}: is unknown for learner {learner}", remedy)
        if not known[name](value):
            raise InputError(f"{where} {name}: {value!r:.40} is not a value for learner {learner}", "correct it")


def save_start(start: Start, folder: Path, half: bool = False) -> None:
    """Write a start. At no moment is a description beside weights of another start.

    Args:
        start: What to write.
        folder: The folder; it is created.
        half: Write weights as float16, half the size; they are read back as float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = start.module.state_dict()
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    write_tensors(folder / WEIGHTS, tensors, description=folder / DESCRIPTION)
    description = {
        "format_version": FORMAT_VERSION,
        "learner": start.learner,
        "backbone": start.backbone.config,
        "options": dict(start.options),
        "adaptation": dict(start.adaptation),
        "record": dict(start.record),
    }
    write_text(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")


def load_start(folder: Path | str) -> Start:
    """Read on the CPU what :func:`save_start` wrote.

    Args:
        folder: A folder, or the name of weights of the package.

    Raises:
        InputError: There are no such weights, they are damaged, or their settings for adaptation are unknown.
    """
    folder = find_weights(folder)
    path = folder / DESCRIPTION
    with refuse_damage(f"{folder}: the weights are damaged", "copy or train them again"):
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: has format version {version}, this medfewshot reads {FORMAT_VERSION}", "train again"
            )
        build = trainable_spec(name := description["learner"]).network
        backbone = to_channels_last(seeded(lambda: build(**description["backbone"]), 0))
        module = seeded(lambda: build_start(name, backbone, description["options"]), 0)
        module.load_state_dict(read_tensors(folder / WEIGHTS)[0])
        adaptation = dict(description.get("adaptation", {}))  # older files have none
        check_adaptation(description["learner"], adaptation, f"{path}: adaptation")
        return Start(description["learner"], module, description["options"], description["record"], adaptation)


def find_weights(name: Path | str) -> Path:
    """Return the folder of the package's weights ``name``, or the folder ``name`` (``./name`` if both exist).

    Raises:
        InputError: Neither exists.
    """
    own = [PACKAGE_WEIGHTS / str(name)] if Path(name).name == str(name) else []
    for folder in (*own, Path(name)):
        if (folder / DESCRIPTION).is_file():
            return folder
    shipped = sorted(path.parent.name for path in PACKAGE_WEIGHTS.glob(f"*/{DESCRIPTION}"))
    known = f", or one of {', '.join(shipped)}" if shipped else ""
    near = did_you_mean(str(name), shipped)
    raise InputError(
        f"{name}: has no {DESCRIPTION}{near}", f"give a folder that medfewshot train made{known}", setting="weights"
    )


def read_seen(name: Path | str) -> Mapping[str, Any]:
    """Return the real data that the weights ``name`` were trained on: data set -> its subjects and labels."""
    description = json.loads((find_weights(name) / DESCRIPTION).read_text(encoding="utf-8"))
    return dict(description.get("record", {}).get("seen", {}))
