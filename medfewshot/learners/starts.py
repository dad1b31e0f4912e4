"""What meta-training made, on disk: ``start.safetensors`` (weights) and ``start.json`` (plain data)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medfewshot.backbones import UNet, build_backbone
from medfewshot.errors import InputError, did_you_mean
from medfewshot.io import atomic_path, write_text
from medfewshot.learners import finetune, in_context, prototype, ridge
from medfewshot.learners.cross_unet import CrossUNet
from medfewshot.learners.inner import MamlStart, RateKind
from medfewshot.learners.maml import VARIANTS
from medfewshot.learners.protomaml import ProtoMaml
from medfewshot.learners.segmenters import to_channels_last

FORMAT_VERSION = 1
DESCRIPTION = "start.json"
WEIGHTS = "start.safetensors"
SHIPPED = Path(__file__).resolve().parents[1] / "weights"


def _protomaml_start(
    backbone: UNet, *, rates: RateKind = "fixed", inner_steps: int = 5, inner_rate: float = 0.1, **others: Any
) -> nn.Module:
    return ProtoMaml(rates=rates, inner_steps=inner_steps, inner_rate=inner_rate, **others).build_start(backbone)


def _whole(least: int) -> Callable[[Any], bool]:
    """Whether a value is a whole number from ``least``."""
    return lambda value: type(value) is int and value >= least


STARTS: dict[str, Callable[..., nn.Module]] = {
    "finetune": finetune.build_start,
    "prototype": prototype.build_start,
    "ridge": ridge.build_start,
    "maml": MamlStart,
    "protomaml": _protomaml_start,
    "in_context": in_context.build_start,
}
"""Learner -> ``build_start(backbone, **options)``: a module with every meta-parameter, and ``.backbone`` in it."""

ADAPTATION: dict[str, dict[str, Callable[[Any], bool]]] = {
    "maml": {"variant": VARIANTS.__contains__, "inner_steps": _whole(0), "batch_size": _whole(1)},
    "protomaml": {"inner_steps": _whole(0), "batch_size": _whole(1)},
    "prototype": {"cell": _whole(1)},
}
"""Learner -> settings that no start holds and that adaptation must share with meta-training, and which values they may
have: they are kept beside the weights, and who adapts from these takes them."""

Backbone = UNet | CrossUNet


@dataclass(frozen=True, eq=False)
class Start:
    """A start and where it comes from. ``options`` went into ``build_start``; ``record`` tells of the training.

    ``adaptation``: settings of the learner that it was trained with and is to be adapted with (:data:`ADAPTATION`).
    """

    learner: str
    module: nn.Module
    options: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    adaptation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> Any:
        """A :class:`UNet`, or the :class:`CrossUNet` of a learner that reads supports beside the query."""
        return self.module.backbone


def build_start_backbone(
    learner: str, *, dims: int, in_channels: int = 1, width: int = 16, levels: int = 4
) -> Backbone:
    """A random network, to be meta-trained, of the kind that ``learner`` stands on."""
    build: Any = in_context.build_backbone if _network_of(learner) is CrossUNet else build_backbone
    return build(dims=dims, in_channels=in_channels, width=width, levels=levels)  # type: ignore[no-any-return]


def build_start(learner: str, backbone: nn.Module, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A fresh start for ``learner``.

    Raises InputError where it cannot be meta-trained, stands on another kind of network, or an option is unknown.
    """
    if learner not in STARTS:
        raise InputError(f"learner {learner}: has no meta-parameters to train; choose {' or '.join(STARTS)}")
    if not isinstance(backbone, _network_of(learner)):
        raise InputError(
            f"learner {learner}: cannot begin with the network of weights that were trained for another kind of "
            "learner; choose other weights or leave them out"
        )
    try:
        return STARTS[learner](backbone, **(options or {}))
    except TypeError as error:
        raise InputError(f"learner {learner}: {error}; correct its start options") from None


def adaptation_of(name: str, learner: Any) -> dict[str, Any]:
    """The settings of ``learner``, called ``name``, that :data:`ADAPTATION` lists."""
    return {setting: getattr(learner, setting) for setting in ADAPTATION.get(name, ())}


def check_adaptation(learner: str, settings: Mapping[str, Any], where: str) -> None:
    """Raise InputError, which begins with ``where``, for settings that :data:`ADAPTATION` does not list."""
    known = ADAPTATION.get(learner, {})
    for name, value in settings.items():
        if name not in known:
            told = f"known are {', '.join(known)}" if known else "it has none; take it out"
            raise InputError(f"{where} {name!r:.40}: is unknown for learner {learner}; {told}")
        if not known[name](value):
            raise InputError(f"{where} {name}: {value!r:.40} is no value that learner {learner} can take; correct it")


def save_start(start: Start, folder: Path, half: bool = False) -> None:
    """Write a start. At no moment does a description lie beside weights that are not its own.

    ``half``: weights as float16, half the size; they are read back as float32.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in start.module.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
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
    """Read what :func:`save_start` wrote, on the CPU; ``folder`` may also name weights that come with the package.

    Raises InputError where it is no such folder, it is damaged, or it asks for adaptation in an unknown way.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_weights(folder)
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: format version {version}, this medfewshot reads {FORMAT_VERSION}; train again")
        backbone = to_channels_last(_network_of(description["learner"])(**description["backbone"]))
        module = build_start(description["learner"], backbone, description["options"])
        module.load_state_dict(load_file(folder / WEIGHTS))
        adaptation = dict(description.get("adaptation", {}))  # older files have none
        check_adaptation(description["learner"], adaptation, f"{path}: adaptation")
        return Start(description["learner"], module, description["options"], description["record"], adaptation)
    except InputError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        raise InputError(f"{folder}: the weights are damaged ({reason}); copy or train them again") from None


def _network_of(learner: str) -> type[UNet] | type[CrossUNet]:
    return CrossUNet if learner == "in_context" else UNet


def find_weights(name: Path | str) -> Path:
    """The shipped weights ``name``, or the folder (``./name`` where one is called so too). Raises InputError."""
    own = [SHIPPED / str(name)] if Path(name).name == str(name) else []
    for folder in (*own, Path(name)):
        if (folder / DESCRIPTION).is_file():
            return folder
    shipped = sorted(path.parent.name for path in SHIPPED.glob(f"*/{DESCRIPTION}"))
    known = f", or one of {', '.join(shipped)}" if shipped else ""
    near = did_you_mean(str(name), shipped)
    raise InputError(f"{name}: has no {DESCRIPTION}{near}; give a folder that medfewshot train made{known}")


def read_seen(name: Path | str) -> Mapping[str, Any]:
    """Real data that the weights ``name`` have seen: data set -> its subjects and labels; empty where there is none."""
    description = json.loads((find_weights(name) / DESCRIPTION).read_text(encoding="utf-8"))
    return dict(description.get("record", {}).get("seen", {}))
