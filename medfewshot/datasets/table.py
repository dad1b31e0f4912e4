"""A CSV with one case a line: ``image,label[,subject,modality]``."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, check_channels, path_id
from medfewshot.errors import InputError
from medfewshot.types import Case

_COLUMNS = ("image", "label", "subject", "modality")


def read_csv(path: Path) -> Dataset:
    """Read cases from a CSV; paths are relative to it, several channel files are separated by ``|``.

    A header with the columns ``image`` and ``label`` is required; ``subject`` and ``modality`` are optional, other
    columns are ignored. An empty label means "not labelled". Commas, semicolons and tabs separate columns.

    Raises:
        InputError: names the file and the line.
    """
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: no case below the header. Add lines of the form image.nii.gz,label.nii.gz")
    files = [(line, _image_files(path, line, row), row) for line, row in rows]
    names = _case_names(path, [images for _, images, _ in files])
    cases = []
    first_line: dict[tuple[Path, ...], int] = {}
    for (line, images, row), name in zip(files, names, strict=True):
        if images in first_line:
            raise InputError(
                f"{path}, line {line}: {images[0].name} is listed in line {first_line[images]} already; "
                "two labels for one image are not possible. Remove one line"
            )
        first_line[images] = line
        cases.append(_case(path, line, row, images, name))
    check_channels(cases, path)
    modalities = {case.modality for case in cases}
    return Dataset(
        name=path.stem,
        modality=modalities.pop() if len(modalities) == 1 else None,
        labels={},
        # CSV order is someone's decision, but splits are defined by file name, as for every other format.
        cases=tuple(sorted(cases, key=lambda case: (case.image_path.name, str(case.image_path)))),
        source="csv",
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """``(line number, row)`` of each line with content; column names in lower case."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header_line = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header_line.count)
            reader = csv.reader(file, delimiter=delimiter)
            header = [cell.strip().lower() for cell in next(reader, [])]
            _check_header(path, header)
            width = len(header)
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > width:
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(cells)} columns where the header has {width}. "
                        "Quote paths that contain the separator"
                    )
                padded = [cell.strip() for cell in cells] + [""] * (width - len(cells))
                rows.append((reader.line_num, dict(zip(header, padded, strict=True))))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}). Save it as UTF-8 text") from error


def _check_header(path: Path, header: list[str]) -> None:
    missing = [column for column in ("image", "label") if column not in header]
    if missing:
        raise InputError(
            f"{path}, line 1: the header lacks {' and '.join(missing)}. Start with a line '{','.join(_COLUMNS)}' "
            "(the last two are optional)"
        )


def _image_files(path: Path, line: int, row: dict[str, str]) -> tuple[Path, ...]:
    if not row["image"]:
        raise InputError(f"{path}, line {line}: the image column is empty. Give a path or remove the line")
    return tuple(_existing(path, line, "image", part.strip()) for part in row["image"].split("|"))


def _case(path: Path, line: int, row: dict[str, str], images: tuple[Path, ...], name: str) -> Case:
    label = _existing(path, line, "label", row["label"]) if row["label"] else None
    return Case(name, row.get("subject") or name, row.get("modality") or None, images, label)


def _existing(path: Path, line: int, column: str, text: str) -> Path:
    file = path.parent / text
    if not file.exists():
        raise InputError(f"{path}, line {line}: {column} {file} does not exist. Paths are relative to the CSV")
    return file


def _case_names(path: Path, files: list[tuple[Path, ...]]) -> list[str]:
    """Case ids; where files in different folders share a name, the folders are put in front."""
    names = [path_id(images[0]) for images in files]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else _long_name(path, images[0]) for name, images in zip(names, files, strict=True)
    ]


def _long_name(path: Path, image: Path) -> str:
    try:
        parts = image.resolve().relative_to(path.parent.resolve()).parent.parts
    except ValueError:
        parts = image.resolve().parent.parts[-2:]
    return "_".join((*parts, path_id(image)))
