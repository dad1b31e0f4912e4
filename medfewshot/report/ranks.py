"""Label values of any size as small consecutive ranks: quick to count, and a table can be indexed with them."""

from __future__ import annotations

import numpy as np

from medfewshot.errors import InputError


def compress(*arrays: np.ndarray) -> tuple[tuple[int, ...], tuple[np.ndarray, ...]]:
    """The values that occur anywhere, 0 first, and each array with values replaced by their index among them.

    Arrays of integers, of booleans, or of whole numbers stored as floats; the ranks are uint8 where they fit.
    """
    whole = []
    for array in arrays:
        if array.dtype.kind not in "biu":
            rounded = np.rint(array)
            if not np.array_equal(rounded, array):
                raise InputError("label values must be whole numbers")
            array = rounded.astype(np.int64)
        whole.append(array)
    values = np.unique(np.concatenate([[0], *(_present(array) for array in whole)]))
    values = np.concatenate([[0], values[values != 0]])
    dtype = np.uint8 if len(values) <= 256 else np.uint32
    order = np.argsort(values)
    low, high = int(values.min()), int(values.max())
    if high - low < 2**20:
        table = np.zeros(high - low + 1, dtype=dtype)
        table[values - low] = np.arange(len(values))
        ranks = [table[array.astype(np.int64, copy=False) - low if low else array.astype(np.intp)] for array in whole]
    else:
        ranks = [order[np.searchsorted(values[order], array)].astype(dtype) for array in whole]
    return tuple(int(v) for v in values), tuple(ranks)


def _present(array: np.ndarray) -> np.ndarray:
    if array.size and array.min() >= 0 and array.max() < 2**20:
        return np.flatnonzero(np.bincount(array.ravel(order="K"))).astype(np.int64)
    return np.unique(array).astype(np.int64)
