"""The contracts of the package: a learner adapts to a support set and returns a segmenter; a spec declares it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet, build_backbone, to_channels_last
from medfewshot.errors import InputError
from medfewshot.types import Doubt, Episode, Progress, Support

OVERLAP = 0.5
"""Default share of a sliding window that the next one covers again."""
UNREAD = torch.empty(0)
"""Stands for a buffer whose values a file will bring."""


class Segmenter(nn.Module):
    """A function adapted to one support set: image ``(B, C, *S)`` -> float32 logits ``(B, N + 1, *S)``.

    Channel 0 is the background. A subclass implements :meth:`predict` for one image, and names its :attr:`parts` or
    writes its own :meth:`config`. All its tensors are parameters or buffers, so ``state_dict`` is all that is saved.
    Buffers whose size depends on the support are :data:`UNREAD` after ``from_config``: they take the size of the
    tensors that ``load_state_dict`` reads.

    Args:
        record: What adaptation reports (steps, seconds, loss). It does not change the result.
    """

    kind: ClassVar[str] = ""
    """Name of the class in a saved segmenter."""
    whole_volume: bool = False
    """Whether it needs the whole field of view, so that inference cuts no windows."""
    keeps_supports: bool = False
    """Whether its tensors contain the support scans."""
    parts: ClassVar[Mapping[str, Callable[..., nn.Module]]] = {}
    """Modules inside that are arguments of the constructor and have a ``config``: name -> what builds them from it."""

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.record = dict(record or {})
        self.register_load_state_dict_pre_hook(_resize_buffers)

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice on the logit scale; None for the default of :mod:`medfewshot.quality`."""
        return None

    @property
    def trained_network(self) -> UNet | None:
        """The network inside, from which another adaptation can continue; None if there is none."""
        return None

    @property
    def windowed(self) -> Segmenter | None:
        """A part that works in windows, for volumes that are too large for memory; None if there is none."""
        return None

    @property
    def device(self) -> torch.device:
        """Device of its tensors; the CPU if it has none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, N + 1, *S)`` of images ``(B, C, *S)``, one image at a time: that keeps memory flat."""
        return torch.cat([self.predict(one[None].to(self.device)) for one in image.as_subclass(Tensor)])

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(1, N + 1, *S)`` of one image ``(1, C, *S)`` on :attr:`device`."""
        raise NotImplementedError(f"{type(self).__name__} has neither forward nor predict")

    def examine(self, image: Tensor, *, overlap: float = OVERLAP) -> tuple[Tensor, Sequence[Doubt]]:
        """Segment the whole field of view and say which structures are in doubt.

        Args:
            image: ``(1, C, *S)``.
            overlap: Share of a window that the next one covers again, for segmenters that use windows inside.

        Returns:
            Logits ``(1, N + 1, *S)``, and (class index, reason) of each structure that the segmenter doubts.
        """
        return self(image), ()

    def config(self) -> dict[str, Any]:
        """Plain data (JSON) from which :meth:`from_config` builds the module without its tensors: that of its parts."""
        return {name: self.get_submodule(name).config for name in self.parts}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module; ``load_state_dict`` then reads its tensors."""
        parts: dict[str, Any] = {}
        for name, build in cls.parts.items():
            part = build(**config[name])
            parts[name] = to_channels_last(part) if "dims" in config[name] else part
        return cls(**{**config, **parts})

    def copy_to(self, device: torch.device) -> Self:
        """A copy on ``device``; unlike ``to``, this segmenter stays where it is."""
        memo: dict[int, Any] = {}
        for tensor in (*self.parameters(), *self.buffers()):
            # The copies are made on the device: a full one could not hold a second set of tensors.
            twin = tensor.detach().to(device, copy=True)
            memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
        return copy.deepcopy(self, memo)


class FunctionSegmenter(Segmenter):
    """A segmenter around any function of an image ``(B, C, *S)`` that returns logits. It cannot be saved."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, whole_volume: bool = False) -> None:
        super().__init__()
        self.function, self.whole_volume = function, whole_volume

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Call the function."""
        return self.function(image)


class TensorList(nn.Module):
    """A list of tensors of different shapes, as buffers ``0``, ``1``, ... Loading takes what the file contains."""

    def __init__(self, tensors: Sequence[Tensor] = ()) -> None:
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(str(number), tensor)
        self.register_load_state_dict_pre_hook(_resize_list)

    def __iter__(self) -> Iterator[Tensor]:
        return (tensor for tensor in self._buffers.values() if tensor is not None)

    def __len__(self) -> int:
        return len(self._buffers)


class Learner(Protocol):
    """Adapts to a support set and returns a segmenter; ``adapt`` never changes the learner."""

    def adapt(self, support: Support) -> Segmenter:
        """Adapt to ``support`` and return a segmenter; the learner stays as it is."""


