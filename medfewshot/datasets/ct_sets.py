"""Layouts of public CT sets: LiTS, KiTS, BTCV, AMOS, VerSe and TotalSegmentator.

Structures get names only if the files leave no doubt about the set: others use file names such as ``img0001`` too.

References:
    LiTS: https://competitions.codalab.org/competitions/17094. KiTS: https://github.com/neheller/kits19, kits21, kits23.
    BTCV: https://www.synapse.org/Synapse:syn3193805. AMOS: https://zenodo.org/records/7262581.
    VerSe: https://github.com/anjany/verse. TotalSegmentator: https://github.com/wasserth/TotalSegmentator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.datasets.search import by_key, folders_below, images_and_labels, orphans, scans_below
from medfewshot.io import stem_of
from medfewshot.types import Case

KITS_LABELS = {1: "kidney", 2: "tumor", 3: "cyst"}
_AMOS = (
    "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "aorta", "postcava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus",
)  # fmt: skip
AMOS_LABELS = dict(enumerate(_AMOS, start=1))
AMOS_LAST_CT = 500
_VERTEBRAE = [*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 7))]
VERSE_LABELS = dict(enumerate((*_VERTEBRAE, "sacrum", "coccyx", "T13"), start=1))


def read_lits(folder: Path) -> Dataset | None:
    """LiTS: ``volume-7.nii`` + ``segmentation-7.nii``, in one folder or in several; ``test-volume-7.nii`` too."""
    files = scans_below(folder, depth=2)
    images, labels, notes = images_and_labels(files, r"volume-(\d+)", r"segmentation-(\d+)")
    cases = _pairs(images, labels) + _pairs(by_key(files, r"test-volume-(\d+)"), {})
    return dataset_of(folder, cases, notes)


def read_kits(folder: Path) -> Dataset | None:
    """KiTS: ``case_00000/imaging.nii.gz`` + ``segmentation.nii.gz``, or KiTS21's ``aggregated_MAJ_seg.nii.gz``."""
    cases, no_image, others = [], list[Path](), list[Path]()
    case_folders = folders_below(folder, r"case_\d{5}", depth=1)
    for place in case_folders:
        files = {stem_of(path): path for path in scans_below(place, depth=0)}
        image = files.pop("imaging", None)
        label = files.pop("segmentation", None) or files.pop("aggregated_MAJ_seg", None)
        others += files.values()
        if image is not None:
            cases.append(Case(place.name, place.name, "CT", (image,), label))
        elif label is not None:
            no_image.append(label)
    above = {parent for place in case_folders for parent in (place.parent, place.parent.parent)}
    known = any((place / "kits.json").is_file() for place in above)
    notes = (
        *skipped(no_image, "imaging.nii.gz is not beside it; the set's own script downloads it"),
        *skipped(others, "segmentation or aggregated_MAJ_seg is the label"),
    )
    return dataset_of(folder, cases, notes, modality="CT", labels=KITS_LABELS if known else None)


def read_btcv(folder: Path) -> Dataset | None:
    """BTCV: ``img/img0001.nii.gz`` + ``label/label0001.nii.gz``, also below ``RawData/Training``."""
    files = scans_below(folder, depth=3)
    images, labels, notes = images_and_labels(files, r"img(\d{4})", r"label(\d{4})")
    return dataset_of(folder, _pairs(images, labels), notes)


def read_amos(folder: Path) -> Dataset | None:
    """AMOS: ``imagesTr/amos_0001.nii.gz`` + ``labelsTr/amos_0001.nii.gz``, and the same of ``imagesVa``.

    Scans up to number 500 are CT, later ones MR.
    """
    cases, notes = [], list[str]()
    for part in ("Tr", "Va", "Ts"):
        images = by_key(scans_below(folder / f"images{part}", depth=0), r"amos_(\d{4})")
        labels = by_key(scans_below(folder / f"labels{part}", depth=0), r"amos_(\d{4})")
        for number, image in images.items():
            modality = "CT" if int(number) <= AMOS_LAST_CT else "MR"
            cases.append(Case(stem_of(image), stem_of(image), modality, (image,), labels.get(number)))
        notes += orphans(labels, images)
    return dataset_of(folder, cases, notes, labels=AMOS_LABELS)


def read_verse(folder: Path) -> Dataset | None:
    """VerSe: ``rawdata/sub-verse004/*_ct.nii.gz`` + ``derivatives/sub-verse004/*_seg-vert_msk.nii.gz``.

    The older release has ``verse004.nii.gz`` + ``verse004_seg.nii.gz``.
    """
    files = scans_below(folder, depth=3)
    labels = by_key(files, r"(sub-(?:verse|gl)\d+.*)_seg-vert_msk") | by_key(files, r"(verse\d+.*)_seg")
    if not labels:
        return None
    images = by_key(files, r"(sub-(?:verse|gl)\d+.*)_ct")
    images |= {key: path for key, path in by_key(files, r"(verse\d+.*)").items() if not key.endswith("_seg")}
    cases = [
        Case(key, key.removeprefix("sub-").split("_")[0], "CT", (image,), labels.get(key))
        for key, image in images.items()
    ]
    return dataset_of(folder, cases, orphans(labels, images), modality="CT", labels=VERSE_LABELS)


def read_totalsegmentator(folder: Path) -> Dataset | None:
    """TotalSegmentator: ``s0011/ct.nii.gz`` (or ``mri.nii.gz``) + one mask per structure in ``s0011/segmentations/``.

    The folder of masks is the label; ``read_label`` joins them. The names of the files are those of the structures.
    """
    if not folder.is_dir():
        return None
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    cases, no_image = [], []
    for place in places:
        masks = place / "segmentations"
        found = masks.is_dir() and bool(scans_below(masks, depth=0))
        files = {stem_of(path): path for path in scans_below(place, depth=0)} if found else {}
        image = files.get("ct") or files.get("mri")
        if image is not None:
            modality = "CT" if stem_of(image) == "ct" else "MR"
            cases.append(Case(place.resolve().name, place.resolve().name, modality, (image,), masks))
        elif found and place != folder:
            no_image.append(masks)
    notes = skipped(no_image, "ct.nii.gz or mri.nii.gz is not beside it")
    modalities = {case.modality for case in cases}
    return dataset_of(folder, cases, notes, modality=modalities.pop() if len(modalities) == 1 else None)


def _pairs(images: Mapping[str, Path], labels: Mapping[str, Path]) -> list[Case]:
    return [Case(stem_of(path), stem_of(path), None, (path,), labels.get(key)) for key, path in images.items()]
