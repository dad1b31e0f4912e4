"""Put tables that ``medfewshot benchmark`` wrote into a marked place of docs/benchmarks.md.

    python benchmarks/put_tables.py volume runs/volume/report/tables.md
    python benchmarks/put_tables.py oracle-2d runs/oracle-2d/report/oracle-2d.md --sections "Scores, oracle-2d"

The place lies between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``; what was there goes. Text before the first
table (cells, machines, what weights have seen) comes along; ``--sections`` names the tables, or takes them all.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def excerpt(text: str, wanted: list[str]) -> str:
    """The head and the ``wanted`` sections of a report (all where none is named), two heading levels deeper."""
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    known = {section.splitlines()[0]: section for section in sections}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise SystemExit(f"no section {missing[0]}; there are: {', '.join(known)}")
    chosen = [known[name] for name in wanted] or sections
    paragraphs = re.sub(r"\A# .*\n+", "", head).rstrip()
    return "\n\n".join([paragraphs, *(f"#### {section.rstrip()}" for section in chosen)]).strip()


def put(page: str, name: str, content: str) -> str:
    """``page`` with ``content`` in the place ``name``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{begin} and {end} must stand in the page once each")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("tables", type=Path)
    parser.add_argument("--sections", action="append", default=[])
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    content = excerpt(options.tables.read_text(encoding="utf-8"), options.sections)
    options.page.write_text(put(options.page.read_text(encoding="utf-8"), options.name, content), encoding="utf-8")


if __name__ == "__main__":
    main()
