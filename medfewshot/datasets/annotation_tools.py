"""Layouts of annotation tools: MONAI Label's data store and scenes of 3D Slicer.

References:
    MONAI Label: https://github.com/Project-MONAI/MONAILabel, ``monailabel/datastore/local.py``.
    3D Slicer: https://slicer.readthedocs.io/en/latest/developer_guide/mrml_overview.html.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from medfewshot.datasets.dataset import Dataset, dataset_of, skipped
from medfewshot.datasets.pairs import IMAGE_FOLDERS, LABEL_FOLDERS, first_folder, pair_by_name
from medfewshot.errors import InputError
from medfewshot.io import looks_like_label, stem_of, volumes_in
from medfewshot.types import Case

_MOST_BYTES = 64 << 20
_LABELS = ("Segmentation", "LabelMapVolume")
_References = dict[str, list[str]]


def read_monai_label(folder: Path) -> Dataset | None:
    """MONAI Label: ``case.nii.gz`` + ``labels/final/case.nii.gz``. Drafts in ``labels/original`` are ignored."""
    store = first_folder(folder, [f"{name}/final" for name in LABEL_FOLDERS])
    if store is None:
        return None
    places = [folder, *(folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir())]
    images = [path for place in places for path in volumes_in(place) if not looks_like_label(path)]
    labels = volumes_in(store)
    cases, notes = pair_by_name(images, labels)
    drafts = volumes_in(store.parent / "original") if (store.parent / "original").is_dir() else []
    final = {stem_of(path) for path in labels}
    notes += skipped([path for path in drafts if stem_of(path) not in final], "it is a draft without a final label")
    return dataset_of(folder, cases, notes)


def read_slicer_scenes(folder: Path) -> Dataset | None:
    """3D Slicer: a saved scene (``*.mrml``) or one in each subfolder. The scene says which scan was segmented.

    Raises:
        InputError: A scene cannot be read, or one scan has two segmentations.
    """
    if not folder.is_dir():
        return None
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    scenes = [scene for place in (folder, *children) for scene in sorted(place.glob("*.mrml"))]
    cases, notes = [], list[str]()
    for scene in scenes:
        found, more = _scene_cases(scene)
        name = scene.parent.resolve().name if len([one for one in scenes if one.parent == scene.parent]) == 1 else ""
        for case in found:
            own = name if len(found) == 1 and name else case.case_id
            cases.append(Case(own, own, None, case.image_paths, case.label_path))
        notes += more
    return dataset_of(folder, cases, notes)


def _scene_cases(scene: Path) -> tuple[list[Case], list[str]]:
    nodes = _nodes(scene)
    labels: dict[Path, Path] = {}
    alone: list[Path] = []
    for node, tag in nodes.values():
        if tag not in _LABELS:
            continue
        label = _file_of(scene, node, nodes)
        references = _references(node)
        wanted = references.get("referenceImageGeometryRef") or references.get("AssociatedNodeID") or []
        target = nodes.get(wanted[0]) if wanted else None
        image = _file_of(scene, target[0], nodes) if target is not None else None
        if label is None:
            continue
        if image is None:
            alone.append(label)
        elif labels.setdefault(image, label) != label:
            raise InputError(f"{scene}: two labels for one image {image}: {labels[image]} and {label}", "keep one")
    volumes = [_file_of(scene, node, nodes) for node, tag in nodes.values() if tag == "Volume"]
    unlabelled = [path for path in volumes if path is not None and path not in labels]
    found = [Case(stem_of(image), stem_of(image), None, (image,), label) for image, label in labels.items()]
    reason = "the scene does not say which scan it belongs to"
    return found, [
        *skipped(alone, reason),
        *skipped(unlabelled if found else [], "the scene has no segmentation of it"),
    ]  # fmt: skip


def _nodes(scene: Path) -> dict[str, tuple[ElementTree.Element, str]]:
    """Return the nodes of a scene by their id, each with its kind."""
    try:
        if scene.stat().st_size > _MOST_BYTES:
            raise InputError(f"{scene}: is larger than a scene of 3D Slicer", "save the scene again")
        content = scene.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise InputError(f"{scene}: defines XML entities, as no scene of 3D Slicer does", "save the scene again")
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(
            f"{scene}: cannot be read as a scene of 3D Slicer ({error})", "save the scene again"
        ) from error
    return {node.get("id", ""): (node, node.tag) for node in root}


def _references(node: ElementTree.Element) -> _References:
    """Read ``"storage:vtkMRMLA1;display:vtkMRMLB1 vtkMRMLB2;"`` into role -> ids of nodes."""
    parts = (part.split(":", 1) for part in (node.get("references") or "").split(";") if ":" in part)
    return {role.strip(): ids.split() for role, ids in parts}


def _file_of(scene: Path, node: ElementTree.Element, nodes: dict[str, tuple[ElementTree.Element, str]]) -> Path | None:
    """Return the file that a node is stored in, or None if it has none or the file is missing."""
    wanted = _references(node).get("storage") or [node.get("storageNodeRef") or ""]
    storage = nodes.get(wanted[0])
    name = storage[0].get("fileName") if storage is not None else None
    if not name:
        return None
    path = scene.parent / unquote(name)
    return path if path.is_file() else None
