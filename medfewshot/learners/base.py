"""The two contracts of the package: a learner adapts to a support set and returns a segmenter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from medfewshot.types import Doubt, Episode, Support


class Segmenter(nn.Module):
    """A function adapted to one support set: image ``(B, C, *S)`` -> float32 logits ``(B, N + 1, *S)``.

    Channel 0 is the background. A subclass implements :meth:`predict` for one image, :meth:`config` and
    :meth:`from_config`. All its tensors are parameters or buffers, so ``state_dict`` is what a saved segmenter
    contains. Buffers whose size depends on the support may be empty after ``from_config``: they take the size of
    the tensors that ``load_state_dict`` reads.

    Args:
        record: What adaptation reports (steps, seconds, loss). It does not change the result.
    """

    kind: ClassVar[str] = ""
    """Name of the class in a saved segmenter."""
    whole_volume: bool = False
    """Whether it needs the whole field of view, so that inference cuts no windows."""
    keeps_supports: bool = False
    """Whether its tensors contain the support scans."""

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.record = dict(record or {})
        self.register_load_state_dict_pre_hook(_resize_buffers)

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice on the logit scale; None for the default of :mod:`medfewshot.quality`."""
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

    def examine(self, image: Tensor) -> tuple[Tensor, Sequence[Doubt]]:
        """Logits ``(1, N + 1, *S)`` of one image ``(1, C, *S)``, and the structures that the segmenter doubts."""
        return self(image), ()

    def config(self) -> dict[str, Any]:
        """Plain data (JSON) from which :meth:`from_config` builds the module without its tensors."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module; ``load_state_dict`` then reads its tensors."""
        return cls(**config)

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

    def adapt(self, support: Support) -> Segmenter: ...


class MetaLearner(Learner, Protocol):
    """A learner that can be meta-trained: training changes ``start`` and nothing else.

    ``start`` is one module with every meta-parameter: a feature network as ``start.backbone``, and whatever else is
    learned (rates, a temperature). ``meta_loss`` is the scalar loss of one episode, differentiable in the parameters
    of ``start``. The episode's volumes are patches of one shape, on the device of ``start``.
    """

    start: nn.Module | None

    def meta_loss(self, episode: Episode) -> Tensor: ...


def _resize_buffers(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Give the module's own buffers the shape and type of those in ``state``, before torch copies the values."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        if prefix + name in state:
            module.register_buffer(name, torch.empty_like(state[prefix + name], device=buffer.device))


def _resize_list(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for number in range(len(state)):
        if f"{prefix}{number}" not in state:
            return
        module.register_buffer(str(number), torch.empty_like(state[f"{prefix}{number}"]))
