"""``dataset.json``: Medical Segmentation Decathlon, and nnU-Net v1 and v2.

Sources: http://medicaldecathlon.com and nnU-Net's ``documentation/dataset_format.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medfewshot.datasets.dataset import Dataset, by_file_name, check_channels, modality_of
from medfewshot.errors import InputError
from medfewshot.io import case_id
from medfewshot.io.naming import stem_of
from medfewshot.types import Case


def read_json(path: Path) -> Dataset:
    """Read a ``dataset.json``; its kind is told from its keys.

    Raises:
        InputError: broken JSON, unknown kind, regions or an ignore label, a listed file that is missing.
    """
    content = _load(path)
    try:
        if "channel_names" in content:
            return _read_nnunet(path, content)
        if "training" in content:
            return _read_msd(path, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: an entry is not of the expected form ({type(error).__name__}: {error}); "
            'list cases as {"image": FILE, "label": FILE} and labels by value and name'
        ) from error
    raise InputError(
        f"{path}: neither a Decathlon file (key 'training') nor an nnU-Net v2 file (key 'channel_names'). "
        "Add the key, or remove the file to have images/ and labels/ paired by name"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}: {error.msg}. Correct that line") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write it again as JSON in UTF-8") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{path}: expected a JSON object {{...}}, found a {kind}; see nnU-Net's dataset.json for one")
    return content


def _read_msd(path: Path, content: Mapping[str, Any]) -> Dataset:
    channels = _ordered_names(content.get("modality", {}))
    modality = modality_of(channels)
    cases = by_file_name(_msd_case(path, entry, modality) for entry in content["training"])
    if not cases:
        raise InputError(f"{path}: 'training' lists no case. List {{image, label}} pairs")
    _check_unique(cases, path)
    check_channels(cases, path)
    return Dataset(
        name=str(content.get("name") or path.parent.name),
        modality=modality,
        labels=_labels(path, content.get("labels", {})),
        cases=cases,
        source="msd",
        channel_names=channels,
    )


def _msd_case(path: Path, entry: Any, modality: str | None) -> Case:
    entry = entry if isinstance(entry, dict) else {"image": entry}
    image = path.parent / entry["image"]
    images: tuple[Path, ...] = (image,)
    if not image.exists():
        images = _numbered_channels(image) or _missing(image, path)
    label = path.parent / entry["label"] if entry.get("label") else None
    if label is not None and not label.exists():
        _missing(label, path)
    name = case_id(image)
    return Case(case_id=name, subject_id=name, modality=modality, image_paths=images, label_path=label)


def _numbered_channels(image: Path) -> tuple[Path, ...]:
    """nnU-Net v1 lists ``case.nii.gz`` where ``case_0000.nii.gz``, ``case_0001.nii.gz``, ... lie."""
    stem = stem_of(image)
    ending = image.name[len(stem) :]
    return tuple(sorted(image.parent.glob(f"{_escape(stem)}_[0-9][0-9][0-9][0-9]{_escape(ending)}")))


def _read_nnunet(path: Path, content: Mapping[str, Any]) -> Dataset:
    channels = _ordered_names(content["channel_names"])
    modality = modality_of(channels)
    listed = content.get("dataset")
    if listed:
        cases = [_listed_case(path, name, entry, modality) for name, entry in listed.items()]
    else:
        ending = str(content.get("file_ending", ".nii.gz"))
        cases = [
            _nnunet_case(path, name, ending, len(channels), modality)
            for name in _nnunet_names(path.parent / "imagesTr", ending, path)
        ]
    check_channels(cases, path)
    return Dataset(
        name=str(content.get("name") or path.parent.name),
        modality=modality,
        labels=_labels(path, content.get("labels", {})),
        cases=by_file_name(cases),
        source="nnunet",
        channel_names=channels,
    )


def _nnunet_names(folder: Path, ending: str, path: Path) -> list[str]:
    suffix = f"_0000{ending}"
    names = sorted(file.name[: -len(suffix)] for file in folder.glob(f"*{_escape(suffix)}"))
    if not names:
        raise InputError(f"{path}: no image named <case>{suffix} in {folder}. Check 'file_ending' and the folder")
    return names


def _nnunet_case(path: Path, name: str, ending: str, channels: int, modality: str | None) -> Case:
    images = tuple(path.parent / "imagesTr" / f"{name}_{channel:04d}{ending}" for channel in range(channels))
    for image in images:
        if not image.exists():
            _missing(image, path)
    label = path.parent / "labelsTr" / f"{name}{ending}"
    return Case(name, name, modality, images, label if label.exists() else None)


def _listed_case(path: Path, name: str, entry: Mapping[str, Any], modality: str | None) -> Case:
    images = tuple(path.parent / image for image in entry["images"])
    label = path.parent / entry["label"] if entry.get("label") else None
    for file in (*images, *([label] if label else [])):
        if not file.exists():
            _missing(file, path)
    return Case(name, name, modality, images, label)


def _labels(path: Path, entries: Mapping[str, Any]) -> dict[int, str]:
    """``{"0": "background", "1": "liver"}`` (Decathlon) or ``{"background": 0, "liver": 1}`` (nnU-Net v2)."""
    labels: dict[int, str] = {}
    for key, value in entries.items():
        if isinstance(value, (list, tuple)):
            raise InputError(
                f"{path}: label '{key}' is a region {list(value)}; regions are not supported. "
                "Give each label one value, e.g. {'background': 0, 'edema': 1, 'core': 2}"
            )
        number, name = (value, key) if isinstance(value, int) else (int(key), str(value))
        if name.lower() == "ignore":
            raise InputError(f"{path}: an 'ignore' label is not supported. Remove it, or label those voxels")
        if number in labels:
            raise InputError(f"{path}: label value {number} is named twice ('{labels[number]}', '{name}'). Keep one")
        labels[number] = name
    labels.pop(0, None)
    return dict(sorted(labels.items()))


def _ordered_names(entries: Mapping[str, Any] | list[Any] | str) -> tuple[str, ...]:
    if isinstance(entries, str):
        return (entries,)
    if isinstance(entries, Mapping):
        return tuple(str(entries[key]) for key in sorted(entries, key=int))
    return tuple(str(entry) for entry in entries)


def _check_unique(cases: Iterable[Case], path: Path) -> None:
    seen: dict[Path, Case] = {}
    for case in cases:
        other = seen.setdefault(case.image_path, case)
        if other is not case:
            labels = f"{other.label_path} and {case.label_path}"
            raise InputError(f"{path}: two labels for one image {case.image_path}: {labels}. Keep one")


def _escape(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _missing(file: Path, path: Path) -> tuple[Path, ...]:
    raise InputError(f"{path}: lists {file}, which does not exist. Restore the file or remove its entry")
