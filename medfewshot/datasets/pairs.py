"""Images paired with their labels: by file name in folders, or one by one as ``image=label``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, dataset_of, path_id, skipped
from medfewshot.errors import InputError, some
from medfewshot.io import case_of_image, case_of_label, is_series_folder, looks_like_label, stem_of, volumes_in
from medfewshot.types import Case

IMAGE_FOLDERS = ("images", "imagesTr", "image", "imgs", "img")
LABEL_FOLDERS = ("labels", "labelsTr", "label", "masks", "mask", "segmentations", "seg")
_CHANNEL = re.compile(r"(.+)_\d{4}")
_DRIVE = re.compile(r"(?<![^=:])[A-Za-z]:(?=[\\/])")


def read_two_folders(folder: Path) -> Dataset | None:
    """Pair ``images/`` and ``labels/``, or folders of the usual other names. Unlabelled images are kept.

    Raises:
        InputError: No label belongs to an image, or two labels (or images) belong to one case.
    """
    images, labels = first_folder(folder, IMAGE_FOLDERS), first_folder(folder, LABEL_FOLDERS)
    if images is None or labels is None:
        return None
    dataset = dataset_of(folder, *pair_by_name(volumes_in(images), volumes_in(labels)))
    if dataset is None:
        raise InputError(
            f"{folder}: no file in {labels.name}/ has the name of an image in {images.name}/",
            "give a label the name of its image, or list the pairs in a CSV",
        )
    return dataset


def read_one_folder(folder: Path) -> Dataset | None:
    """Pair ``case.nii.gz`` + ``case_seg.nii.gz`` in one folder. Plain ``image`` + ``label`` get the folder's name.

    Raises:
        InputError: Two labels belong to one image.
    """
    return dataset_of(folder, *_pair_in_one(folder)) if folder.is_dir() else None


def read_case_folders(folder: Path) -> Dataset | None:
    """Pair ``case1/image.nii.gz`` + ``case1/label.nii.gz``: one case a folder, which gives the case its name.

    Raises:
        InputError: Two labels in a folder belong to one image.
    """
    if not folder.is_dir():
        return None
    cases, notes, alone = [], [], []
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not is_series_folder(path)):
        found, more = _pair_in_one(child, one_case=True)
        labelled = [case for case in found if case.label_path is not None]
        if len(labelled) == 1:
            cases.append(Case(child.name, child.name, None, labelled[0].image_paths, labelled[0].label_path))
        elif labelled:
            notes.append(f"{child}: ignored, because it contains {len(labelled)} pairs and not one case")
        elif found:
            alone.append(child)
        notes += more
    return dataset_of(folder, cases, [*notes, *skipped(alone, "no file in it is named like a label")])


def first_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these folders that exists; if none does, the first in other letters, such as ``Images``."""
    others = {path.name.lower(): path for path in folder.iterdir()} if folder.is_dir() else {}
    places = [folder / name for name in names] + [others.get(name.lower(), folder) for name in names]
    return next((path for path in places if path != folder and path.is_dir()), None)


def pair_by_name(images: list[Path], labels: list[Path]) -> tuple[list[Case], list[str]]:
    """Pair by case id. A label's ``_seg`` ending and an image's channel number count only if they make a pair.

    Returns:
        The cases, and one line for each label without an image.

    Raises:
        InputError: Two labels or two images belong to one case.
    """
    label_of = _labels_by_id(labels, {name for image in images for name in (path_id(image), stem_of(image))})
    numbered = {path_id(label) for label in labels if stem_of(label).endswith("_0000")}  # then so are the cases
    files = _by_case(images, label_of, label_of.keys() - numbered)
    cases = [Case(name, name, None, paths, label_of.get(name)) for name, paths in files.items()]
    notes = [f"{path}: label without an image" for name, path in sorted(label_of.items()) if name not in files]
    return cases, notes


