"""Few-shot segmentation of 3D and 2D medical images: a handful of labelled scans in, a segmenter out.

>>> import medfewshot
>>> segmenter = medfewshot.adapt([("img1.nii.gz", "lab1.nii.gz")])   # doctest: +SKIP
>>> medfewshot.segment("volume.nii.gz", segmenter).labels            # doctest: +SKIP
"""

from __future__ import annotations

import getpass
import os
from typing import Any

__version__ = "0.2.0.dev0"

_PUBLIC = {
    "adapt": "medfewshot.api",
    "segment": "medfewshot.api",
    "segment_film": "medfewshot.api",
    "evaluate": "medfewshot.api",
    "load_segmenter": "medfewshot.bundle",
    "VolumeSegmenter": "medfewshot.bundle",
    "Segmentation": "medfewshot.inference",
    "LEARNERS": "medfewshot.learners",
    "METRICS": "medfewshot.metrics",
    "InputError": "medfewshot.errors",
    "GridMismatchError": "medfewshot.errors",
    "Case": "medfewshot.types",
    "Episode": "medfewshot.types",
    "Learner": "medfewshot.learners",
    "Plan": "medfewshot.types",
    "Query": "medfewshot.types",
    "Segmenter": "medfewshot.learners",
    "Support": "medfewshot.types",
    "Volume": "medfewshot.types",
}

__all__ = ["__version__", *_PUBLIC]

try:
    getpass.getuser()
except (KeyError, OSError, ImportError):
    # A user id without a name, as under `docker run --user 12345`: MONAI cannot be imported without one.
    os.environ["LOGNAME"] = "unknown"


def __getattr__(name: str) -> Any:
    # Names are imported when first used: torch takes seconds to load, and `medfewshot --help` should not wait for it.
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'medfewshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
