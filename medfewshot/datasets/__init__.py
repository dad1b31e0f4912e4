"""Folders, ``dataset.json`` files and CSVs become ``Case``s. A format is one function that returns a ``Dataset``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, as_task, find_label_values
from medfewshot.datasets.folders import read_folder
from medfewshot.datasets.json_file import read_json
from medfewshot.datasets.pairs import parse_pair
from medfewshot.datasets.table import read_csv
from medfewshot.errors import InputError

__all__ = ["Dataset", "as_task", "find_label_values", "parse_pair", "read_dataset"]


def read_dataset(path: Path | str, label_names: Mapping[int, str] | None = None) -> Dataset:
    """Find the cases of a folder, a ``dataset.json`` or a CSV. Reads no voxels.

    Args:
        path: a folder (with a ``dataset.json``, else its files are paired by name), a ``.json`` or a ``.csv`` file.
        label_names: label value -> name; these replace the names the format gives.

    Raises:
        InputError: one line that names the file, what is wrong and a way out.
    """
    path = Path(path)
    dataset = _read(path)
    if label_names is None:
        return dataset
    return replace(dataset, labels={int(value): str(name) for value, name in sorted(label_names.items()) if value})


def _read(path: Path) -> Dataset:
    if path.is_dir():
        table = path / "dataset.json"
        return read_json(table) if table.is_file() else read_folder(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist. Give a folder, a dataset.json or a CSV")
    if path.suffix.lower() == ".json":
        return read_json(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_csv(path)
    raise InputError(f"{path}: a single file is no dataset. Give its folder, a dataset.json or a CSV")
