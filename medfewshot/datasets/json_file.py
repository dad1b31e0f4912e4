"""``dataset.json``: Medical Segmentation Decathlon, and nnU-Net v1 and v2.

Sources: http://medicaldecathlon.com and nnU-Net's ``documentation/dataset_format.md``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from medfewshot.datasets.dataset import Dataset, checked, modality_of
from medfewshot.errors import InputError
from medfewshot.io import case_id, stem_of, volumes_in_file
from medfewshot.types import Case

IGNORE = "ignore"
"""Name of the label of voxels that are not annotated, as nnU-Net v2 has it."""
_Entry = tuple[str, list[Path], Path | None]
"""Case id, one image per channel, label."""


def read_json(path: Path) -> Dataset | None:
    """Read a ``dataset.json``, or the one in a folder. Its keys tell its kind.

    Raises:
        InputError: Broken JSON, unknown kind, an ignore label, a file with other channels than are named, a listed file
            that is missing.
    """
    table = path / "dataset.json" if path.is_dir() else path
    if table.suffix.lower() != ".json" or not table.is_file():
        return None
    content = _load(table)
    try:
        return _dataset(table, content)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{table}: an entry is not of the expected form ({type(error).__name__}: {error})",
            'list cases as {"image": FILE, "label": FILE} and labels by value and name',
        ) from error


def read_names(path: Path) -> tuple[dict[int, str], int | None]:
    """Read the names of a ``dataset.json`` alone, whether or not its cases can be found.

    Args:
        path: The file, or its folder.

    Returns:
        Label value -> name, and the value of voxels that are not annotated, or None.

    Raises:
        InputError: Broken JSON, or labels that are no names and values.
    """
    table = path / "dataset.json" if path.is_dir() else path
    content = _load(table)
    try:
        names, _ = _labels(table, content.get("labels") or {})
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"{table}: its labels are no names and values ({error})"
        raise InputError(problem, "list them by value and name") from error
    ignore = ignored_value(names)
    return {value: name for value, name in names.items() if value != ignore}, ignore


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=partial(_once, path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}: {error.msg}", "correct that line") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "write it again as JSON in UTF-8") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{path}: expected a JSON object {{...}}, found a {kind}", "see nnU-Net's dataset.json")
    return content


def _once(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, which must not have one key twice: the parser would keep the last one."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{path}: '{twice[0]}' is given twice", "keep one")
    return dict(pairs)


def _dataset(path: Path, content: Mapping[str, Any]) -> Dataset:
    if "channel_names" in content:
        channels = _ordered_names(content["channel_names"])
        entries = _nnunet_entries(path, content, len(channels))
    elif "training" in content:
        channels = _ordered_names(content.get("modality", {}))
        entries = _msd_entries(path, content)
    else:
        raise InputError(
            f"{path}: neither a Decathlon file (key 'training') nor an nnU-Net v2 file (key 'channel_names')",
            "add the key, or remove the file to have images/ and labels/ paired by name",
        )
    modality = modality_of(channels)
    by_image: dict[Path, Case] = {}
    for entry in entries:
        case = _case(path, entry, modality)
        other = by_image.setdefault(case.image_path, case)
        if other is not case:
            both = f"{other.label_path} and {case.label_path}"
            raise InputError(f"{path}: two labels for one image {case.image_path}: {both}", "keep one")
    cases = checked(by_image.values(), path)
    labels, notes = _labels(path, content.get("labels", {}))
    ignore = ignored_value(labels)
    labels.pop(ignore if ignore is not None else 0, None)
    cases = _with_channels(path, channels, cases)
    return Dataset(str(content.get("name") or path.parent.name), modality, labels, cases, notes, ignore)


def _with_channels(path: Path, channels: Sequence[str], cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Say of each case how many channels it has; the Decathlon's Task01 and Task05 have several in one file."""
    if not cases or len(channels) < 2 or len(cases[0].image_paths) > 1:
        return cases
    volumes, image = max((volumes_in_file(case.image_path), case.image_path) for case in cases)
    if volumes not in (1, len(channels)):
        raise InputError(
            f"{path}: names {len(channels)} channels ({', '.join(channels[:10])}), but {image} has {volumes} volumes",
            "name one channel per volume, or a single one if the volumes are frames",
        )
    return tuple(replace(case, channels=volumes) for case in cases)


