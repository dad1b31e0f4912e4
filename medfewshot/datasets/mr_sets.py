"""Layouts of public MR sets: BraTS, ACDC and PROMISE12.

References:
    BraTS: https://www.synapse.org/Synapse:syn51156910. ACDC: https://www.creatis.insa-lyon.fr/Challenge/acdc.
    PROMISE12: https://promise12.grand-challenge.org.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.datasets.search import by_key, images_and_labels, scans_below
from medfewshot.io import channel_of, stem_of
from medfewshot.types import Case

BRATS_2021_LABELS = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
BRATS_GLI_LABELS = {1: "necrotic core", 2: "edema", 3: "enhancing tumor", 4: "resection cavity"}
ACDC_LABELS = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
_SEG = re.compile(r"(.+)[_-]seg\.", re.IGNORECASE)
_NUMBER = re.compile(r".+_\d{4}")


def read_brats(folder: Path) -> Dataset | None:
    """BraTS: ``CASE/CASE_t1.nii.gz``, ``_t1ce``, ``_t2``, ``_flair`` + ``_seg``; since 2023 ``CASE-t1n.nii.gz``, ...

    The scans of a case are its channels, in the order T1, T1 with contrast, T2, FLAIR.
    """
    scans: dict[tuple[Path, str], dict[int, Path]] = {}
    files = scans_below(folder, depth=3)
    segmentations = {(path.parent, match[1]): path for path in files if (match := _SEG.match(path.name))}
    for path in files if segmentations else ():
        found = None if _NUMBER.fullmatch(stem_of(path)) else channel_of(path)
        if found is not None:
            scans.setdefault((path.parent, found[0]), {})[found[1]] = path
    usual = Counter(tuple(sorted(scans[key])) for key in segmentations if key in scans).most_common(1)
    if not usual or len(usual[0][0]) < 2:
        return None
    channels, cases, odd = usual[0][0], [], []
    for (place, name), by_channel in scans.items():
        if tuple(sorted(by_channel)) == channels:
            paths = tuple(by_channel[channel] for channel in channels)
            cases.append(Case(name, name, "MR", paths, segmentations.get((place, name))))
        else:
            odd.append(place)
    notes = skipped(odd, f"it has not the {len(channels)} scans that the other cases have")
    return dataset_of(folder, cases, notes, modality="MR", labels=_brats_labels(cases))


def _brats_labels(cases: Sequence[Case]) -> dict[int, str] | None:
    """Return the names of the structures, where the files say which challenge they belong to."""
    if all(case.case_id.lower().startswith("brats-gli-") for case in cases):
        return BRATS_GLI_LABELS
    old = all(case.case_id.lower().startswith("brats") for case in cases)
    contrast = any(stem_of(path).lower().endswith("_t1ce") for case in cases for path in case.image_paths)
    return BRATS_2021_LABELS if old and contrast else None


def read_acdc(folder: Path) -> Dataset | None:
    """ACDC: ``patient001/patient001_frame01.nii.gz`` + ``patient001_frame01_gt.nii.gz``, two frames a patient."""
    files = scans_below(folder, depth=3)
    images, labels, notes = images_and_labels(files, r"(patient\d+_frame\d+)", r"(patient\d+_frame\d+)_gt")
    cases = [Case(key, key.split("_")[0], "MR", (path,), labels.get(key)) for key, path in images.items()]
    notes += skipped([*by_key(files, r"(patient\d+_4d)").values()], "it is a time series; its labelled frames are used")
    known = all((case.image_path.parent / "Info.cfg").is_file() for case in cases)
    return dataset_of(folder, cases, notes, modality="MR", labels=ACDC_LABELS if known else None)


def read_promise12(folder: Path) -> Dataset | None:
    """PROMISE12: ``Case00.mhd`` + ``Case00_segmentation.mhd``, in one folder or in several parts."""
    files = [path for path in scans_below(folder, depth=2) if path.suffix.lower() == ".mhd"]  # others say case1 too
    images, labels, notes = images_and_labels(files, r"(case\d+)", r"(case\d+)_segmentation")
    cases = [Case(stem_of(path), stem_of(path), "MR", (path,), labels.get(key)) for key, path in images.items()]
    return dataset_of(folder, cases, notes, modality="MR")
