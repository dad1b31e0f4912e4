"""Training of a network on one support set: loss, optimizer, learning-rate schedule and loop.

Muon trains convolution kernels and AdamW the rest, which halves the number of steps. Muon replaces the momentum of a
weight matrix by the nearest semi-orthogonal matrix. The update is scaled to AdamW's size, so that both use one learning
rate. ``torch.optim.Muon`` takes matrices only; here a kernel is a matrix of (outputs, inputs x kernel).

References:
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    Liu et al. 2025, "Muon is scalable for LLM training".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.learners.base import TrainedOptions

RECENT = 20
"""The final loss is the mean of this many steps."""
TIMED_STEPS = (2, 8)
"""These steps are timed to turn the budget into steps; the first ones are slower. All before the second are judged."""
COLLAPSED_DICE = 0.02
"""Below this training Dice, a network has learned background only."""
LARGEST_NORM = 5.0
"""Gradients are clipped to this norm."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from the reference implementation of Muon."""
NEWTON_SCHULZ_STEPS = 5
ADAMW_SIZE = 0.2
"""Root mean square of a typical AdamW update, as a multiple of the learning rate."""
ENDS = ("stem", "head")
"""AdamW trains first and last layer, as in the paper."""
LEARNING_RATE, MOMENTUM = 8e-3, 0.8
"""Default peak learning rate, and momentum of Muon (``lab/notes/learners.md``)."""
FEW_STEPS, MOST_HASTE = 100, 2.0
"""With more steps, the default rate may change by the square root of their multiple, at most by a factor of 2."""
FAMILIAR_LOSS, STRANGE_LOSS = 0.3, 0.75
"""The rate falls in full if the mean loss of the first steps is at most the first limit, and rises in full from the
second on. A start that knows the structures begins with less loss; a high rate would make it forget them. From one
support a start learns too little to make up for that, so there the rate falls in full."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return the semi-orthogonal matrix nearest to ``matrix (rows, columns)``, by five Newton-Schulz iterations.

    An iteration ``x <- p(G) x`` with ``G = x x^T`` takes ``G`` to ``p(G) G p(G)``. So only small square matrices are
    iterated, and the product of all ``p(G)`` multiplies the wide matrix once.
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
    """Optimizer with orthogonalised Nesterov momentum.

    Args:
        parameters: Parameters with two axes or more; the first axis counts the outputs.
        lr: Learning rate.
        weight_decay: Weight decay.
        momentum: Decay of the momentum.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
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