class MetaLearner(Learner, Protocol):
    """A learner that can be meta-trained: training changes ``start`` and nothing else.

    ``start`` is one module with every meta-parameter: a feature network as ``start.backbone``, and whatever else is
    learned (rates, a temperature). ``meta_loss`` is the scalar loss of one episode, differentiable in the parameters
    of ``start``. The episode's volumes are patches of one shape, on the device of ``start``.
    """

    start: nn.Module | None

    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss of one episode, a scalar that is differentiable in ``start``."""


@dataclass(frozen=True)
class TrainedOptions:
    """Settings of every learner that trains a network on the supports."""

    steps: int = 1000
    """Optimiser steps. With a meta-trained start, 0 trains nothing."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time; the schedule is shortened to fit. If it ends adaptation, results depend on the
    machine's speed."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""
    width: int = 16
    """Channels of the network's finest level, if there is no ``start``."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: nn.Module | None = None
    """Weights to start from: what the learner's ``build_start`` makes, or a bare backbone. Copied, never changed."""
    progress: Progress = field(default_factory=Progress)

    def shared(self) -> dict[str, Any]:
        """These settings by name, for another learner that trains with them."""
        return {setting.name: getattr(self, setting.name) for setting in fields(TrainedOptions)}


@dataclass(frozen=True)
class LearnerSpec:
    """All that the package knows about one learner. The file of each learner ends with one.

    Args:
        name: The learner's name in settings and files.
        learner: Builds the learner from its settings, as keywords.
        summary: One line for ``--help`` and the docs.
        options: Dataclasses whose fields are the learner's settings; by default ``learner`` is one.
        segmenter: The class that reads a saved segmenter; None if it cannot be saved.
        build_start: ``build_start(backbone, **start_options)`` makes the module that meta-training changes; its
            ``.backbone`` is the network. None if the learner cannot be meta-trained.
        start_options: Options of ``build_start`` with their defaults.
        complete_start_options: Start options from the learner's options and the given start options.
        build_backbone: Makes the random network that meta-training begins with.
        network: The class of that network, which reads it from a file.
        shared: Settings of the learner that adaptation must share with meta-training, each with a check of its value.
            They are saved with the weights.
        weights: (dimensions, channels) of images -> weights of the package that fit them and are used by default.
        steps_from_weights: Default number of steps from weights; None for the same as from scratch.
        steps_continued: Default number of steps from a segmenter that was adapted before; None: it cannot continue.
        adopt: Makes a start of this learner from another learner's start; None if it cannot.
        auto_dims: Dimensions of images for which ``auto`` chooses this learner.
    """

    name: str
    learner: Callable[..., Any]
    summary: str
    options: tuple[type, ...] = ()
    segmenter: type[Segmenter] | None = None
    build_start: Callable[..., nn.Module] | None = None
    start_options: Mapping[str, Any] = field(default_factory=dict)
    complete_start_options: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] = (
        lambda learner_options, start_options: start_options
    )
    build_backbone: Callable[..., nn.Module] = build_backbone
    network: type[nn.Module] = UNet
    shared: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    weights: Mapping[tuple[int, int], str] = field(default_factory=dict)
    steps_from_weights: int | None = None
    steps_continued: int | None = None
    adopt: Callable[[nn.Module], nn.Module | None] = lambda start: None
    auto_dims: tuple[int, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The learner's settings with their defaults."""
        options: Any = self.options or (self.learner,)
        return {one.name: None if one.default is MISSING else one.default for kind in options for one in fields(kind)}


def needs_steps(name: str) -> InputError:
    """The error of learner ``name`` if it gets neither steps nor a meta-trained start."""
    remedy = "give meta-trained weights or some steps"
    return InputError(f"learner {name}: 0 steps leave a random network", remedy, setting="steps")


def needs_start(name: str) -> InputError:
    """The error of learner ``name`` if it is to be meta-trained without what its ``build_start`` makes."""
    return InputError(f"learner {name}: has no start from build_start", "meta-training needs one")


LEARNERS: dict[str, LearnerSpec] = {}
"""Every learner that settings and files may name."""


def register(spec: LearnerSpec) -> LearnerSpec:
    """Make a learner known by its name, for adaptation, training and saved files."""
    LEARNERS[spec.name] = spec
    return spec


def _resize_buffers(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give the module's own buffers the shape and type of those in ``state``, before torch copies the values."""
    for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
        if prefix + name in state:
            module.register_buffer(name, torch.empty_like(state[prefix + name], device=buffer.device))


def _resize_list(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for number in range(len(state)):
        if f"{prefix}{number}" not in state:
            return
        module.register_buffer(str(number), torch.empty_like(state[f"{prefix}{number}"]))
