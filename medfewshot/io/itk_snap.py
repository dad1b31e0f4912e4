"""Names of structures in ITK-SNAP's label descriptions, which lie beside a label map."""

from __future__ import annotations

import re
from pathlib import Path

from medfewshot.io.paths import stem_of

_TITLE = "itk-snap label description file"
_SUFFIXES = (".label", ".txt")
_SHARED_NAMES = ("labels", "label_descriptions", "label_description")
_ROW = re.compile(r'^\s*(\d+)(?:\s+[\d.]+){4}\s+[01]\s+[01]\s+"(.*)"\s*$')


def described_names(label: Path) -> dict[int, str]:
    """Read the names that a label description gives to the values of a label map.

    The description is a file with the label map's name and the suffix ``.label`` or ``.txt``, or else the only one in
    its folder with a name like ``labels.txt``.

    Returns:
        Label value -> name, without the background; empty if there is no description.
    """
    own = [label.with_name(stem_of(label) + suffix) for suffix in _SUFFIXES]
    shared = [label.with_name(name + suffix) for name in _SHARED_NAMES for suffix in _SUFFIXES]
    for group in (own, shared):
        found = [names for path in group if path.is_file() for names in [_read(path)] if names]
        if len(found) == 1:
            return found[0]
    return {}


def _read(path: Path) -> dict[int, str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if _TITLE not in text[:1000].lower():
        return {}
    rows = [match for line in text.splitlines() if (match := _ROW.match(line))]
    return {int(row[1]): row[2].strip() for row in rows if int(row[1]) > 0 and row[2].strip()}
