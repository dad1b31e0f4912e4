"""Write the folder of a MONAI Label app: ``main.py``, ``labels.json`` and ``model/``. Needs no MONAI Label."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from medfewshot.bundle import load_segmenter
from medfewshot.errors import InputError
from medfewshot.io import write_text
from medfewshot.workbench.session import POINTER

LABELS = "labels.json"
_MAIN = '''"""A MONAI Label app; start it with: monailabel start_server --app THIS_FOLDER --studies SCANS"""

from medfewshot.integrations.label_app import FewShotApp  # noqa: F401  (MONAI Label looks for it here)
'''


def write_label_app(folder: Path, names: Mapping[int, str] | None = None, segmenter: Path | None = None) -> None:
    """Write the app.

    Args:
        folder: A new folder.
        names: Label value -> name of the structures to annotate; default: those of the segmenter, numbered from 1.
        segmenter: Folder of a segmenter to begin with.

    Raises:
        InputError: ``folder`` exists and is not empty, ``segmenter`` contains no segmenter, no structure is named, or
            the values are not 1, 2, ..., as 3D Slicer numbers structures, or two names are the same.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already", "give a new folder")
    known = dict(names or {})
    if segmenter is not None:
        learned = load_segmenter(segmenter).plan.labels
        known = known or {number: learned[value] for number, value in enumerate(sorted(learned), start=1)}
    _check(known, "labels")
    (folder / "model").mkdir(parents=True)
    if segmenter is not None:
        shutil.copytree(segmenter, folder / "model" / "segmenter-0001")
        write_text(folder / "model" / POINTER, json.dumps({"segmenter": "segmenter-0001"}) + "\n")
    content = {str(value): name for value, name in known.items()}
    write_text(folder / LABELS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "main.py", _MAIN)


def read_names(folder: Path) -> dict[int, str]:
    """Read label value -> name from ``labels.json``.

    Raises:
        InputError: The file is missing or damaged, or its values are not 1, 2, ...
    """
    path = folder / LABELS
    try:
        names = {int(value): str(name) for value, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{path}: is missing or damaged", 'write it as {"1": "liver", "2": "spleen"}') from None
    _check(names, str(path))
    return names


def _check(names: Mapping[int, str], where: str) -> None:
    if not names or sorted(names) != list(range(1, len(names) + 1)):
        raise InputError(f"{where}: structures are not numbered 1, 2, ...", "3D Slicer does so: 1=liver,2=spleen")
    if len({name.strip().casefold() for name in names.values()} - {"background"}) < len(names):
        raise InputError(f"{where}: names are not unique, or one is background", "structures are known by their names")
