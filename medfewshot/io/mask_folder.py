"""Read a folder with one mask per structure as one label map, as TotalSegmentator stores its segmentations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.geometry import check_same_grid
from medfewshot.io.paths import stem_of, volumes_in
from medfewshot.types import Volume


def read_masks(folder: Path, read: Callable[[Path], Volume]) -> Volume:
    """Join the masks of a folder: the n-th file in alphabetical order becomes value n, and its name the structure's.

    Args:
        folder: Contains one file per structure; other values than 0 mark it.
        read: Reads one mask, ``data (1, *S)``.

    Raises:
        InputError: There are no masks, their grids differ, or two of them mark the same voxel.
    """
    files = sorted((path for path in volumes_in(folder) if path.is_file()), key=stem_of)
    if not files:
        raise InputError(f"{folder}: contains no masks", "give a label map, or a folder with one mask per structure")
    joined: Volume | None = None
    names = {value: stem_of(path) for value, path in enumerate(files, start=1)}
    for value, path in enumerate(files, start=1):
        mask = read(path)
        marked = mask.data != 0
        if joined is None:
            joined = replace(mask, data=np.zeros(mask.data.shape, np.int16), path=folder, names=names, warnings=())
        check_same_grid(joined, mask)
        shared = joined.data[marked]
        if shared.any():
            other = names[int(shared.max())]
            raise InputError(
                f"{path}: marks {np.count_nonzero(shared)} voxels that {other} marks too", "separate the structures"
            )
        joined.data[marked] = value
    assert joined is not None
    return joined
