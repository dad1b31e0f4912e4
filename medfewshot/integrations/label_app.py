"""A MONAI Label app: annotate a few scans in the viewer, train, and get the next ones segmented.

MONAI Label (https://github.com/Project-MONAI/MONAILabel, 0.8.5) finds :class:`FewShotApp` through the ``main.py`` that
``medfewshot label-app`` writes. This module only translates between its interfaces and
:mod:`medfewshot.workbench.session`.

MONAI Label starts one process per adaptation and per assessment of scans. These share files with the server, but no
memory.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import strtobool

from medfewshot import __version__
from medfewshot.errors import InputError
from medfewshot.integrations.label_files import read_names
from medfewshot.integrations.label_session import choose_next, labelled_pairs, training_options, training_settings
from medfewshot.settings import InferenceSettings
from medfewshot.workbench.session import LabelSession

MODEL = "fewshot"
logger = logging.getLogger(__name__)


class FewShotInfer(InferTask):
    """Segments one image with the current segmenter; the server lists it as soon as there is one."""

    def __init__(self, session: LabelSession) -> None:
        description = "Few-shot segmentation, adapted to the scans that are labelled so far"
        super().__init__(InferType.SEGMENTATION, session.labels, 3, description, {"keep_largest": True})
        self.session = session

    def is_valid(self) -> bool:
        """Return whether there is a segmenter to use."""
        return self.session.current is not None

    def info(self) -> dict[str, Any]:
        """Describe the task to the viewer, with the labels of the current segmenter."""
        self.labels = self.session.labels
        return super().info()

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment one image.

        Returns:
            The label file and what the viewer shows about it.
        """
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
            output = Path(file.name)
        try:
            settings = InferenceSettings(keep_largest=request.get("keep_largest", True))
            return str(output), self.session.segment(Path(request["image"]), output, settings)
        except InputError as error:
            output.unlink(missing_ok=True)
            raise MONAILabelException(MONAILabelError.INFERENCE_ERROR, str(error)) from None


class FewShotTrain(TrainTask):
    """Adapts to every scan that has a final label."""

    def __init__(self, session: LabelSession, conf: Mapping[str, str]) -> None:
        super().__init__("Adapt to the labelled scans")
        self.session, self.conf = session, conf
        self.last: dict[str, Any] = {}

    def config(self) -> dict[str, Any]:
        """Return the options that the viewer offers for training."""
        return training_options(self.conf)

    def stats(self) -> dict[str, Any]:
        """Return the result of the last training."""
        return self.last

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Adapt a new segmenter to all images that have a final label."""
        tag = DefaultLabelTag.FINAL
        store, names = datastore, sorted(datastore.get_labeled_images())
        found = [(store.get_image_uri(n), store.get_label_uri(n, tag), store.get_label_info(n, tag)) for n in names]
        try:
            pairs = labelled_pairs(found, self.session.names)
            self.last = self.session.adapt(pairs, training_settings(self.conf, request))
        except InputError as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from None
        return self.last


class FewShotScoring(ScoringMethod):
    """Assesses every unlabelled scan that the current segmenter has not assessed, and writes the result into its info.

    MONAI Label does this after each training and with each *Next sample*, in a separate process.
    """

    def __init__(self, session: LabelSession) -> None:
        super().__init__("Uncertainty of the segmentation, and difference from the labelled scans")
        self.session = session

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score the unlabelled images that the current segmenter has not scored yet."""
        current, found = self.session.current, {}
        for image in sorted(datastore.get_unlabeled_images()):
            if current is None or self.session.current != current:
                break  # a newer segmenter exists, and a run for it will follow
            if datastore.get_image_info(image).get(MODEL, {}).get("segmenter") == current.name:
                continue
            try:
                found[image] = self.session.assess(Path(datastore.get_image_uri(image)))
            except InputError as error:
                logger.warning("%s: not assessed: %s", image, error)
                continue
            datastore.update_image_info(image, {MODEL: found[image]})
        return found


class MostInformative(Strategy):
    """Active learning: offers the scan that is most uncertain and differs most from the labelled ones."""

    def __init__(self) -> None:
        super().__init__("Most uncertain scan that differs most from the labelled ones")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose the next image to annotate; None if every image has a label."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        infos = {image: datastore.get_image_info(image) for image in images}
        asked = {image: info.get("strategy", {}).get(request["strategy"], {}) for image, info in infos.items()}
        chosen = choose_next(
            {image: info.get(MODEL, {}) for image, info in infos.items()},
            {image: times["ts"] for image, times in asked.items() if "ts" in times},
        )
        return None if chosen is None else {"id": chosen}


class FewShotApp(MONAILabelApp):
    """The app. Its structures are those of ``labels.json`` beside ``main.py``, and others that are submitted.

    Args:
        app_dir: Folder of the app.
        studies: Folder of the scans.
        conf: ``device`` (default auto); ``auto_train`` (default true): adapt again in the background after each
            submitted label; and defaults for the settings of :class:`~medfewshot.settings.AdaptSettings`.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str] | None) -> None:
        folder = Path(app_dir)
        given = conf or {}
        self.session = LabelSession(folder / "model", read_names(folder), given.get("device", "auto"))
        self.auto_train = bool(strtobool(given.get("auto_train", "true")))
        super().__init__(
            app_dir=app_dir, studies=studies, conf=given, name="medfewshot", version=__version__,
            description="Few-shot segmentation: label one to ten scans, train, get the rest. For research only.",
            labels=self.session.labels,
        )  # fmt: skip

    def init_infers(self) -> dict[str, InferTask]:
        """Return the inference tasks by name."""
        return {MODEL: FewShotInfer(self.session)}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return the training tasks by name."""
        return {MODEL: FewShotTrain(self.session, self.conf)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the strategies that choose the next image, by name."""
        return {MODEL: MostInformative(), "first": First(), "random": Random()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return the scoring methods by name."""
        return {MODEL: FewShotScoring(self.session)}

    def async_scoring(self, method: str | None, params: Any = None) -> Any:
        """Start scoring in the background; only warn if the server does not answer."""
        try:
            return super().async_scoring(method, params)
        except OSError as error:  # training asks the server to score, but must not fail if the server does not answer
            logger.warning("the scans were not assessed: %s", error)
            return {}

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """Train after a final label is saved, unless a training is waiting already."""
        super().on_save_label(image_id, label_id)
        final = self.datastore().get_label_by_image_id(image_id, DefaultLabelTag.FINAL)
        waiting, _ = AsyncTask.status("train", all=True)
        if not (self.auto_train and final) or any(task["status"] == "SUBMITTED" for task in waiting or ()):
            return  # a waiting one will find this label too
        self.async_training(MODEL, enqueue=True)
