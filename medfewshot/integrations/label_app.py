"""A MONAI Label app: annotate a few scans in the viewer, train, and have the next ones segmented.

MONAI Label (https://github.com/Project-MONAI/MONAILabel, 0.8.5) finds :class:`FewShotApp` through the ``main.py`` that
``medfewshot label-app`` writes. Everything but the words of its interfaces is in
:class:`~medfewshot.integrations.label_session.LabelSession`.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from medfewshot import __version__
from medfewshot.adaptation import AdaptSettings
from medfewshot.integrations.label_files import read_names
from medfewshot.integrations.label_session import LabelSession
from medfewshot.types import InputError

MODEL = "fewshot"
logger = logging.getLogger(__name__)


class FewShotInfer(InferTask):
    """Segment one image with the current segmenter; listed by the server once there is one."""

    def __init__(self, session: LabelSession) -> None:
        description = "Few-shot segmentation, adapted to the scans that are labelled so far"
        super().__init__(InferType.SEGMENTATION, session.labels, 3, description, {"keep_largest": True})
        self.session = session

    def is_valid(self) -> bool:
        return self.session.current is not None

    def info(self) -> dict[str, Any]:
        self.labels = self.session.labels
        return super().info()

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
            output = Path(file.name)
        try:
            keep_largest = bool(request.get("keep_largest", True))
            return str(output), self.session.segment(Path(request["image"]), output, keep_largest)
        except InputError as error:
            output.unlink(missing_ok=True)
            raise MONAILabelException(MONAILabelError.INFERENCE_ERROR, str(error)) from None


class FewShotTrain(TrainTask):
    """Adapt to every scan that has a final label."""

    def __init__(self, session: LabelSession) -> None:
        super().__init__("Adapt to the labelled scans")
        self.session = session
        self.last: dict[str, Any] = {}

    def config(self) -> dict[str, Any]:
        settings = AdaptSettings()
        return {
            "learner": settings.learner,
            "steps": 0,
            "budget_seconds": settings.budget_seconds,
            "seed": settings.seed,
        }

    def stats(self) -> dict[str, Any]:
        return self.last

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        wanted = {**self.config(), **{key: request[key] for key in self.config() if request.get(key) is not None}}
        settings = AdaptSettings(
            learner=str(wanted["learner"]),
            steps=int(wanted["steps"]) or None,  # 0: the learner's own
            budget_seconds=float(wanted["budget_seconds"]),
            seed=int(wanted["seed"]),
        )
        tag = DefaultLabelTag.FINAL
        pairs = [
            (Path(datastore.get_image_uri(image)), Path(datastore.get_label_uri(image, tag)))
            for image in sorted(datastore.get_labeled_images())
        ]
        try:
            self.last = self.session.adapt(pairs, settings)
        except InputError as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from None
        return self.last


class FewShotApp(MONAILabelApp):
    """``conf``: ``device`` (auto). Structures stand in ``labels.json`` beside ``main.py``; else the labels' own."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str] | None) -> None:
        folder = Path(app_dir)
        device = (conf or {}).get("device", "auto")
        self.session = LabelSession(folder / "model", read_names(folder), device)
        super().__init__(
            app_dir=app_dir, studies=studies, conf=conf or {}, name="medfewshot", version=__version__,
            description="Few-shot segmentation: label one to ten scans, train, get the rest. For research only.",
            labels=self.session.labels or None,
        )  # fmt: skip

    def init_infers(self) -> dict[str, InferTask]:
        return {MODEL: FewShotInfer(self.session)}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {MODEL: FewShotTrain(self.session)}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "first": First()}
