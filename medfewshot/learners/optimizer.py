"""Muon for convolution kernels, AdamW for the rest: adaptation in half the steps.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": the momentum of a weight matrix is
replaced by its nearest semi-orthogonal matrix, so that no direction of the layer lags behind. The update is scaled to
AdamW's size as in Liu et al. 2025, "Muon is scalable for LLM training", so that one learning rate serves both.
``torch.optim.Muon`` takes matrices only; convolution kernels are matrices of (outputs, inputs x kernel) here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAMW_SIZE = 0.2
"""Root mean square of a typical AdamW update, as a multiple of the learning rate."""
ENDS = ("stem", "head")
"""First and last layer stay with AdamW, as in the paper."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """The semi-orthogonal matrix nearest to ``matrix (rows, columns)``, by five Newton-Schulz iterations.

    An iteration ``x <- p(G) x`` with ``G = x x^T`` takes ``G`` to ``p(G) G p(G)``. So only small square matrices are
    iterated, and the product of all ``p(G)`` meets the wide one once: a kernel has 27 times as many inputs as outputs.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    unit = torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = unit
    for _ in range(NEWTON_SCHULZ_STEPS):
        polynomial = a * unit + b * gram + c * gram @ gram
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    x = product @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; ``parameters`` have two axes or more, the first being the outputs."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])
        update = orthogonalised(ahead.reshape(ahead.shape[0], -1))
        size = ADAMW_SIZE * max(update.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * size)


class AdaptationOptimizer:
    """Muon and AdamW behind one ``step``, ``zero_grad`` and learning rate."""

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        kernels: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            inner = not any(part in ENDS for part in name.split("."))
            (kernels if parameter.ndim > 2 and inner else rest).append(parameter)
        self.parts = (
            Muon(kernels, lr, weight_decay),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay),
        )

    def set_rate(self, lr: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)
