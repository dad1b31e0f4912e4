"""State of an annotation server: segmenters that are adapted again as annotations arrive.

Adapting writes a new segmenter folder and then points to it. Segmentation continues with the old one meanwhile, and a
crash leaves it in place.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.io import read_image, write_label, write_text
from medfewshot.settings import AdaptSettings, InferenceSettings
from medfewshot.types import Progress, Volume
from medfewshot.workbench.choice import assess
from medfewshot.workflow import LabelledScans, SupportSource, adapt, read_supports

POINTER = "current.json"


class LabelSession:
    """Segmenters in a folder; one of them is current. Safe to call from several threads.

    Args:
        folder: Folder of the segmenters.
        names: Label value -> name of the structures to annotate; default: the values in the supports.
        device: Device for computation.
    """

    def __init__(self, folder: Path, names: dict[int, str] | None = None, device: str = "auto") -> None:
        self.folder, self.names, self.device = folder, dict(names or {}), device
        self._lock = threading.Lock()
        self._loaded: tuple[Path, VolumeSegmenter] | None = None

    @property
    def current(self) -> Path | None:
        """Folder of the current segmenter, or None before the first adaptation."""
        try:
            name = json.loads((self.folder / POINTER).read_text(encoding="utf-8"))["segmenter"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{self.folder / POINTER}: is damaged", "delete it and adapt again") from None
        path = self.folder / Path(str(name)).name  # never outside of the folder
        return path if path.is_dir() else None

    @property
    def labels(self) -> dict[str, int]:
        """Name -> value in results of :meth:`segment`: those of ``names``, then other structures that it learned."""
        return self._numbers(self.segmenter().plan.labels if self.current is not None else {})

    def _numbers(self, learned: Mapping[int, str]) -> dict[str, int]:
        numbers = {name: value for value, name in self.names.items()}
        for _, name in sorted(learned.items()):
            numbers.setdefault(name, max(numbers.values(), default=0) + 1)
        return numbers

    def segmenter(self) -> VolumeSegmenter:
        """Return the current segmenter, read once.

        Raises:
            InputError: There is none before the first adaptation.
        """
        return self._read_current()[1]

    def _read_current(self) -> tuple[Path, VolumeSegmenter]:
        path = self.current
        if path is None:
            raise InputError("there is no segmenter yet", "label one scan or more, then adapt (train)")
        with self._lock:
            if self._loaded is None or self._loaded[0] != path:
                self._loaded = (path, load_segmenter(path, resolve_device(self.device)))
            return self._loaded

    def segment(self, image: Path, output: Path, settings: InferenceSettings | None = None) -> dict[str, Any]:
        """Segment a scan and write its labels to ``output``, a NIfTI file.

        Returns:
            Plain data: ``label_names`` (name -> value), ``predicted_dice`` (by name), ``flags``, ``warnings`` and
            ``seconds``.

        Raises:
            InputError: The scan cannot be segmented, or there is no segmenter yet.
        """
        segmenter, volume = self.segmenter(), read_image(image)
        done = segmenter.segment(volume, settings)
        names = segmenter.plan.labels
        numbers = self._numbers(names)
        labels = np.zeros_like(done.labels)
        for value, name in names.items():
            labels[done.labels == value] = numbers[name]
        write_label(output, labels, volume)
        return {
            "label_names": numbers,
            "predicted_dice": {names[value]: dice for value, dice in done.predicted_dice.items()},
            "flags": list(done.flags),
            "warnings": [*volume.warnings, *done.warnings],
            "seconds": done.seconds,
        }

    def assess(self, image: Path) -> dict[str, Any]:
        """Measure how informative a label of ``image`` would be.

        Returns:
            Plain data. ``uncertainty``: 1 minus the predicted Dice, mean over structures; 1 for
            a structure that was not found. ``distance``: distance of its intensities to the nearest support's, see
            :func:`medfewshot.quality.support_distance`. ``segmenter``: name of the segmenter. ``ts``: time in seconds.

        Raises:
            InputError: The scan cannot be segmented, or there is no segmenter yet.
        """
        path, segmenter = self._read_current()
        volume = read_image(image)
        found = assess(segmenter, volume, segmenter.segment(volume))
        return {
            "uncertainty": found.uncertainty,
            "distance": found.distance,
            "segmenter": path.name,
            "ts": int(time.time()),  # whole seconds, like MONAI Label's time of offering a scan
        }

    def adapt(
        self, source: SupportSource, settings: AdaptSettings | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Adapt to labelled scans, e.g. pairs of image and label files: see :meth:`adapt_to`.

        Raises:
            InputError: No pair can be used.
        """
        if not isinstance(source, (str, PathLike)) and not source:
            raise InputError("no scan is labelled yet", "label and submit one, then adapt (train) again")
        return self.adapt_to(read_supports(source, progress=progress), settings, progress=progress)

    def adapt_to(
        self,
        scans: LabelledScans,
        settings: AdaptSettings | None = None,
        *,
        cohort: Iterable[Volume] = (),
        start: VolumeSegmenter | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Adapt to labelled scans in memory and make the result current; arguments as in ``workflow.adapt``."""
        settings = (settings or AdaptSettings()).replace(device=self.device)
        scans = replace(scans, names={**scans.names, **self.names})
        segmenter = adapt(scans, settings, cohort=cohort, start=start, progress=progress)
        number = 1 + max((int(path.name[10:]) for path in self._segmenters()), default=0)
        path = self.folder / f"segmenter-{number:04d}"
        segmenter.save(path)
        write_text(self.folder / POINTER, json.dumps({"segmenter": path.name}) + "\n")
        for old in self._segmenters()[:-2]:  # keep the previous one, which a request may still use
            shutil.rmtree(old, ignore_errors=True)
        return {"supports": len(scans.images), **{key: segmenter.record[key] for key in ("seconds", "warnings")}}

    def _segmenters(self) -> list[Path]:
        found = (path for path in self.folder.glob("segmenter-*") if path.name[10:].isdecimal())  # no copies by hand
        return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name[10:]))
