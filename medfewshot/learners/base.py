"""Contracts of learners and segmenters: a learner adapts to a support set and returns a segmenter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet, build_backbone, seeded, to_channels_last
from medfewshot.errors import InputError
from medfewshot.types import Episode, Progress, Support, UncertainStructure

OVERLAP = 0.5
"""Default share of a sliding window that the next one covers again."""
NOT_LOADED = torch.empty(0)
"""Placeholder of a buffer until a file is read."""


class Segmenter(nn.Module):
    """A function adapted to one support set: image ``(B, C, *S)`` -> float32 logits ``(B, N + 1, *S)``.

    Channel 0 is the background. A subclass implements :meth:`predict` for one image, and names its :attr:`parts` or
    writes its own :meth:`config`. All its tensors are parameters or buffers, so ``state_dict`` contains all that is
    saved. Buffers whose size depends on the support are :data:`NOT_LOADED` after ``from_config``: ``load_state_dict``
    gives them the size of the tensors that it reads.

    Args:
        record: What adaptation reports (steps, seconds, loss). It does not change the result.
    """

    kind: ClassVar[str] = ""
    """Name of the class in a saved segmenter."""
    whole_volume: bool = False
    """Whether it needs the whole field of view, so inference uses no sliding window."""
    keeps_supports: bool = False
    """Whether its tensors contain the support scans."""
    parts: ClassVar[Mapping[str, Callable[..., nn.Module]]] = {}
    """Submodules that are arguments of the constructor and have a ``config``: name -> what builds them from it."""

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
        """A part that works in windows, for volumes that do not fit into memory; None if there is none."""
        return None

    @property
    def device(self) -> torch.device:
        """Device of its tensors; the CPU if it has none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Compute logits ``(B, N + 1, *S)`` of images ``(B, C, *S)``, one image at a time to limit memory."""
        return torch.cat([self.predict(one[None].to(self.device)) for one in image.as_subclass(Tensor)])

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of one image ``(1, C, *S)`` on :attr:`device`."""
        raise NotImplementedError(f"{type(self).__name__} has neither forward nor predict")

    def examine(self, image: Tensor, *, overlap: float = OVERLAP) -> tuple[Tensor, Sequence[UncertainStructure]]:
        """Compute logits of the whole field of view and list uncertain structures.

        Args:
            image: ``(1, C, *S)``.
            overlap: Share of a sliding window that the next one covers again, if the segmenter uses windows.

        Returns:
            Logits ``(1, N + 1, *S)``, and (class index, reason) of each uncertain structure.
        """
        return self(image), ()

    def config(self) -> dict[str, Any]:
        """Return plain data (JSON) from which :meth:`from_config` builds the module without its tensors."""
        return {name: self.get_submodule(name).config for name in self.parts}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module; ``load_state_dict`` then reads its tensors."""
        parts: dict[str, Any] = {}
        for name, build in cls.parts.items():
            part = seeded(partial(build, **config[name]), 0)
            parts[name] = to_channels_last(part) if "dims" in config[name] else part
        return cls(**{**config, **parts})

    def copy_to(self, device: torch.device) -> Self:
        """Return a copy on ``device``; unlike ``to``, this leaves the segmenter itself on its device."""
        memo: dict[int, Any] = {}
        for tensor in (*self.parameters(), *self.buffers()):
            # Copy to the device at once: this one may have no memory for a second set of tensors.
            twin = tensor.detach().to(device, copy=True)
            memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
        return copy.deepcopy(self, memo)


class FunctionSegmenter(Segmenter):
    """Wraps any function of an image ``(B, C, *S)`` that returns logits. It cannot be saved.

    Args:
        function: The function.
        whole_volume: Whether it needs the whole field of view.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, whole_volume: bool = False) -> None:
        super().__init__()
        self.function, self.whole_volume = function, whole_volume

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Call the function."""
        return self.function(image)


class TensorList(nn.Module):
    """A list of tensors of different shapes, stored as buffers ``0``, ``1``, ... Loading replaces the list."""

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
    learned (rates, a temperature). The volumes of an episode are patches of one shape, on the device of ``start``.
    """

    start: nn.Module | None

    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss of one episode, a scalar that is differentiable in ``start``."""


@dataclass(frozen=True)
class TrainedOptions:
    """Settings of every learner that trains a network on the supports."""

    steps: int = 1000
    """Optimizer steps. With a meta-trained start, 0 trains nothing."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time; the schedule is shortened to fit. If it ends adaptation, results depend on the
    machine's speed."""
    learning_rate: float | None = None
    """Peak of the one-cycle schedule. None: 0.008; with many steps 0.004 to 0.016, by the first loss."""
    width: int = 16
    """Channels of the network's finest level, if there is no ``start``."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: nn.Module | None = None
    """Weights to start from: what the learner's ``build_start`` makes, or a bare backbone. They are copied."""
    progress: Progress = field(default_factory=Progress)

    def as_keywords(self) -> dict[str, Any]:
        """Return these settings by name, to pass them to another learner."""
        return {setting.name: getattr(self, setting.name) for setting in fields(TrainedOptions)}


