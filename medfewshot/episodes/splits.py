"""Splits: held-out subjects, and the draw of supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from medfewshot.errors import InputError

T = TypeVar("T")

FIXED_SPLITS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "abd-mr-chaos": (range(10), range(10, 20)),
    "abd-ct-sabs": (range(15), range(15, 30)),
    # The public split of MASS (Gao et al. 2026): scans 1 to 10 and 21 to 40 of BTCV are numbers 0 to 29 of abd-ct-sabs.
    "abd-ct-sabs-mass": ((7, 9, 12, 13, 14, 16, 22, 25, 28, 29), (5, 11, 15, 20, 23, 27)),
    "card-mr-mscmr": (range(15), range(15, 35)),
    "Task04_Hippocampus": (range(60), range(200, 260)),
    "lung-nodule-lidc": (range(30), range(30, 60)),
    "carotid-us2d": (range(7), range(7, 12)),
    "fetalhead-us2d": (range(6), range(6, 12)),
    "octa-faz2d": (range(6), range(6, 12)),
    "heart-mr-hvsmr2d": (range(9), range(9, 14)),
    "skin-derm-isic-rgb": (range(4), range(4, 9)),
}
"""Name -> (support pool, query set), as indices of a data set's cases by file name. Reported numbers use these."""


def fixed_split(name: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return ``(support pool, query set)`` of a known split, as indices of its cases sorted by file name."""
    if name not in FIXED_SPLITS:
        raise InputError(f"'{name}' has no fixed split", f"known are {', '.join(FIXED_SPLITS)}")
    return FIXED_SPLITS[name]


def draw_support(pool: Sequence[T], shots: int, seed: int) -> list[T]:
    """Draw supports: ``numpy.random.default_rng(seed).choice(pool, shots, replace=False)``.

    Args:
        pool: Indices or cases, in file-name order.
        shots: Number of supports.
        seed: Number of the draw.

    Raises:
        InputError: The pool is smaller than ``shots``.
    """
    if not 1 <= shots <= len(pool):
        raise InputError(
            f"cannot draw {shots} supports from a pool of {len(pool)}", f"ask for 1 to {len(pool)}", setting="shots"
        )
    return [pool[int(i)] for i in np.random.default_rng(seed).choice(len(pool), shots, replace=False)]
