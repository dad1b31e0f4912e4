"""Pictures of the scans in which two results differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io import StructureNames, case_id, find_images, in_frame_of, read_image, read_label
from medfewshot.report.page.write import jpeg_uri
from medfewshot.report.preview import card_jpeg
from medfewshot.types import Progress, Volume
from medfewshot.workflow.record import RUN_RECORD, read_run


def picture_changes(
    files: Mapping[str, Sequence[Path]],
    *,
    images: Mapping[str, Path],
    names: Sequence[Mapping[int, str]],
    structures: Mapping[int, str],
    progress: Progress,
) -> dict[str, str]:
    """Paint the first and the second result of each case, each with the reference as a dashed line.

    Without a reference, one picture shows the first result, and the second one as a dashed line. If a scan is not
    found, its structures are painted on black.

    Args:
        files: Case -> label map of the first result, of the second one, and perhaps the reference.
        images: Case -> its scan, as far as it is known.
        names: Label value -> name in the first results, the second ones and the references.
        structures: Label value -> name of what was compared, as the second result numbers it.
        progress: Receives one event per case.

    Returns:
        Case -> picture as a data URI. A case whose files cannot be shown together has none.
    """
    pictures = {}
    for number, (case, paths) in enumerate(files.items()):
        progress.update(number, len(files), case)
        try:
            pictures[case] = _picture(images.get(case), list(zip(paths, names, strict=False)), structures)
        except (InputError, OSError):
            continue
    return pictures


def scans_of(runs: Sequence[Path], folder: Path | None) -> dict[str, Path]:
    """Case -> its scan: in ``folder``, or where the record of a run says; as far as it exists."""
    found: dict[str, Path] = {}
    for run in runs:
        if (run / RUN_RECORD).is_file():
            found |= {result.case: Path(result.inputs[0]) for result in read_run(run)[1]}
    if folder is not None:
        found |= {case_id(path): path for path in find_images(folder)}
    return {case: path for case, path in found.items() if path.exists()}


def _picture(scan: Path | None, given: Sequence[tuple[Path, Mapping[int, str]]], structures: Mapping[int, str]) -> str:
    image = read_image(scan) if scan is not None else None
    base = image or read_label(given[0][0])
    table = StructureNames(structures, grows=False)
    ranks = [_ranks(path, names, base, table, tuple(structures)) for path, names in given]
    grey, window = (base.data[0], None) if image is not None else (np.zeros(ranks[0].shape, np.float32), (0.0, 1.0))
    first, second, *true = ranks
    panels = [(first, true[0]), (second, true[0])] if true else [(first, second)]
    return jpeg_uri(card_jpeg(grey, panels, base.affine, window=window))


def _ranks(
    path: Path, names: Mapping[int, str], base: Volume, table: StructureNames, values: Sequence[int]
) -> np.ndarray:
    """Read a label map on the grid of ``base``; structure i of ``values`` becomes i + 1."""
    label = in_frame_of(base, read_label(path, image=base))
    label = table.match(label if label.names else replace(label, names=names))
    ranks = np.zeros(label.data.shape[1:], np.uint8)
    for rank, value in enumerate(values[:255], start=1):
        ranks[label.data[0] == value] = rank
    return ranks