@dataclass(frozen=True)
class LearnerSpec:
    """All that the package knows about one learner. The file of each learner ends with one.

    Args:
        name: The learner's name in settings and files.
        learner: Builds the learner from its settings, as keywords.
        summary: One line for ``--help`` and the docs.
        options: Dataclasses whose fields are the learner's settings; default: ``learner`` itself.
        segmenter: The class that reads a saved segmenter; None if it cannot be saved.
        build_start: ``build_start(backbone, **start_options)`` makes the module that meta-training changes; its
            ``.backbone`` is the network. None if the learner cannot be meta-trained.
        start_options: Options of ``build_start`` with their defaults.
        complete_start_options: Returns the start options for given learner options and start options.
        build_backbone: Makes the random network that meta-training begins with.
        network: The class of that network, which reads it from a file.
        shared_settings: Settings of the learner that adaptation must share with meta-training, each with a check of its
            value. They are saved with the weights.
        weights: (dimensions, channels) of images -> weights of the package that are used by default.
        steps_from_weights: Default number of steps from weights; None for the same as from scratch.
        steps_continued: Default number of steps from an adapted segmenter; None if it cannot continue.
        instant_steps: Steps of a draft within seconds: 0 without training, None if the learner is not for drafts.
        convert_start: Makes a start of this learner from another learner's start; returns None if it cannot.
        auto_dims: Dimensions of images for which ``auto`` means this learner.
        derived: Whether it learns from :attr:`medfewshot.types.Support.derived` examples too.
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
    shared_settings: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    weights: Mapping[tuple[int, int], str] = field(default_factory=dict)
    steps_from_weights: int | None = None
    steps_continued: int | None = None
    instant_steps: int | None = None
    convert_start: Callable[[nn.Module], nn.Module | None] = lambda start: None
    auto_dims: tuple[int, ...] = ()
    derived: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The learner's settings with their defaults."""
        options: Any = self.options or (self.learner,)
        return {one.name: None if one.default is MISSING else one.default for kind in options for one in fields(kind)}


def missing_steps_error(name: str) -> InputError:
    """Return the error of learner ``name`` without steps and without a meta-trained start."""
    remedy = "give meta-trained weights or some steps"
    return InputError(f"learner {name}: 0 steps leave a random network", remedy, setting="steps")


def missing_start_error(name: str) -> InputError:
    """Return the error of learner ``name`` in meta-training without what its ``build_start`` makes."""
    return InputError(f"learner {name}: has no start from build_start", "meta-training needs one")


LEARNERS: dict[str, LearnerSpec] = {}
"""Every learner that settings and files may name."""


def register(spec: LearnerSpec) -> LearnerSpec:
    """Add a learner to :data:`LEARNERS`, for adaptation, training and saved files."""
    LEARNERS[spec.name] = spec
    return spec


def _resize_buffers(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give the module's own buffers the shape and dtype of those in ``state``, before torch copies the values."""
    for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
        if prefix + name in state:
            module.register_buffer(name, torch.empty_like(state[prefix + name], device=buffer.device))


def _resize_list(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for number in range(len(state)):
        if f"{prefix}{number}" not in state:
            return
        module.register_buffer(str(number), torch.empty_like(state[f"{prefix}{number}"]))
