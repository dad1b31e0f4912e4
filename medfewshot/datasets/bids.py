"""Layout of BIDS derivatives: segmentations under ``derivatives/`` and their scans under ``sub-*/``.

References:
    https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.datasets.search import scans_below
from medfewshot.errors import InputError
from medfewshot.io import stem_of
from medfewshot.types import Case

_LABEL_SUFFIXES = ("dseg", "mask")
_OF_THE_LABEL = frozenset({"desc", "label", "seg", "atlas", "res", "den", "hemi"})
"""Entities that describe the segmentation and not its scan."""
_OWN_SPACES = ("orig", "individual", "native")
_NOT_ANATOMY = frozenset({"bold", "sbref", "boldref", "events", "phase", "phasediff", "magnitude1", "magnitude2"})
_PREFERRED = ("T1w", "T2w", "FLAIR", "ct", "CT")


class _File(NamedTuple):
    """A file with the entities in its name: ``sub-01_ses-1_desc-aseg_dseg.nii.gz``."""

    path: Path
    entities: Mapping[str, str]
    suffix: str


def read_bids(folder: Path) -> Dataset | None:
    """BIDS: ``sub-01/anat/sub-01_T1w.nii.gz`` + ``derivatives/NAME/sub-01/anat/sub-01_dseg.nii.gz`` (or ``_mask``).

    Names of structures come from ``dseg.tsv`` files (columns ``index`` and ``name``).

    Raises:
        InputError: Two segmentations belong to one scan, or a ``dseg.tsv`` is broken.
    """
    if not folder.is_dir() or not (any(folder.glob("sub-*")) or (folder / "derivatives").is_dir()):
        return None
    files = [found for path in scans_below(folder, depth=5) if (found := _parse(path)) is not None]
    labels = [file for file in files if file.suffix in _LABEL_SUFFIXES]
    images = [file for file in files if file.suffix not in (*_LABEL_SUFFIXES, "probseg", *_NOT_ANATOMY)]
    chosen, others = _choose_labels(labels)
    cases: dict[Path, Case] = {}
    alone, notes = [], list[str]()
    for label in chosen:
        fitting = _images_of(label, images)
        if not fitting:
            alone.append(label.path)
            continue
        image = fitting[0]
        if len({one.suffix for one in fitting}) > 1:
            rest = ", ".join(sorted({one.suffix for one in fitting} - {image.suffix}))
            notes.append(f"{label.path}: taken as the label of {image.path.name}; {rest} would fit too")
        name = stem_of(image.path)
        case = Case(name, image.entities["sub"], None, (image.path,), label.path)
        other = cases.setdefault(image.path, case)
        if other is not case:
            raise InputError(f"{image.path}: two labels for one image: {other.label_path} and {label.path}", "keep one")
    seen = {(label.entities["sub"], label.entities.get("ses")) for label in chosen}
    kinds = {case.image_path.name.rsplit("_", 1)[-1] for case in cases.values()}
    for image in images:
        visit = (image.entities["sub"], image.entities.get("ses"))
        if visit not in seen and image.path.name.rsplit("_", 1)[-1] in kinds:
            seen.add(visit)
            cases[image.path] = Case(stem_of(image.path), image.entities["sub"], None, (image.path,))
    notes += skipped(alone, "no scan has the same entities in its name")
    notes += skipped([file.path for file in others], "another segmentation of the same scan is used")
    return dataset_of(folder, cases.values(), notes, labels=_names(folder, chosen))


def _parse(path: Path) -> _File | None:
    *parts, suffix = stem_of(path).split("_")
    pairs = [part.split("-", 1) for part in parts]
    if not pairs or any(len(pair) != 2 for pair in pairs) or pairs[0][0] != "sub":
        return None
    return _File(path, dict(pairs), suffix)


def _choose_labels(labels: Iterable[_File]) -> tuple[list[_File], list[_File]]:
    """Choose the plainest segmentation of each scan: ``dseg`` before ``mask``, and few entities before many."""
    groups: dict[tuple[Path, tuple[tuple[str, str], ...]], list[_File]] = {}
    for label in labels:
        own = tuple(sorted((key, value) for key, value in label.entities.items() if key not in _OF_THE_LABEL))
        groups.setdefault((label.path.parent, own), []).append(label)
    chosen, others = [], []
    for group in groups.values():
        first, *rest = sorted(group, key=lambda file: (file.suffix, len(file.entities), file.path.name))
        twins = [file for file in rest if (file.suffix, len(file.entities)) == (first.suffix, len(first.entities))]
        if twins:
            both = f"{first.path} and {twins[0].path.name}"
            raise InputError(f"{both}: two labels for one image", "keep one, or join them in one label map")
        chosen.append(first)
        others += rest
    return chosen, others


def _images_of(label: _File, images: Iterable[_File]) -> list[_File]:
    """Return the scans that a segmentation may belong to, the likeliest first: beside it, then by the usual order."""
    wanted = {key: value for key, value in label.entities.items() if key not in _OF_THE_LABEL}
    if wanted.get("space") in (*_OWN_SPACES, *_PREFERRED):
        kind = wanted.pop("space")
        images = [image for image in images if kind in _OWN_SPACES or image.suffix == kind]
    fitting = [image for image in images if _fits(image, wanted)]
    order = {suffix: rank for rank, suffix in enumerate(_PREFERRED)}
    return sorted(
        fitting,
        key=lambda image: (
            image.path.parent != label.path.parent, -sum(image.entities.get(key) == wanted[key] for key in wanted),
            order.get(image.suffix, len(order)), len(image.entities), image.path,
        ),
    )  # fmt: skip


def _fits(image: _File, wanted: Mapping[str, str]) -> bool:
    own = {key: value for key, value in image.entities.items() if key != "desc"}
    shared = all(wanted.get(key) == value for key, value in own.items() if key in ("sub", "ses", "space", "run", "acq"))
    needed = ("sub", "ses", "space")
    return shared and all(own.get(key, "" if key in needed else value) == value for key, value in wanted.items())


def _names(folder: Path, labels: Iterable[_File]) -> dict[int, str]:
    """Label value -> name of the ``dseg.tsv`` files beside the labels or above them."""
    names: dict[int, str] = {}
    for label in labels:
        desc = label.entities.get("desc")
        wanted = ("dseg.tsv", f"{stem_of(label.path)}.tsv", *([f"desc-{desc}_dseg.tsv"] if desc else []))
        for place in label.path.parents:
            tables = [place / name for name in wanted if (place / name).is_file()]
            if tables:
                found = _table(tables[0])
                if clash := [value for value in found if names.get(value, found[value]) != found[value]]:
                    both = f"{names[clash[0]]!r} and {found[clash[0]]!r} in different tables"
                    raise InputError(f"{tables[0]}: value {clash[0]} is {both}", "number the structures alike")
                names |= found
            if tables or place == folder:
                break
    return dict(sorted(names.items()))


def _table(path: Path) -> dict[int, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return {int(row["index"]): row["name"] for row in rows if int(row["index"])}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: is no table of structures ({type(error).__name__}: {error})", "give the columns index and name"
        ) from error
