"""A CSV with one case a line: ``image,label[,subject,modality]``."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from medfewshot.datasets.dataset import Dataset, checked, path_id
from medfewshot.errors import InputError
from medfewshot.types import Case

_COLUMNS = ("image", "label", "subject", "modality", "frame")
_Row = dict[str, str]


def read_csv(path: Path) -> Dataset | None:
    """Read cases from a CSV. Paths are relative to it, and ``|`` separates several channel files.

    The header must name the columns ``image`` and ``label``. Optional are ``subject``, ``modality``, and ``frame``, the
    frame of a film, from 0, that the label map belongs to. Other columns are ignored. An empty label means "not
    labelled". Commas, semicolons and tabs separate columns.

    Raises:
        InputError: Names the file and the line.
    """
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return None
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: no case below the header", "add lines of the form image.nii.gz,label.nii.gz")
    first_line: dict[tuple[tuple[Path, ...], int | None], int] = {}
    examples: list[tuple[tuple[Path, ...], int | None]] = []
    for line, row in rows:
        if not row["image"]:
            raise InputError(f"{path}, line {line}: the image column is empty", "give a path or remove the line")
        images = tuple(_existing(path, line, "image", part.strip()) for part in row["image"].split("|"))
        frame = _frame(path, line, row.get("frame", ""))
        files = tuple(image.resolve() for image in images)  # one file can have several paths
        if len(set(files)) < len(files):
            raise InputError(f"{path}, line {line}: two channels are the same file", "give each channel its own file")
        if (first := first_line.setdefault((files, frame), line)) != line:
            twice = f"{path}, line {line}: {images[0].name} is listed in line {first} already"
            raise InputError(twice, "remove one line, because an image cannot have two labels")
        examples.append((images, frame))
    counts, found = Counter(path_id(image) for image in {images[0] for images, _ in examples}), []
    for (line, row), (images, frame) in zip(rows, examples, strict=True):
        name = path_id(images[0])
        name = name if counts[name] == 1 else _long_name(path, images[0])
        subject = row.get("subject") or name
        name += "" if frame is None else f"_frame{frame}"
        label = _existing(path, line, "label", row["label"]) if row["label"] else None
        found.append(Case(name, subject, row.get("modality", "").upper() or None, images, label, frame=frame))
    cases = checked(found, path)
    modalities = {case.modality for case in cases}
    return Dataset(path.stem, modalities.pop() if len(modalities) == 1 else None, {}, cases)


def _frame(path: Path, line: int, text: str) -> int | None:
    if text and not text.isdecimal():
        raise InputError(f"{path}, line {line}: frame {text} is no number", "count frames from 0")
    return int(text) if text else None


def _rows(path: Path) -> list[tuple[int, _Row]]:
    """Return ``(line number, row)`` of each line with content. Column names are in lower case."""
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header_line = file.readline()
            file.seek(0)
            separator = max(",;\t", key=header_line.count)
            reader = csv.DictReader(file, delimiter=separator, restval="", skipinitialspace=True, strict=True)
            reader.fieldnames = [cell.strip().lower() for cell in reader.fieldnames or ()]
            _check_header(path, reader.fieldnames)
            rows, start = [], reader.line_num + 1
            for row in reader:
                start = reader.line_num + 1
                more = row.pop(None, [])
                stripped = {column: cell.strip() for column, cell in row.items()}
                if not any([*stripped.values(), *(cell.strip() for cell in more)]):
                    continue
                if more:
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row) + len(more)} columns, the header has {len(row)}",
                        "quote paths that contain the separator",
                    )
                rows.append((reader.line_num, stripped))
            return rows
    except csv.Error as error:
        problem = f"{path}, line {start}: cannot be read as CSV ({error})"
        raise InputError(problem, 'close or remove the quote (") there') from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})", "save it as UTF-8 text") from error


def _check_header(path: Path, header: list[str]) -> None:
    if twice := [column for column in _COLUMNS if header.count(column) > 1]:
        several = "separate the files of several channels by |" if "image" in twice else "keep one"
        raise InputError(f"{path}, line 1: the header has {twice[0]} twice", several)
    missing = [column for column in ("image", "label") if column not in header]
    if missing:
        lacks = f"{path}, line 1: the header lacks {' and '.join(missing)}"
        raise InputError(lacks, f"start with a line '{','.join(_COLUMNS)}' (the last three are optional)")


def _existing(path: Path, line: int, column: str, text: str) -> Path:
    file = path.parent / text
    if not file.exists():
        raise InputError(f"{path}, line {line}: {column} {file} does not exist", "give paths relative to the CSV")
    return file


def _long_name(path: Path, image: Path) -> str:
    """Return the case id with its folders in front, for files in different folders that share a name."""
    try:
        parts = image.resolve().relative_to(path.parent.resolve()).parent.parts
    except ValueError:
        parts = image.resolve().parent.parts[-2:]
    return "_".join((*parts, path_id(image)))
