"""One small picture a query, and which of them show a structure's best, median and worst case."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfewshot.benchmark.results import CellResult, Group
from medfewshot.io import atomic_path
from medfewshot.report import save_preview

FOLDER = "pictures"
WIDTH = 900
"""Pixels; a page of a hundred pictures stays below 10 MB."""
QUALITY = 70


def save_picture(
    folder: Path, case: str, image: np.ndarray, labels: np.ndarray, reference: np.ndarray, affine: np.ndarray,
    names: Mapping[int, str], title: str,
) -> Path:  # fmt: skip
    """Write ``folder/pictures/<case>.webp``: result and reference, as ``save_preview`` paints them."""
    from PIL import Image

    path = picture_of(folder, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".png")
    save_preview(whole, image, labels, affine, names, reference=reference, title=title)
    with Image.open(whole) as picture, atomic_path(path) as temporary:
        height = round(picture.height * WIDTH / picture.width)
        picture.convert("RGB").resize((WIDTH, height)).save(temporary, format="WEBP", quality=QUALITY)
    whole.unlink()
    return path


def picture_of(folder: Path, case: str) -> Path:
    """Where a case's picture lies, there or not."""
    return folder / FOLDER / f"{case}.webp"


@dataclass(frozen=True)
class Shown:
    """One case of one result, and why it is shown: ``("liver: worst, Dice 0.31", ...)``."""

    case: str
    seed: int
    reasons: tuple[str, ...]
    data: str
    """The picture as a data address."""


def choose(group: Group, run: Path) -> list[Shown]:
    """Best, median and worst case of each structure of the group's first seed, worst first; each case once."""
    if not group.results:
        return []
    result = group.results[0]
    folder = result.cell.folder(run)
    reasons: dict[str, list[tuple[float, str]]] = {}
    for label in dict.fromkeys(score.label for score in result.scores):
        for case, dice, text in _of_label(result, label):
            if picture_of(folder, case).is_file():
                reasons.setdefault(case, []).append((dice, text))
    order = sorted(reasons, key=lambda case: min(reasons[case])[0])
    return [
        Shown(case, result.cell.seed, tuple(text for _, text in sorted(reasons[case])), _data(folder, case))
        for case in order
    ]


def _of_label(result: CellResult, label: int) -> list[tuple[str, float, str]]:
    """(case, Dice, text) of the worst, the median and the best case; only those that have a Dice."""
    scores = [s for s in result.scores if s.label == label and s.dice is not None and not math.isnan(s.dice)]
    scores.sort(key=lambda score: (score.dice, score.case_id))
    if not scores:
        return []
    places: dict[int, str] = {}
    for index, name in ((0, "worst"), (len(scores) // 2, "median"), (len(scores) - 1, "best")):
        places.setdefault(index, name)
    found: Sequence[tuple[int, str]] = list(places.items())
    return [
        (scores[i].case_id, float(scores[i].dice), f"{scores[i].label_name}: {name}, Dice {scores[i].dice:.2f}")
        for i, name in found
    ]


def _data(folder: Path, case: str) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture_of(folder, case).read_bytes()).decode("ascii")
