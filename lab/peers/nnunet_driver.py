"""The other side of ``nnunet``: run by the Python that has nnU-Net, never imported. It knows nothing of this package.

Requests come on standard input, one JSON object a line with the action as ``do``; answers go to standard output,
``{"progress": [done, total, text]}`` until ``{"done": {...}}`` or ``{"error": "..."}``. What nnU-Net prints goes to
standard error. The process ends when its standard input closes, so that it does not outlive who started it.
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import threading
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIGURATION = "3d_fullres"
CHECKPOINT = "checkpoint_final.pth"
PATCH_PROCESSES = "nnUNet_n_proc_DA"
"""nnU-Net's environment variable."""
POLY_EXPONENT = 0.9
"""Of nnU-Net's own learning rate schedule."""
CPU_PLAN_GB = 1.0
"""On a CPU, patches are planned as for a GPU with this much memory; elsewhere as nnU-Net does unasked."""


class Driver:
    """``folder``: raw data, plans, weights and predictions of one training."""

    def __init__(self, answers: Any, folder: Path, device: str) -> None:
        for name in ("raw", "preprocessed", "results"):  # read when nnU-Net is imported
            os.environ[f"nnUNet_{name}"] = str(folder / name)
        import torch

        self.answers, self.folder, self.device = answers, folder, torch.device(device)
        self.predictor: Any = None

    def say(self, **content: Any) -> None:
        """Send a line of JSON to the parent process."""
        print(json.dumps(content), file=self.answers, flush=True)

    # Training

    def train(self, steps: int, budget_seconds: float | None, seed: int) -> dict[str, Any]:
        """Plan, preprocess, and train fold "all" by ``steps`` iterations, or fewer where the budget ends them."""
        self.say(progress=[0, steps, "nnU-Net plans and preprocesses"])
        begun = time.perf_counter()
        self._plan()
        planned = time.perf_counter()
        trainer = self._trainer(seed)
        losses = self._iterate(trainer, steps, budget_seconds)
        trainer.save_checkpoint(str(Path(trainer.output_folder) / CHECKPOINT))
        return {
            "steps": len(losses),
            "stopped_by": "steps" if len(losses) == steps else "budget",
            "final_loss": round(sum(losses[-20:]) / len(losses[-20:]), 4),
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
            "seconds": {"plan": round(planned - begun, 2), "train": round(time.perf_counter() - planned, 2)},
            **_describe(trainer),
            "model": str(Path(trainer.output_folder_base).relative_to(self.folder)),
            "planned_for_gb": CPU_PLAN_GB if self.device.type == "cpu" else "default",
            "mirroring": self._mirrors,
            "versions": {"nnunetv2": version("nnunetv2"), "torch": version("torch")},
            "peak_gb": _peak_gb(),
        }

    def _plan(self) -> None:
        from nnunetv2.experiment_planning import plan_and_preprocess_api as api

        memory_gb = CPU_PLAN_GB if self.device.type == "cpu" else None
        if memory_gb is not None:
            os.environ[PATCH_PROCESSES] = "1"  # planning takes it for a number of threads
        api.extract_fingerprints([1], num_processes=1, check_dataset_integrity=True, verbose=False)
        api.plan_experiments([1], gpu_memory_target_in_gb=memory_gb)
        api.preprocess([1], configurations=(CONFIGURATION,), num_processes=(1,))

    def _trainer(self, seed: int) -> Any:
        import numpy as np
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  nnU-Net draws patches from the global generators
        torch.manual_seed(seed)
        if self.device.type == "cpu":
            os.environ[PATCH_PROCESSES] = "0"  # patches are drawn in this very thread, so that the seed decides them
        trainer = get_trainer_from_args("1", CONFIGURATION, "all", device=self.device)
        trainer.on_train_start()
        return trainer

    def _iterate(self, trainer: Any, steps: int, budget_seconds: float | None) -> list[float]:
        """nnU-Net's own training step and rate; without its epochs of 250 iterations and their validation."""
        losses: list[float] = []
        begun = time.perf_counter()
        trainer.network.train()
        while len(losses) < steps:
            fraction = len(losses) / steps
            if budget_seconds is not None:
                fraction = max(fraction, (time.perf_counter() - begun) / budget_seconds)
            if losses and fraction >= 1:
                break
            for group in trainer.optimizer.param_groups:
                group["lr"] = trainer.initial_lr * (1 - min(fraction, 1.0)) ** POLY_EXPONENT
            losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
            self.say(progress=[len(losses), steps, f"nnU-Net, loss {losses[-1]:.2f}"])
        return losses

    # Prediction

    @property
    def _mirrors(self) -> bool:
        """Averaging over mirrored images costs eight times as much: a GPU's work."""
        return bool(self.device.type != "cpu")

    def predict(self, model: str, image: str, output: str) -> dict[str, Any]:
        """Segment one file (one channel); ``model``: result of the training; ``output``: a path without suffix."""
        if self.predictor is None:
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

            self.predictor = nnUNetPredictor(
                use_mirroring=self._mirrors,
                perform_everything_on_device=self.device.type == "cuda",
                device=self.device,
                allow_tqdm=False,
            )
            self.predictor.initialize_from_trained_model_folder(str(self.folder / model), ("all",), CHECKPOINT)
        self.predictor.predict_from_files_sequential([[image]], [output], save_probabilities=False)
        return {}


def _describe(trainer: Any) -> dict[str, Any]:
    """Return what was planned; sizes in the axis order of the file, which nnU-Net reverses and transposes."""
    chosen, plans = trainer.configuration_manager, trainer.plans_manager
    back = list(plans.transpose_backward)
    return {
        "network": {
            "class": chosen.network_arch_class_name,
            "patch_size": [int(chosen.patch_size[axis]) for axis in back][::-1],
            "spacing_mm": [float(chosen.spacing[axis]) for axis in back][::-1],
            "batch_size": int(chosen.batch_size),
            "normalization": list(chosen.normalization_schemes),
        },
        "optimizer": {"class": type(trainer.optimizer).__name__, "lr": trainer.initial_lr},
    }


def _peak_gb() -> float | None:
    """Return the peak memory of this process in GB, without its preprocessing workers."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(float(peak) / (2**30 if sys.platform == "darwin" else 2**20), 3)


def _requests() -> queue.Queue[bytes]:
    """Lines of standard input, read in a thread of their own: the end of it is noticed in the midst of training."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        rest = b""
        # Not sys.stdin: this thread would hold its lock, and the processes that nnU-Net forks would wait for it.
        while some := os.read(0, 1 << 16):
            *whole, rest = (rest + some).split(b"\n")
            for line in whole:
                lines.put(line)
        os._exit(3)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main(folder: str, device: str) -> None:
    """Answer the requests on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _requests()
    try:
        driver = Driver(answers, Path(folder), device)
        import nnunetv2  # noqa: F401
    except ImportError as error:
        print(json.dumps({"error": f"nnU-Net cannot be imported there ({error})"}), file=answers, flush=True)
        return
    actions: dict[str, Any] = {"train": driver.train, "predict": driver.predict}
    while True:
        request = json.loads(lines.get())
        try:
            driver.say(done=actions[request.pop("do")](**request))
        except Exception as error:  # report every error to the other side
            traceback.print_exc()
            driver.say(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":  # nnU-Net starts processes that import this file
    main(*sys.argv[1:])
