"""nnU-Net v2 as a peer of the benchmark, trained on the supports alone.

It gets scans as they are on disk, and plans, normalises, augments and returns to the original grid itself. It runs in a
Python environment of its own, which :data:`PYTHON` names. This module imports nothing of it: ``nnunet_driver.py`` runs
there and exchanges lines of JSON with this process.

References:
    Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", 2021.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from medfewshot.errors import InputError
from medfewshot.inference import Segmentation
from medfewshot.io import read_label, strict_json, write_array, write_label, write_text
from medfewshot.learners import LearnerSpec
from medfewshot.types import Plan, Progress, Support, Volume

PYTHON = "MEDFEWSHOT_NNUNET_PYTHON"
"""Environment variable: the Python interpreter of an environment that has nnunetv2."""
DRIVER = Path(__file__).with_name("nnunet_driver.py")
DATASET = "Dataset001_supports"
LOG = "nnunet.log"
SUFFIX = ".nii"
READER = "NibabelIOWithReorient"
"""Brings every scan to one orientation; nnU-Net's first choice takes voxel axes as they come."""


@dataclass(frozen=True)
class NnUnet:
    """Trains nnU-Net's 3d_fullres configuration on all supports (fold "all"), from random weights."""

    steps: int = 1000
    """Iterations; nnU-Net's own default is 1000 epochs of 250."""
    budget_seconds: float | None = None
    """Upper bound on training in seconds; planning and preprocessing come before. The rate falls to 0 by then."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> Any:
        """Raises InputError: what others make of a scan before they learn from it is no input of nnU-Net."""
        raise InputError("learner nnunet: takes whole scans as they are on disk; use protocol volume")

    def adapt_scans(
        self,
        images: Sequence[Volume],
        labels: Sequence[Volume],
        names: Mapping[int, str],
        modality: str | None,
        folder: Path,
    ) -> NnUnetSegmenter:
        """Train in ``folder``, which is replaced and kept. ``names``: label value -> name; other values are background.

        Raises InputError for 2D images, less than one step, or where nnU-Net is not to be had or failed.
        """
        if self.steps < 1:
            raise InputError("learner nnunet: has no weights to begin with; give steps of 1 or more")
        if any(image.spatial_dims != 3 or image.data.shape[0] != 1 for image in images):
            raise InputError(f"{images[0].name}: learner nnunet takes 3D scans of one channel here; leave it out")
        shutil.rmtree(folder, ignore_errors=True)
        channel = "CT" if (modality or images[0].modality) == "CT" else "MRI"
        write_raw(folder / "raw" / DATASET, images, labels, names, channel)
        driver = Driver(folder, self.device.type)
        settings = {"steps": self.steps, "budget_seconds": self.budget_seconds, "seed": self.seed}
        told = driver.ask({"do": "train", **settings}, self.progress)
        for name in ("raw", "preprocessed"):
            shutil.rmtree(folder / name, ignore_errors=True)
        record = {"learner": "nnunet", **told, "channel": channel, "labels": {str(k): v for k, v in names.items()}}
        return NnUnetSegmenter(folder, record, self.device, driver)


class NnUnetSegmenter:
    """A trained nnU-Net in ``folder``; ``record`` is the driver's report of the training."""

    def __init__(
        self, folder: Path, record: Mapping[str, Any], device: torch.device, driver: Driver | None = None
    ) -> None:
        self.folder, self.record, self.device = folder, dict(record), device
        self._driver = driver

    @property
    def plan(self) -> Plan:
        """What nnU-Net planned, as far as this package's plans have a word for it."""
        network = self.record["network"]
        return Plan(
            spatial_dims=3,
            channels=1,
            axes=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
            spacing_mm=tuple(network["spacing_mm"]),
            patch_size=tuple(network["patch_size"]),
            normalization=(),
            labels={int(value): name for value, name in self.record["labels"].items()},
        )

    def segment(self, volume: Volume) -> Segmentation:
        """Labels ``(*S)`` on the original grid, with the supports' label values.

        Raises:
            InputError: It failed.
        """
        if self._driver is None:
            self._driver = Driver(self.folder, self.device.type)
        work = self.folder / "query"
        work.mkdir(exist_ok=True)
        write_array(work / f"query_0000{SUFFIX}", volume.data[0], volume)
        image, output = str(work / f"query_0000{SUFFIX}"), str(work / "result")
        self._driver.ask({"do": "predict", "model": self.record["model"], "image": image, "output": output})
        found = read_label(Path(f"{output}{SUFFIX}")).data[0]
        shutil.rmtree(work)
        return Segmentation(np.array([0, *self.plan.labels])[found])


def write_raw(
    folder: Path, images: Sequence[Volume], labels: Sequence[Volume], names: Mapping[int, str], channel: str
) -> None:
    """nnU-Net's raw data layout; its labels have to be 1, 2, ... in the order of ``names``."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    files = {}
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        consecutive = np.zeros(label.spatial_shape, dtype=np.uint8)
        for index, value in enumerate(names, start=1):
            consecutive[label.data[0] == value] = index
        name = f"support{number}"
        image_file, label_file = f"imagesTr/{name}_0000{SUFFIX}", f"labelsTr/{name}{SUFFIX}"
        write_array(folder / image_file, image.data[0], image)
        write_label(folder / label_file, consecutive, image)
        files[name] = {"images": [image_file], "label": label_file}
    description = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{f"label {value}": index for index, value in enumerate(names, start=1)}},
        "numTraining": len(images),
        "file_ending": SUFFIX,
        "overwrite_image_reader_writer": READER,
        "dataset": files,
    }
    write_text(folder / "dataset.json", strict_json(description))


class Driver:
    """``nnunet_driver.py``, running; it ends with this object or with this process, whichever ends first."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises InputError where no interpreter is named, or it cannot be started."""
        python = os.environ.get(PYTHON)
        if not python:
            raise InputError(
                f"learner nnunet: needs nnU-Net in a Python environment of its own; set {PYTHON} to its interpreter"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / LOG
        # Isolated (-I): neither this process's PYTHONPATH nor the driver's neighbours are seen over there.
        command = [python, "-I", str(DRIVER), str(folder.resolve()), device]
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
                )
            except OSError as error:
                raise InputError(f"{PYTHON}: {python} cannot be started ({error.strerror}); correct it") from None
        weakref.finalize(self, end, self._process)

    def ask(self, request: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises:
            InputError: The driver reports an error.
        """
        written, answers = self._pipes()
        try:
            written.write(json.dumps(request) + "\n")
            written.flush()
        except BrokenPipeError:  # it ended already; what it said is still to be read
            pass
        for line in answers:
            answer = json.loads(line)
            if "progress" in answer:
                (progress or Progress()).update(*answer["progress"])
            elif "error" in answer:
                raise InputError(f"learner nnunet: {answer['error']}; see {self.log}")
            else:
                return dict(answer["done"])
        code = self._process.wait()
        raise InputError(f"learner nnunet: its process ended with {code}; see {self.log}")

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def end(process: subprocess.Popen[str]) -> None:
    """Kill ``process`` if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


SPEC = LearnerSpec(name="nnunet", learner=NnUnet, summary="nnU-Net trained on the supports")
