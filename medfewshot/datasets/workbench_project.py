"""Projects of the workbench: ``project.json`` names the scans and structures, ``labels/`` has the masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, checked
from medfewshot.errors import InputError
from medfewshot.types import Case

PROJECT_FILE = "project.json"
IGNORE_VALUE = 255
"""Value of voxels that are not annotated yet, in the masks of a project."""


def read_project(folder: Path) -> Dataset | None:
    """Read the cases of a project; those with a mask are labelled, unless it is complete and was rejected."""
    path = folder / PROJECT_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = {int(one["value"]): str(one["name"]) for one in content["structures"]}
        scans = {Path(str(one["name"])).name: folder / str(one["path"]) for one in content["scans"]}
        frames = {Path(str(one["name"])).name: one.get("frame") for one in content["scans"]}
        rejected = _rejected(folder, scans)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} or a file beside it: cannot be read ({error})", "restore it from a copy") from None
    masks = {name: folder / "labels" / f"{name}.nii.gz" for name in scans}
    cases = [
        Case(
            name, name if frames[name] is None else scan.name, None, (scan,),
            masks[name] if masks[name].is_file() and name not in rejected else None, frame=frames[name],
        )
        for name, scan in scans.items()
        if scan.exists()
    ]  # fmt: skip
    missing = [f"{scan}: is missing" for scan in scans.values() if not scan.exists()]
    unused = [f"{masks[name]}: was rejected in the workbench and is not used" for name in rejected]
    return Dataset(folder.resolve().name, None, labels, checked(cases, folder), (*missing[:10], *unused), IGNORE_VALUE)


def _rejected(folder: Path, names: Collection[str]) -> list[str]:
    """Return the cases whose newest mask is complete and was rejected."""
    if not (folder / "reviews.csv").is_file():
        return []
    with (folder / "reviews.csv").open(newline="", encoding="utf-8") as file:
        given = {row["case"]: row for row in csv.DictReader(file) if row["status"] and row["case"] in names}
    rejected = {name: f"{int(row['version']):04d}" for name, row in given.items() if row["status"] == "rejected"}
    newest = {name: max((folder / "history" / name).glob("*.json"), default=folder) for name in rejected}
    same = [name for name, version in rejected.items() if newest[name].stem == version]
    return [name for name in same if not json.loads(newest[name].read_text("utf-8"))["drawn"]]
