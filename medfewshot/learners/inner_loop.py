"""The inner loop of optimizer-based meta-learning: differentiable gradient descent on one task.

``theta_{t+1} = theta_t - alpha grad L_support(theta_t)``, where every step is a differentiable function of the
meta-parameters. :class:`MamlStart` contains them: the initial weights, and the rates ``alpha`` if these are learned.

References:
    Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks".
    Li et al. 2017, Meta-SGD. Antoniou et al. 2019, MAML++.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from medfewshot.backbones import UNet, convolution, cut_to, seeded, unfold_blocks
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.optimization import dice_cross_entropy

Weights = dict[str, Tensor]
"""Parameter name -> value, as :func:`torch.func.functional_call` takes them."""
Loss = Callable[[Weights], Tensor]
RateKind = Literal["fixed", "element", "step"]
HEAD = "head."


class MamlStart(nn.Module):
    """Every meta-parameter of a learner with an inner loop: initial weights and rates.

    The initial head of a task with any number of classes is made of two rows: one for the background and one for the
    foreground. Structures start from the foreground's row plus fixed offsets (``_row_offsets``). The rows are the head
    of ``backbone``, a :class:`UNet` of two classes. If that has no head because its strides change with the plan, they
    are ``head``, and each row serves every voxel of a block.

    ``rates`` are factors of ``inner_rate`` that start at 1 and may change sign: none (``fixed``), one per element of
    each parameter (``element``: Meta-SGD), or one per parameter tensor and step (``step``: MAML++). Steps after the
    last learned one use its rate.

    Args:
        backbone: The network.
        rates: Which rates are learned.
        inner_steps: Number of inner steps.
        inner_rate: Learning rate of the inner loop.

    Raises:
        InputError: ``rates`` is unknown, or the backbone's head has fewer than two classes.
    """

    OPTIONS: ClassVar[Mapping[str, Any]] = {"rates": "fixed", "inner_steps": 5, "inner_rate": 0.1}
    """Names and defaults of the options."""
    inner_rate: Tensor
    episodes: Tensor

    def __init__(
        self, backbone: UNet, *, rates: RateKind = "fixed", inner_steps: int = 5, inner_rate: float = 0.1
    ) -> None:
        super().__init__()
        if rates not in get_args(RateKind):
            raise InputError(f"rates {rates}: unknown", f"choose {' or '.join(get_args(RateKind))}")
        headless = backbone.config["classes"] == 0
        self.backbone = copy.deepcopy(backbone) if headless else _with_two_classes(backbone)
        self.head = convolution(backbone.config["dims"])(backbone.config["width"], 2, 1) if headless else None
        self.rate_kind: RateKind = rates
        self.rates = nn.ParameterDict()
        # A buffer, because the learned rates are factors of it and must be saved with it.
        self.register_buffer("inner_rate", torch.tensor(float(inner_rate)))
        self.register_buffer("episodes", torch.zeros((), dtype=torch.int64))
        for name, value in self._initial().items():
            if rates == "element":
                self.rates[_key(name)] = nn.Parameter(torch.ones_like(value)[None])
            elif rates == "step":
                self.rates[_key(name)] = nn.Parameter(torch.ones(max(1, inner_steps)))

    def weights(self, classes: int) -> Weights:
        """Return initial weights for a task of ``classes`` logit channels (with background), attached to the start."""
        block = _block(self.backbone)
        weights = {
            name: _tile(self._rows(value), classes, block) if name.startswith(HEAD) else value
            for name, value in self._initial().items()
        }
        return weights | {"head.weight": weights["head.weight"] + _row_offsets(weights["head.weight"], classes)}

    def rate(self, name: str, step: int, classes: int) -> Tensor:
        """Return the learning rate of parameter ``name`` in ``step`` (from 0); it broadcasts against the parameter."""
        if not self.rates:
            return self.inner_rate
        learned = self.rates[_key(name)]
        now = self.inner_rate * learned[min(step, len(learned) - 1)]
        return _tile(self._rows(now), classes, _block(self.backbone)) if now.ndim and name.startswith(HEAD) else now

    def _initial(self) -> Weights:
        own: Weights = {} if self.head is None else {HEAD + name: value for name, value in self.head.named_parameters()}
        return {**dict(self.backbone.named_parameters()), **own}

    def _rows(self, rows: Tensor) -> Tensor:
        """Repeat the rows of background and foreground for every voxel of a block."""
        return rows if self.head is None else rows.repeat_interleave(_block(self.backbone), 0)


def inner_step(
    loss: Loss, weights: Weights, rate: Callable[[str], Tensor], *, second_order: bool, prefix: str = ""
) -> Weights:
    """Return the weights after one step of gradient descent.

    The gradient is partial: a weight that was computed from another, as prototypes are, counts as a variable of its
    own.

    Args:
        loss: Loss as a function of all weights.
        weights: Current weights.
        rate: Learning rate by parameter name.
        second_order: Whether the gradient keeps its graph, so that derivatives of the new weights contain the Hessian.
            Otherwise the gradient counts as a constant, but rates and old weights do not.
        prefix: Only weights whose names begin with this are changed.

    References:
        Finn et al. 2017, section 5.2.
    """
    names = [name for name in weights if name.startswith(prefix)]
    # Views are new nodes of the graph: the gradient stops there, also if one weight was computed from another.
    here = {name: value.view_as(value) for name, value in weights.items()}
    gradients = torch.autograd.grad(loss(here), [here[name] for name in names], create_graph=second_order)
    moved = {name: weights[name] - rate(name) * gradient for name, gradient in zip(names, gradients, strict=True)}
    return weights | moved


def forward(network: UNet, weights: Weights, images: Tensor) -> Tensor:
    """Compute logits ``(B, N + 1, *S)`` of ``images (B, C, *S)`` by ``network`` with ``weights`` instead of its own."""
    with autocast(images.device):
        # One sample at a time, because the normalisation kernel for single samples is faster.
        trunk = weights if network.config["classes"] else {n: w for n, w in weights.items() if not n.startswith(HEAD)}
        given = torch.cat([functional_call(network, trunk, (image[None],)) for image in images])
    return given if network.config["classes"] else forward_head(network, weights, given, images.shape[2:])


def forward_features(network: UNet, images: Tensor) -> Tensor:
    """Compute features ``(B, D, *S')`` of padded ``images (B, C, *S)``, attached to the network's parameters."""
    with autocast(images.device):
        return torch.cat([network.features(image[None]) for image in images])


def forward_head(network: UNet, weights: Weights, features: Tensor, size: torch.Size) -> Tensor:
    """Compute logits ``(B, N + 1, *size)`` of ``features (B, D, *S')`` by the head in ``weights``."""
    convolve = F.conv2d if features.ndim == 4 else F.conv3d
    with autocast(features.device):
        logits = convolve(features, weights["head.weight"], weights["head.bias"])
    return cut_to(unfold_blocks(logits, network.fold), size)


def network_loss(network: UNet, images: Tensor, labels: Tensor) -> Loss:
    """Return the loss of ``images (B, C, *S)`` against ``labels (B, *S)`` as a function of all weights."""
    return lambda weights: dice_cross_entropy(forward(network, weights, images), labels)


def head_loss(network: UNet, features: Tensor, labels: Tensor) -> Loss:
    """Return the loss of ``features (B, D, *S')`` against ``labels (B, *S)`` as a function of the head's weights."""
    return lambda weights: dice_cross_entropy(forward_head(network, weights, features, labels.shape[1:]), labels)


def cyclic_indices(count: int, size: int, step: int) -> list[int]:
    """Return which of ``count`` examples ``step`` uses: ``size`` of them in turn, without repetition in a step."""
    size = min(size, count)
    return [(step * size + i) % count for i in range(size)]


def detached(weights: Weights) -> Weights:
    """Return the same values as new leaves, so that gradients stop here."""
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def with_weights(network: UNet, weights: Weights) -> UNet:
    """Copy ``network`` with ``weights``; the head in ``weights`` gives the number of classes."""
    if network.config["classes"]:
        result = copy.deepcopy(network)
        _replace_head(result, weights["head.weight"], weights["head.bias"])
    else:
        classes = len(weights["head.bias"]) // _block(network)
        result = seeded(lambda: network.with_classes(classes), 0)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(weights[name])
    return result.requires_grad_(True)


def _with_two_classes(backbone: UNet) -> UNet:
    """Copy a network and give its head two classes: the structures of a larger head are averaged."""
    classes, block = backbone.config["classes"], _block(backbone)
    if classes < 2:
        raise InputError(f"backbone: its head has {classes} class(es)", "build it with 2, background and foreground")
    result = copy.deepcopy(backbone)
    if classes > 2:
        head: Any = result.head
        weight, bias = (value.detach().unflatten(0, (classes, block)) for value in (head.weight, head.bias))
        rows = [torch.stack([v[0], v[1:].mean(0)]).flatten(0, 1) for v in (weight, bias)]
        _replace_head(result, *rows)
    return result


def _replace_head(network: UNet, weight: Tensor, bias: Tensor) -> None:
    network.head.weight = nn.Parameter(weight.detach().clone())
    network.head.bias = nn.Parameter(bias.detach().clone())
    network.head.out_channels = len(weight)
    network.config = network.config | {"classes": len(weight) // _block(network)}


def _tile(rows: Tensor, classes: int, block: int) -> Tensor:
    """Repeat the foreground's rows for each structure: ``(2 * block, ...)`` -> ``(classes * block, ...)``."""
    background, foreground = rows.unflatten(0, (2, block))
    return torch.cat([background, *[foreground] * (classes - 1)])


def _row_offsets(rows: Tensor, classes: int) -> Tensor:
    """Return fixed offsets, with mean 0, of the structures' initial rows ``(classes * block, D, 1, ...)``.

    Equal rows have nearly equal gradients and stay alike for hundreds of steps of fine-tuning. The offsets are as large
    as the weights of an untrained layer, and 0 for a single structure.
    """
    offsets = torch.zeros(classes, *rows.unflatten(0, (classes, -1)).shape[1:])
    if classes > 2:
        drawn = torch.randn(offsets[1:].shape, generator=torch.Generator().manual_seed(0))
        spread = (3 * rows.shape[1] * (classes - 2) / (classes - 1)) ** -0.5
        offsets[1:] = spread * (drawn - drawn.mean(0))
    return offsets.flatten(0, 1).to(rows)


def _block(network: UNet) -> int:
    return prod(network.fold)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's names have no dots