def _case(path: Path, entry: _Entry, modality: str | None) -> Case:
    name, images, label = entry
    for file in images if label is None else [*images, label]:
        if not file.exists():
            raise InputError(f"{path}: lists {file}, which does not exist", "restore the file or remove its entry")
    return Case(name, name, modality, tuple(images), label)


def _msd_entries(path: Path, content: Mapping[str, Any]) -> Iterator[_Entry]:
    if not content["training"]:
        raise InputError(f"{path}: 'training' lists no case", "list {image, label} pairs")
    for entry in content["training"]:
        entry = entry if isinstance(entry, dict) else {"image": entry}
        image = path.parent / entry["image"]
        images = [image] if image.exists() else _numbered_channels(image) or [image]
        yield case_id(image), images, path.parent / entry["label"] if entry.get("label") else None


def _numbered_channels(image: Path) -> list[Path]:
    """Return the files ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... that nnU-Net v1 lists as ``case.nii.gz``."""
    stem = stem_of(image)
    ending = image.name[len(stem) :]
    return sorted(image.parent.glob(f"{escape(stem)}_[0-9][0-9][0-9][0-9]{escape(ending)}"))


def _nnunet_entries(path: Path, content: Mapping[str, Any], channels: int) -> Iterator[_Entry]:
    for name, entry in (content.get("dataset") or {}).items():
        images = [path.parent / image for image in entry["images"]]
        yield name, images, path.parent / entry["label"] if entry.get("label") else None
    if content.get("dataset"):
        return
    ending = str(content.get("file_ending", ".nii.gz"))
    folder, suffix = path.parent / "imagesTr", f"_0000{ending}"
    names = sorted(file.name[: -len(suffix)] for file in folder.glob(f"*{escape(suffix)}"))
    if not names:
        raise InputError(f"{path}: no image named <case>{suffix} in {folder}", "check 'file_ending' and the folder")
    for name in names:
        label = path.parent / "labelsTr" / f"{name}{ending}"
        images = [folder / f"{name}_{channel:04d}{ending}" for channel in range(channels)]
        yield name, images, label if label.exists() else None


def _labels(path: Path, entries: Mapping[str, Any]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Read ``{"0": "background", "1": "liver"}`` (Decathlon) or ``{"background": 0, "liver": 1}`` (nnU-Net v2)."""
    labels: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for key, value in entries.items():
        if isinstance(value, (list, tuple)):
            regions[key] = [int(one) for one in value]
            continue
        number, name = (value, key) if isinstance(value, int) else (int(key), str(value))
        if number in labels:
            raise InputError(f"{path}: label value {number} is named twice ('{labels[number]}', '{name}')", "keep one")
        labels[number] = name
    notes = _split_regions(path, regions, labels)
    labels.pop(0, None)
    ignored = [value for value, name in labels.items() if name.lower() == IGNORE]
    if len(ignored) > 1:
        raise InputError(f"{path}: two labels are named '{IGNORE}', {ignored[0]} and {ignored[1]}", "keep one")
    return dict(sorted(labels.items())), notes


def _split_regions(path: Path, regions: Mapping[str, list[int]], labels: dict[int, str]) -> tuple[str, ...]:
    """Name each value of nnU-Net's regions, which are unions of values: ``whole tumor outside tumor core``."""
    if not regions:
        return ()
    sets = {name: set(values) for name, values in regions.items()} | {name: {value} for value, name in labels.items()}
    values = sorted({value for found in regions.values() for value in found} - labels.keys())
    for value in values:
        smallest = min((name for name, found in sets.items() if value in found), key=lambda name: len(sets[name]))
        inner = [name for name, found in sets.items() if found < sets[smallest] and value not in found]
        labels[value] = f"{smallest} outside {', '.join(inner)}" if inner else smallest
    parts = "; ".join(f"{value} is {labels[value]}" for value in values[:10])
    return (f"{path}: regions share voxels, so each label value is a structure of its own ({parts})",)


def ignored_value(names: Mapping[int, str]) -> int | None:
    """Return the label value that is named ``ignore``, if any: it marks voxels that are not annotated.

    A name that ends with ``(ignore)`` counts too.
    """
    return next((v for v, name in names.items() if name.strip().lower() == IGNORE or name.endswith("(ignore)")), None)


def _ordered_names(entries: Mapping[str, Any] | list[Any] | str) -> tuple[str, ...]:
    if isinstance(entries, str):
        return (entries,)
    if isinstance(entries, Mapping):
        return tuple(str(entries[key]) for key in sorted(entries, key=int))
    return tuple(str(entry) for entry in entries)
