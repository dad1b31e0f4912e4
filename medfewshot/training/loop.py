"""The training loop of all meta-learners.

A step sums the gradients of several episodes. The optimizer is AdamW, or Muon for the kernels; the learning rate warms
up linearly and then follows a half cosine. An exponential moving average of the weights is validated and saved.

References:
    Loshchilov & Hutter, Decoupled weight decay regularization, ICLR 2019 (AdamW).
    Polyak & Juditsky, Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 1992.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.backbones import GLOBAL_RANDOM
from medfewshot.episodes import EpisodeSource, episode_seed
from medfewshot.errors import InputError
from medfewshot.io.tensors import read_tensors, refuse_damage, write_tensors
from medfewshot.learners.base import MetaLearner
from medfewshot.learners.optimization import make_optimizers
from medfewshot.learners.patches import fit_strides
from medfewshot.structures import dice
from medfewshot.training import checkpoint as disk
from medfewshot.training.distributed import World
from medfewshot.training.logs import TRAINING, VALIDATION, Logs
from medfewshot.training.settings import TrainSettings
from medfewshot.types import Episode, Progress

TRAIN_STREAM, VALIDATION_STREAM = 0, 1
EMA_WARM_UP = 10
"""Early steps have a lower decay: (1 + step) / (EMA_WARM_UP + step), up to ``TrainSettings.ema``."""


class Trainer:
    """Trains ``learner.start`` in place; checkpoint and logs are in ``folder``.

    Args:
        learner: Its ``meta_loss`` is minimised.
        training: Source of training episodes.
        validation: Source of validation episodes.
        settings: How to train.
        folder: Folder of the run.
        device: Where the start is.
        world: The processes of the run.
        progress: Receives the fraction that is done.
        mlflow: A tracking URI or a folder that receives the logs too.

    Attributes:
        warnings: What the user should know, one line each.
        validated: Loss (and Dice) of the last validation.

    Raises:
        InputError: The learner has no start.
    """

    def __init__(
        self,
        learner: MetaLearner,
        training: EpisodeSource,
        validation: EpisodeSource,
        settings: TrainSettings,
        folder: Path,
        *,
        device: torch.device = torch.device("cpu"),
        world: World = World(),
        progress: Progress | None = None,
        mlflow: str | None = None,
    ) -> None:
        if learner.start is None:
            raise InputError("this learner has no start to train", "choose another", setting="learner")
        self.learner, self.start, self.settings, self.folder = learner, learner.start, settings, folder
        self.training, self.validation = training, validation
        self.device, self.world, self.progress = device, world, progress or Progress()
        self.mlflow = mlflow
        self.warnings: list[str] = []
        world.share_start(self.start)
        self.names = {p: name for name, p in self.start.named_parameters() if p.requires_grad}
        self.counter = dict(self.start.named_buffers()).get("episodes")
        """Number of episodes seen so far by all processes, for starts that anneal."""
        self.optimizers = _make_optimizers(self.start, settings)
        self.ema = {name: value.detach().clone() for name, value in self.start.state_dict().items()}
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self.sums = torch.zeros(3, dtype=torch.float64)
        """Sums of loss, gradient norm and steps since the last row of the log."""
        self.validated: dict[str, float] = {}

    def run(self, resume: bool = False) -> dict[str, Any]:
        """Train to the end of the steps or minutes and return a summary; the last step's state is saved."""
        path = self.folder / disk.NAME
        if resume and path.is_file():
            with refuse_damage(f"{path}: cannot be resumed from", "replace the run", setting="overwrite"):
                self._restore(*read_tensors(path))
        self.world.wait()
        with self._open_logs() as logs:
            while self._fraction() < 1:
                self._one_step(logs)
                self.progress.update(self._fraction(), 1, self._text())
        if 100 * self.skipped > self.step:
            share = f"{self.skipped} of {self.step} steps"
            self.warnings.append(f"{share} were skipped, as their loss was no number; lower the learning rate")
        seconds = round(self.seconds, 1)
        return {"steps": self.step, "skipped": self.skipped, "seconds": seconds, "validation": self.validated}

    def _open_logs(self) -> AbstractContextManager[Logs | None]:
        if not self.world.first:
            return nullcontext()
        settings = self.settings.model_dump(mode="json")
        return Logs(self.folder, step=self.step, mlflow=self.mlflow, settings=settings, warn=self.warnings.append)

    # A step

    def _one_step(self, logs: Logs | None) -> None:
        """Train one step; log, validate and save if it is time."""
        fraction, begun = self._fraction(), time.perf_counter()
        self._train_step(fraction)
        self.step += 1
        self.seconds += time.perf_counter() - begun
        done = self._fraction() >= 1
        if self.step % self.settings.log_every == 0 or done:
            self._log_training(logs, fraction)
        if self.step % self.settings.validate_every == 0 or done:
            self.validated = self._validate()
            if logs is not None:
                logs.write(VALIDATION, {"step": self.step, **self.validated})
        if self.step % self.settings.checkpoint_every == 0 or done:
            self._checkpoint()

    def _fraction(self) -> float:
        """Return the finished fraction of the run, in [0, 1]; the same in every process."""
        by_steps = self.step / self.settings.steps
        if self.settings.minutes is None:
            return min(1.0, by_steps)
        clock = self.world.from_first(torch.tensor(self.seconds, dtype=torch.float64, device=self._wire))
        return min(1.0, max(by_steps, float(clock) / (60 * self.settings.minutes)))

    @property
    def _wire(self) -> torch.device:
        """Device of numbers that are sent to other processes."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def _train_step(self, fraction: float) -> None:
        settings, world = self.settings, self.world
        rate = settings.learning_rate * warm_cosine(fraction, settings.warm_up)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        self.start.train()
        total = torch.zeros((), dtype=torch.float64, device=self._wire)
        first = self.step * settings.episodes_per_step
        earlier = 0 if self.counter is None else int(self.counter)
        for number in range(first + world.rank, first + settings.episodes_per_step, world.size):
            self._count(earlier + number - first)
            seed = episode_seed(settings.seed, TRAIN_STREAM, number)
            episode = self.training.sample(seed, progress=fraction, device=self.device)
            loss = self._loss(episode, seed) / settings.episodes_per_step
            loss.backward()
            total += loss.detach()
        self._count(earlier + settings.episodes_per_step)
        world.sum_gradients(self.names)
        loss_mean = float(world.sum(total))
        norm = torch.nn.utils.clip_grad_norm_(self.names, settings.clip)
        # A loss that is not a number must not end the run; the step is skipped and counted.
        if math.isfinite(loss_mean) and bool(norm.isfinite()):
            for optimizer in self.optimizers:
                optimizer.step()
            self._average()
            self.sums += torch.tensor([loss_mean, float(norm), 1.0], dtype=torch.float64)
        else:
            self.skipped += 1

    def _count(self, episodes: int) -> None:
        if self.counter is not None:
            self.counter.fill_(episodes)

    def _loss(self, episode: Episode, seed: int) -> Tensor:
        """Compute the learner's loss; its draws from torch's global generator depend on the episode's seed."""
        fit_strides(self.start.backbone, episode.support)  # type: ignore[arg-type]
        devices = [self.device] if self.device.type == "cuda" else []
        with GLOBAL_RANDOM, torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return self.learner.meta_loss(episode)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (EMA_WARM_UP + self.step))
        for name, value in self.start.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    # Validation

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the start its averaged weights inside the block."""
        own = {name: value.detach().clone() for name, value in self.start.state_dict().items()}
        self.start.load_state_dict(self.ema)
        try:
            yield
        finally:
            self.start.load_state_dict(own)

    def _validate(self) -> dict[str, float]:
        """Return the mean loss (and Dice) of fixed validation episodes, with the averaged weights."""
        count, world = self.settings.validation_episodes, self.world
        sums = torch.zeros(3, dtype=torch.float64, device=self._wire)
        self.start.eval()
        with self.averaged():
            for number in range(world.rank, count, world.size):
                seed = episode_seed(self.settings.seed, VALIDATION_STREAM, number)
                episode = self.validation.sample(seed, device=self.device)
                with torch.no_grad():
                    sums[0] += float(self._loss(episode, seed))
                if self.settings.validate_dice:
                    dice = query_dice(self.learner, episode)
                    sums[1:] += torch.tensor([dice.sum(), len(dice)]).to(sums)
        loss, dice_sum, classes = world.sum(sums).tolist()
        found = {"loss": loss / count}
        if self.settings.validate_dice:
            found["dice"] = dice_sum / max(classes, 1)
        return found

    # Reports and state

    def _log_training(self, logs: Logs | None, fraction: float) -> None:
        loss, norm, steps = self.sums.tolist()
        self.sums.zero_()
        if logs is None or not steps:
            return
        row = {
            "step": self.step,
            "loss": loss / steps,
            "gradient_norm": norm / steps,
            "learning_rate": self.settings.learning_rate * warm_cosine(fraction, self.settings.warm_up),
            "skipped": self.skipped,
            "seconds": round(self.seconds, 2),
            "episodes_per_second": round(self.step * self.settings.episodes_per_step / max(self.seconds, 1e-9), 2),
        }
        logs.write(TRAINING, row)

    def _text(self) -> str:
        scores = "".join(f", validation {name} {value:.3f}" for name, value in self.validated.items())
        return f"step {self.step}{scores}"

    def _checkpoint(self) -> None:
        if not self.world.first:
            return
        tensors = {
            **disk.with_prefix("start", self.start.state_dict()),
            **disk.with_prefix("ema", self.ema),
            **disk.with_prefix("optimizer", disk.optimizer_tensors(self.optimizers, self.names)),
        }
        facts = {
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "sums": self.sums.tolist(),
            "validated": self.validated,
            "settings": self.settings.model_dump(mode="json"),
        }
        write_tensors(self.folder / disk.NAME, tensors, facts)

    def _restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        path = self.folder / disk.NAME
        wanted, kept = self.settings.model_dump(mode="json"), dict(facts["settings"])
        with suppress(InputError):  # settings that the earlier version of a run did not have get their defaults
            kept = type(self.settings)(**kept).model_dump(mode="json")
        changed = sorted(name for name in wanted if wanted[name] != kept.get(name))
        if changed:
            raise InputError(
                f"{path}: was made with other settings ({', '.join(changed)})",
                "resume with the same settings, or replace the run",
                setting="overwrite",
            )
        with refuse_damage(f"{path}: is of another network", "replace the run", setting="overwrite"):
            self.start.load_state_dict(disk.without_prefix("start", tensors))
            for name, value in self.ema.items():
                value.copy_(tensors[f"ema.{name}"])
            disk.restore_optimizer(self.optimizers, self.names, disk.without_prefix("optimizer", tensors))
        self.step, self.skipped, self.seconds = facts["step"], facts["skipped"], facts["seconds"]
        self.sums = torch.tensor(facts["sums"], dtype=torch.float64)
        self.validated = dict(facts.get("validated", {}))


def warm_cosine(fraction: float, warm_up: float) -> float:
    """Return the factor of the learning rate at ``fraction`` of the run: linearly up to 1, then a half cosine to 0."""
    if fraction < warm_up:
        return max(fraction / warm_up, 0.01)
    return (1 + math.cos(math.pi * (fraction - warm_up) / (1 - warm_up))) / 2


def query_dice(learner: MetaLearner, episode: Episode) -> Tensor:
    """Compute the Dice of every class in every query that contains it, after adaptation to the support: ``(n,)``."""
    prediction = learner.adapt(episode.support)(episode.query.image).argmax(1).to(episode.truth.device)
    scores = [
        dice(found == index, truth == index)
        for found, truth in zip(prediction, episode.truth, strict=True)
        for index in range(1, episode.support.classes)
        if bool((truth == index).any())
    ]
    return torch.tensor(scores, dtype=torch.float64)


def _make_optimizers(start: nn.Module, settings: TrainSettings) -> tuple[torch.optim.Optimizer, ...]:
    """Build optimizers that together train every parameter once."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "muon":
        return make_optimizers(start, rate, decay)
    trained = [parameter for parameter in start.parameters() if parameter.requires_grad]
    kernels = {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay}
    rest = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}
    return (torch.optim.AdamW([kernels, rest], lr=rate),)
