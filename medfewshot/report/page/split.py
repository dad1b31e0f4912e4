"""The files of a report: one, or several if it is too large for one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from urllib.parse import quote

from medfewshot.report.page.content import Page, PageCase
from medfewshot.report.page.flags import look_first
from medfewshot.report.page.write import Sheet, anchors_of, render_page, write_html

FILE_BYTES = 22_000_000
"""Pictures, volumes and text of the scans in one file. With the viewer (2.3 MB), a file stays below 30 MB."""
FILE_CASES = 500
CASE_BYTES, ROW_BYTES = 2_000, 600
"""About what the text of a scan takes, and of each of its structures."""
_PART = re.compile(r"scans_\d{3,}\.html")


def write_page(
    path: Path, page: Page, shown: Iterable[PageCase] | None = None, *, file_cases: int = FILE_CASES
) -> Path:
    """Write a report: one file, or several if it is too large for one.

    Of several, the file at ``path`` lists all scans and the others show them one by one: see :func:`parts_folder`.
    Each appears whole or not at all, that at ``path`` as the last one.

    Args:
        path: The file to write.
        page: The content.
        shown: The scans of ``page`` in its order, with pictures and volumes; default: as ``page`` has them.
        file_cases: Largest number of scans that one file shows.

    Returns:
        ``path``.
    """
    links, outer, names = anchors_of(page), dict[str, str](), list[str]()
    cards = {case.name: case for case in look_first(page.cases)}
    parts = _parts(page.cases if shown is None else shown, file_cases)
    for number, (part, following) in enumerate(pairwise(chain(parts, [[]])), start=1):
        if number == 1 and not following:
            write_html(path, render_page(replace(page, cases=tuple(part))))
            break
        names.append(_part_name(number))
        sheet = Sheet(
            part, links, overview=False, first=len(outer) + 1, start=f"../{quote(path.name)}",
            before=names[-2] if number > 1 else None, after=_part_name(number + 1) if following else None,
        )  # fmt: skip
        write_html(parts_folder(path) / names[-1], render_page(page, sheet))
        outer |= {case.name: f"{quote(parts_folder(path).name)}/{names[-1]}{links[case.name]}" for case in part}
        for case in (one for one in part if one.name in cards):  # the overview shows one picture of each
            cards[case.name] = replace(case, viewer=None, preview=None if case.picture else case.preview)
    else:
        cases = tuple(cards.get(case.name, case) for case in page.cases)
        write_html(path, render_page(replace(page, cases=cases), Sheet((), outer)))
    remove_parts(path, keep=names)
    return path


def parts_folder(path: Path) -> Path:
    """Return the folder of the further files of the report at ``path``."""
    return path.with_name(f"{path.stem}_scans")


def remove_parts(path: Path, keep: Sequence[str] = ()) -> None:
    """Delete the further files of the report at ``path``, except those in ``keep``."""
    folder = parts_folder(path)
    if not folder.is_dir():
        return
    for file in list(folder.iterdir()):
        if _PART.fullmatch(file.name) and file.name not in keep:
            file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _parts(cases: Iterable[PageCase], most: int) -> Iterator[list[PageCase]]:
    """Yield the scans of each file; at least one list."""
    part, size = list[PageCase](), 0
    for case in cases:
        if part and (size + _bytes_of(case) > FILE_BYTES or len(part) == most):
            yield part
            part, size = [], 0
        part.append(case)
        size += _bytes_of(case)
    yield part


def _bytes_of(case: PageCase) -> int:
    """Return about how many bytes a scan adds to its file."""
    texts = [case.preview, case.picture, *case.files, *case.warnings, *case.details]
    if case.viewer:
        texts += [case.viewer.image, case.viewer.labels, case.viewer.reference, case.viewer.uncertainty]
    return CASE_BYTES + ROW_BYTES * len(case.structures) + sum(len(text) for text in texts if text)


def _part_name(number: int) -> str:
    return f"scans_{number:03}.html"
