"""Layouts of public MR sets: BraTS, ACDC and PROMISE12.

References:
    BraTS: https://www.synapse.org/Synapse:syn51156910. ACDC: https://www.creatis.insa-lyon.fr/Challenge/acdc.
    PROMISE12: https://promise12.grand-challenge.org.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.datasets.search import by_key, scans_below
from medfewshot.io import stem_of
from medfewshot.types import Case

BRATS_CHANNELS = {"t1": 0, "t1n": 0, "t1ce": 1, "t1c": 1, "t2": 2, "t2w": 2, "flair": 3, "t2f": 3}
"""Suffixes of both generations of names, in the order of the channels."""
BRATS_2021_LABELS = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
BRATS_GLI_LABELS = {1: "necrotic core", 2: "edema", 3: "enhancing tumor", 4: "resection cavity"}
ACDC_LABELS = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
_BRATS = re.compile(rf"(.+)[_-]({'|'.join(BRATS_CHANNELS)}|seg)", re.IGNORECASE)


def read_brats(folder: Path) -> Dataset | None:
    """BraTS: ``CASE/CASE_t1.nii.gz``, ``_t1ce``, ``_t2``, ``_flair`` + ``_seg``; since 2023 ``CASE-t1n.nii.gz``, ...

    The scans of a case are its channels, in the order T1, T1 with contrast, T2, FLAIR.
    """
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in scans_below(folder, depth=3):
        match = _BRATS.fullmatch(stem_of(path))
        if match is not None:
            groups.setdefault((path.parent, match[1]), {})[match[2].lower()] = path
    channels_of = {
        key: tuple(sorted(files.keys() - {"seg"}, key=BRATS_CHANNELS.__getitem__)) for key, files in groups.items()
    }
    usual = Counter(channels for key, channels in channels_of.items() if "seg" in groups[key]).most_common(1)
    if not usual or len(usual[0][0]) < 2:
        return None
    channels, cases, odd = usual[0][0], [], []
    for (place, name), files in groups.items():
        if channels_of[place, name] == channels:
            cases.append(Case(name, name, "MR", tuple(files[one] for one in channels), files.get("seg")))
        else:
            odd.append(place)
    names = {case.case_id[:9].lower() for case in cases}
    labels = None
    if all(name.startswith("brats") for name in names):
        labels = BRATS_GLI_LABELS if names == {"brats-gli"} else BRATS_2021_LABELS if "t1ce" in channels else None
    return dataset_of(
        folder, cases, skipped(odd, f"its scans are not {', '.join(channels)}"), modality="MR", labels=labels
    )


def read_acdc(folder: Path) -> Dataset | None:
    """ACDC: ``patient001/patient001_frame01.nii.gz`` + ``patient001_frame01_gt.nii.gz``, two frames a patient."""
    files = scans_below(folder, depth=3)
    images, labels = by_key(files, r"(patient\d+_frame\d+)"), by_key(files, r"(patient\d+_frame\d+)_gt")
    cases = [Case(key, key.split("_")[0], "MR", (path,), labels.get(key)) for key, path in images.items()]
    notes = (
        *skipped([path for key, path in labels.items() if key not in images], "its scan is missing"),
        *skipped([*by_key(files, r"(patient\d+_4d)").values()], "it is a time series; its labelled frames are used"),
    )
    known = all((case.image_path.parent / "Info.cfg").is_file() for case in cases)
    return dataset_of(folder, cases, notes, modality="MR", labels=ACDC_LABELS if known else None)


def read_promise12(folder: Path) -> Dataset | None:
    """PROMISE12: ``Case00.mhd`` + ``Case00_segmentation.mhd``, in one folder or in several parts."""
    files = scans_below(folder, depth=2)
    images, labels = by_key(files, r"(case\d\d)"), by_key(files, r"(case\d\d)_segmentation")
    cases = [Case(stem_of(path), stem_of(path), "MR", (path,), labels.get(key)) for key, path in images.items()]
    notes = skipped([path for key, path in labels.items() if key not in images], "its scan is missing")
    return dataset_of(folder, cases, notes, modality="MR")
