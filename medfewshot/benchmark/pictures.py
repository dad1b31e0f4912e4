"""One small picture a query, and the choice of those that show a structure's best, median and worst case."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfewshot.benchmark.results import Group
from medfewshot.io import atomic_path
from medfewshot.report import save_preview

WIDTH = 900
"""Pixels; a page of a hundred pictures stays below 10 MB."""
QUALITY = 70


@dataclass(frozen=True)
class Shown:
    """One case of one result, its picture, and why it is shown: ``("liver: worst, Dice 0.31", ...)``."""

    case: str
    seed: int
    reasons: tuple[str, ...]
    path: Path


def picture_of(folder: Path, case: str) -> Path:
    """Where a case's picture is, if it was painted. ``folder``: that of the cell."""
    return folder / "pictures" / f"{case}.webp"


def save_picture(
    folder: Path, case: str, image: np.ndarray, labels: np.ndarray, reference: np.ndarray, affine: np.ndarray,
    names: Mapping[int, str], title: str,
) -> Path:  # fmt: skip
    """Write :func:`picture_of` the case: result and reference, as ``save_preview`` paints them."""
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


def choose(group: Group, run: Path) -> list[Shown]:
    """Best, median and worst case of each structure of the group's first seed, worst first; each case once."""
    if not group.results:
        return []
    result = group.results[0]
    folder = result.cell.folder(run)
    reasons: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for label in dict.fromkeys(score.label for score in result.scores):
        ranked = [score for score in result.scores if score.label == label and not math.isnan(score.dice)]
        ranked.sort(key=lambda score: (score.dice, score.case_id))
        places = {len(ranked) - 1: "best", len(ranked) // 2: "median", 0: "worst"} if ranked else {}
        for index, place in places.items():
            score = ranked[index]
            if picture_of(folder, score.case_id).is_file():
                text = f"{score.label_name}: {place}, Dice {score.dice:.2f}"
                reasons[score.case_id].append((score.dice, text))
    return [
        Shown(case, result.cell.seed, tuple(text for _, text in sorted(reasons[case])), picture_of(folder, case))
        for case in sorted(reasons, key=lambda case: min(reasons[case])[0])
    ]