def _by_case(images: Sequence[Path], labels: Mapping[str, Path], bases: Set[str]) -> dict[str, tuple[Path, ...]]:
    """Return the channels of each case. A number is a channel only if it follows one of ``bases``."""
    files: dict[str, list[Path]] = {}
    bases = bases - {stem_of(image) for image in images}
    channels_used = {_base(path_id(image)) for image in images if path_id(image) not in labels} & bases
    for image in images:
        name = path_id(image)
        if name not in labels and stem_of(image) in labels:  # scan_0000_seg is the label of scan_0000
            name = stem_of(image)
        elif name not in labels and (_base(name) in bases or (channels_used and _base(name))):
            name = _base(name)
        files.setdefault(name, []).append(image)
    for name, paths in files.items():
        if len({path_id(path) for path in paths}) < len(paths):
            raise InputError(f"two images for one case '{name}': {some(paths)}", "keep one")
    return {name: tuple(sorted(paths)) for name, paths in sorted(files.items())}


def _base(name: str) -> str:
    match = _CHANNEL.fullmatch(name)
    return match[1] if match else ""


def _labels_by_id(labels: list[Path], image_ids: set[str]) -> dict[str, Path]:
    known = (image_ids | {_base(name) for name in image_ids}) - {""}
    found: dict[str, Path] = {}
    for path in labels:
        name, case = path_id(path), case_of_label(path)
        _add_label(found, case if case in known and name not in known else name, path)
    return found


def _add_label(found: dict[str, Path], name: str, path: Path) -> None:
    if name in found:
        raise InputError(
            f"two labels for one image '{name}': {found[name]} and {path}", "keep one, or list them in a CSV"
        )
    found[name] = path


def _pair_in_one(folder: Path, *, one_case: bool = False) -> tuple[list[Case], list[str]]:
    labels: dict[str, Path] = {}
    images: list[Path] = []
    for path in volumes_in(folder):
        if looks_like_label(path):
            case = case_of_label(path)
            _add_label(labels, path_id(path) if case is None else case, path)
        else:
            images.append(path)
    lone = len(images) == len(labels) == 1 and case_of_image(images[0]) not in labels
    if lone and (case_of_label(*labels.values()) is not None if one_case else "" in labels):  # ct + label.nii.gz
        labels = {path_id(images[0]): path for path in labels.values()}
    cases = []
    for name, paths in _by_case(images, labels, labels.keys()).items():
        case_name, case = name, case_of_image(paths[0])
        if name not in labels and case in labels:
            # ``volume-7`` keeps its name, but ``image`` takes its folder's name.
            name, case_name = case, name if case.isdigit() else case
        case_name = case_name or folder.resolve().name
        cases.append(Case(case_name, case_name, None, paths, labels.get(name)))
    used = {case.label_path for case in cases}
    return cases, [f"{path}: label without an image" for path in labels.values() if path not in used]


def parse_pair(text: str) -> tuple[Path, Path]:
    r"""Split ``image=label`` or ``image:label``. Both must exist.

    Paths may contain ``=`` and ``:`` themselves (``C:\a.nii.gz:D:\b.nii.gz``): the split whose two sides exist counts.

    Raises:
        InputError: No separator, a side that does not exist, or more than one possible split.
    """
    cuts = [i for i, sign in enumerate(text) if sign in "=:" and 0 < i < len(text) - 1]
    if not cuts:
        raise InputError(f"'{text}': is no pair", "write image=label, for example scan.nii.gz=scan_label.nii.gz")
    pairs = [(Path(text[:i]), Path(text[i + 1 :])) for i in cuts]
    existing = [(image, label) for image, label in pairs if image.exists() and label.exists()]
    if len(existing) == 1:
        return existing[0]
    if existing:
        found = " or ".join(f"({image}, {label})" for image, label in existing)
        raise InputError(f"'{text}': can be split in several ways, {found}", "rename a file, or list the pair in a CSV")
    # Name the missing side of the split that was most likely meant: one side exists, no drive letter, "=" before ":".
    drives = [match.end() - 1 for match in _DRIVE.finditer(text)]
    ranks = [
        (any(side.exists() for side in pair), i not in drives, text[i] == "=")
        for i, pair in zip(cuts, pairs, strict=True)
    ]
    best = [pair for pair, rank in zip(pairs, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        raise InputError(
            f"'{text}': no split into image and label exists on disk, and it is not clear which one is meant",
            "check the paths",
        )
    sides = zip(("image", "label"), best[0], strict=True)
    missing = " and ".join(f"{name} {side}" for name, side in sides if not side.exists())
    raise InputError(f"'{text}': {missing} not found", "check the path, a pair is written image=label")
