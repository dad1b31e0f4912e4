"""A segmenter that grows with its annotations: what an annotation server needs, whoever asks for it.

Adapting writes a new segmenter folder and then points to it, so that segmentation goes on with the old one meanwhile
and a crash leaves it in place.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medfewshot.adaptation import adapt_volumes, cases_from_pairs, read_cases
from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.inference import InferenceOptions
from medfewshot.io import read_image, write_label, write_text
from medfewshot.quality import support_distance
from medfewshot.settings import AdaptSettings

POINTER = "current.json"


class LabelSession:
    """Segmenters in ``folder``, of which one is current. Safe to call from several threads.

    ``names``: label value -> name of the structures to annotate; empty takes the supports' own values.
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
            raise InputError(f"{self.folder / POINTER}: is damaged; delete it and adapt again") from None
        path = self.folder / Path(str(name)).name  # never outside of the folder
        return path if path.is_dir() else None

    @property
    def labels(self) -> dict[str, int]:
        """Name -> value, as annotation clients list them."""
        names = self.names
        if not names and self.current is not None:
            names = dict(self.segmenter().plan.labels)
        return {name: value for value, name in names.items()}

    def segmenter(self) -> VolumeSegmenter:
        """The current segmenter, read once. Raises InputError before the first adaptation."""
        path = self.current
        if path is None:
            raise InputError("there is no segmenter yet: label one scan or more, then adapt (train)")
        with self._lock:
            if self._loaded is None or self._loaded[0] != path:
                self._loaded = (path, load_segmenter(path, resolve_device(self.device)))
            return self._loaded[1]

    def segment(self, image: Path, output: Path, keep_largest: bool = True) -> dict[str, Any]:
        """Segment ``image`` and write its labels as ``output`` (NIfTI). Returns names, confidences and warnings."""
        volume = read_image(image)
        done = self.segmenter().segment(volume, InferenceOptions(keep_largest=keep_largest))
        write_label(output, done.labels, volume)
        plan = self.segmenter().plan
        return {
            "label_names": {name: value for value, name in plan.labels.items()},
            "confidence": {plan.labels[value]: share for value, share in done.confidence.items()},
            "warnings": [*volume.warnings, *done.warnings],
            "seconds": done.seconds,
        }

    def look(self, image: Path) -> dict[str, Any]:
        """How much a label of ``image`` would teach: plain data for :func:`choose_next`.

        ``uncertainty``: 1 minus the Dice that the probabilities expect, mean over structures, 1 for one not found.
        ``distance``: of its intensities to the nearest support's, see :func:`medfewshot.quality.support_distance`.
        ``segmenter``: who looked; ``ts``: when, in seconds. Raises InputError as :meth:`segment` does.
        """
        path, segmenter = self.current, self.segmenter()
        volume = read_image(image)
        expected = segmenter.segment(volume).predicted_dice
        doubts = [1 - (expected.get(value) or 0.0) for value in segmenter.plan.label_values]
        return {
            "uncertainty": sum(doubts) / len(doubts),
            "distance": support_distance(volume, segmenter.plan, segmenter.record.get("profile") or {}),
            "segmenter": path.name if path is not None else "",
            "ts": int(time.time()),  # whole seconds, as MONAI Label notes when it offered a scan
        }

    def adapt(self, pairs: Sequence[tuple[Path, Path]], settings: AdaptSettings | None = None) -> dict[str, Any]:
        """Adapt to labelled scans and make the result current. Raises InputError where none can be used."""
        if not pairs:
            raise InputError("no scan is labelled yet: label and submit one, then adapt (train) again")
        images, labels = read_cases(cases_from_pairs(pairs))
        settings = (settings or AdaptSettings()).replace(device=self.device)
        adapted = adapt_volumes(images, labels, settings, self.names)
        number = 1 + max((int(path.name.split("-")[1]) for path in self._segmenters()), default=0)
        path = self.folder / f"segmenter-{number:04d}"
        VolumeSegmenter(adapted.plan, adapted.segmenter, adapted.record).save(path)
        write_text(self.folder / POINTER, json.dumps({"segmenter": path.name}) + "\n")
        for old in self._segmenters()[:-2]:  # the one before stays for whoever is still using it
            shutil.rmtree(old, ignore_errors=True)
        return {"supports": len(pairs), "seconds": dict(adapted.seconds), "warnings": list(adapted.warnings)}

    def _segmenters(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("segmenter-[0-9]*") if path.is_dir())


def choose_next(looks: Mapping[str, Mapping[str, Any]], offered: Mapping[str, float] | None = None) -> str | None:
    """Whom to annotate next: the scan that is high in both ranks, by uncertainty and by distance to the supports.

    ``looks``: scan -> what :meth:`LabelSession.look` said, empty for a scan that nobody looked at; those come last, by
    name. ``offered``: scan -> when it was offered to the annotator, in seconds; who did not want it then is asked about
    the others first, until it is looked at anew. None where there is no scan.
    """
    passed = {name for name, when in (offered or {}).items() if name in looks and when >= looks[name].get("ts", 0)}
    names = sorted(set(looks) - passed) or sorted(looks)
    known = [name for name in names if "uncertainty" in looks[name]]
    if not known:
        return names[0] if names else None
    ranks = dict.fromkeys(known, 0)
    for key in ("uncertainty", "distance"):
        values = sorted(looks[name][key] for name in known)
        for name in known:
            ranks[name] += values.index(looks[name][key])
    return max(known, key=lambda name: (ranks[name], looks[name]["uncertainty"]))