def make_optimizers(
    network: nn.Module, lr: float, weight_decay: float, momentum: float = 0.95
) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the kernels between the first and last layer of a network, and AdamW for all other parameters."""
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        inner = not any(part in ENDS for part in name.split("."))
        (kernels if parameter.ndim > 2 and inner else rest).append(parameter)
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    return Muon(kernels, lr, weight_decay, momentum), adamw


class GradientDescent:
    """Trains a network for a number of steps or until a time budget ends.

    Args:
        network: The network, trained in place.
        options: Steps, budget, learning rate and progress.
        begun: ``time.perf_counter()`` at which the budget began.
        slower: Divides the learning rate.
        weight_decay: Weight decay of both optimizers.
        gently: Whether the default rate falls whatever the loss.
    """

    def __init__(
        self, network: nn.Module, options: TrainedOptions, *, begun: float, slower: int = 1,
        weight_decay: float = 0.01, gently: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.begun = network, begun
        self.steps, self.budget_seconds = options.steps, options.budget_seconds
        self.rate_is_given, self.gently = options.learning_rate is not None, gently
        self.rate = (options.learning_rate or LEARNING_RATE) / slower
        self.progress = options.progress.at("training the network")
        self.optimizers = make_optimizers(network.train(), self.rate, weight_decay, MOMENTUM)
        self.losses: list[float] = []
        self.skipped = 0
        self.stopped_by = ""

    def run(self, backward: Callable[[], float], failed: Callable[[], bool] = lambda: False) -> None:
        """Train.

        Args:
            backward: Computes the loss of one step, runs the backward pass and returns the loss.
            failed: Called halfway; True ends training.
        """
        total, done, timed_from = self.steps, 0, self.begun
        while done < total and not self.out_of_time():
            if done == TIMED_STEPS[0]:
                timed_from = time.perf_counter()
            elif done == TIMED_STEPS[1]:
                total = min(total, self._affordable_steps(timed_from))
                self.rate *= 1.0 if self.rate_is_given else self._haste(total)
            self._step(backward, self.rate * one_cycle(done / total))
            done += 1
            self.progress.update(done, total, f"loss {self.losses[-1]:.2f}")
            if done == total // 2 and failed():
                self.stopped_by = "collapse"
                return
        self.stopped_by = "steps" if done == self.steps else "budget"
        if done < total:
            self.progress.update(done, done, "out of time")

    def out_of_time(self) -> bool:
        """Return whether the budget is spent; a first step is always made."""
        budget = self.budget_seconds
        return budget is not None and bool(self.losses) and time.perf_counter() - self.begun > budget

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last steps; NaN before the first."""
        recent = self.losses[-RECENT:]
        return sum(recent) / len(recent) if recent else math.nan

    def record(self) -> dict[str, Any]:
        """Return what a segmenter's record contains about training."""
        return {
            "steps": len(self.losses),
            "stopped_by": self.stopped_by,
            "learning_rate": round(self.rate, 5),
            "final_loss": round(self.recent_loss, 4) if math.isfinite(self.recent_loss) else None,
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }

    def _haste(self, steps: int) -> float:
        """Return the factor of the rate: higher for what the network does not know, lower for what it knows."""
        loss = 0.0 if self.gently else self.recent_loss
        strange = (2 * loss - FAMILIAR_LOSS - STRANGE_LOSS) / (STRANGE_LOSS - FAMILIAR_LOSS)
        most = min(MOST_HASTE, max(1.0, (steps / FEW_STEPS) ** 0.5))
        return float(most ** min(1.0, max(-1.0, strange)))

    def _affordable_steps(self, timed_from: float) -> int:
        """Return how many steps fit into the budget, by the time that the first ones took."""
        if self.budget_seconds is None:
            return self.steps
        now = time.perf_counter()
        per_step = (now - timed_from) / (TIMED_STEPS[1] - TIMED_STEPS[0])
        left = self.budget_seconds - (now - self.begun)
        return TIMED_STEPS[1] + max(1, int(0.97 * left / per_step))

    def _step(self, backward: Callable[[], float], rate: float) -> None:
        self.losses.append(backward())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_NORM)
        self.skipped += not torch.isfinite(norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if torch.isfinite(norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def one_cycle(fraction: float, warm_up: float = 0.15) -> float:
    """Return the factor of the learning rate at ``fraction`` of the training.

    The factor rises as a cosine to 1 during the warm-up and falls as a cosine to 0 at the end.

    References:
        Smith & Topin 2018, "Super-Convergence".
    """
    if fraction < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * fraction / warm_up)) / 2
    return (1 + math.cos(math.pi * (fraction - warm_up) / (1 - warm_up))) / 2


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute cross entropy plus (1 - Dice) over the classes present in the labels."""
    return dice_cross_entropy_parts(logits, labels)[0]


def dice_cross_entropy_parts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and the soft Dice and the classes present that it contains; IGNORED voxels do not count."""
    if bool((labels < 0).any()):
        known = labels >= 0
        if not bool(known.any()):
            return logits.sum() * 0, logits.new_zeros(logits.shape[1] - 1), known.new_zeros(logits.shape[1] - 1)
        logits, labels = logits.movedim(1, 0)[:, known][None], labels[known][None]
    log_probabilities = at_least_float32(logits).log_softmax(1)
    dice, present = soft_dice(log_probabilities, labels)
    dice_term = ((1 - dice) * present).sum() / present.sum().clamp_min(1)
    cross_entropy = -log_probabilities.gather(1, labels.unsqueeze(1)).mean()
    return cross_entropy + dice_term, dice, present


def soft_dice(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the soft Dice per foreground class over the whole batch.

    Args:
        log_probabilities: ``(B, N + 1, *S)``.
        labels: ``(B, *S)`` int64.

    Returns:
        Dice ``(N,)`` in [0, 1], and whether the batch contains each class ``(N,)``.

    References:
        Milletari et al. 2016, "V-Net".
    """
    # Sum over voxels by class without a one-hot volume, because memory traffic is the cost.
    classes = log_probabilities.shape[1]
    own = log_probabilities.gather(1, labels.unsqueeze(1)).exp().flatten()
    where = labels.flatten()
    overlap = own.new_zeros(classes).index_add(0, where, own)[1:]
    counts = torch.bincount(where, minlength=classes)[1:]
    predicted = log_probabilities.exp().sum((0, *range(2, log_probabilities.ndim)))[1:]
    return (2 * overlap + 1e-5) / (predicted + counts + 1e-5), counts > 0


def at_least_float32(logits: Tensor) -> Tensor:
    """Convert to float32; float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()
