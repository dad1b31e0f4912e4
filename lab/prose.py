"""Count what makes the project's text hard to read, and fail above the limits: ``python -m lab.prose``.

It counts words of README and docs, prose lines over 120 characters, sentences over 25 words, phrases that plain English
avoids, and findings of ruff's docstring rules. ``--show`` prints the place of every finding.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_README_WORDS, MAX_DOCS_WORDS, MAX_LONG_LINES, MAX_LONG_SENTENCES, MAX_PHRASES = 800, 15_000, 0, 15, 9
LONGEST_LINE, LONGEST_SENTENCE = 120, 25
PHRASES = re.compile(
    r"\b(?:told|anew|hears?|heard|untaught|steady|steadiness|by chance|lone|foreign|kept apart|did not pay|of which"
    r"|that of|so that nobody|what came of|whoever|but for|le(?:ave|aves|ft) out|holds|goes on|go on|gives? way"
    r"|where (?:there|it|they) (?:is|are|were|was)|made-up|stands? beside|is asked|speaks?)\b",
    re.IGNORECASE,
)


def pages() -> list[Path]:
    """The Markdown that users and contributors read."""
    named = ["README.md", "CONTRIBUTING.md", "tutorials/README.md", "medfewshot/weights/README.md"]
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.is_symlink()]
    return [*(ROOT / name for name in named), *docs]


def words(text: str) -> int:
    """Count what contains a letter or a digit, in tables and code too."""
    return sum(any(character.isalnum() for character in word) for word in text.split())


def sentences(path: Path) -> Iterator[str]:
    """Sentences of a page's paragraphs and list items, without formulas."""
    lines = (re.sub(r"^\s*([-*]|\d+\.) |^[#>].*|^!\[.*", "\n", line) for _, line in prose(path))
    text = re.sub(r"\$\$.*?\$\$", "", "\n".join(lines), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?:])\s+(?=[A-Z`*$\[])", " ".join(paragraph.split()))


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) outside of code blocks, tables and generated parts."""
    fenced = generated = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("<!-- "):
            generated = line.endswith(": begin -->")
        elif line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not generated and not line.startswith("|"):
            yield number, line


def docstring_findings() -> list[str]:
    """List what ruff's docstring rules find, with the settings of pyproject.toml."""
    command = [sys.executable, "-m", "ruff", "check", ".", "--output-format", "concise", "--exit-zero"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if re.search(r":\d+:\d+: D\d+", line)]


def main() -> int:
    """Print the counts; exit code 1 if one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the place of every finding")
    show = parser.parse_args().show
    places = pages()
    notes = sorted((ROOT / "lab/notes").glob("*.md"))
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} characters"
        for path in [*places, *notes]
        for number, line in prose(path)
        if len(line) > LONGEST_LINE
    ]
    phrases = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r} in: {line.strip()}"
        for path in places
        for number, line in prose(path)
        for match in PHRASES.finditer(line)
    ]
    sprawling = [
        f"{path.relative_to(ROOT)}: {words(sentence)} words: {sentence}"
        for path in places
        for sentence in sentences(path)
        if words(sentence) > LONGEST_SENTENCE
    ]
    docstrings = docstring_findings()
    docs = [path for path in places if path.is_relative_to(ROOT / "docs")]
    rows = [
        ("words of README.md", words((ROOT / "README.md").read_text(encoding="utf-8")), MAX_README_WORDS),
        ("words of docs/", sum(words(path.read_text(encoding="utf-8")) for path in docs), MAX_DOCS_WORDS),
        (f"prose lines over {LONGEST_LINE} characters", len(long), MAX_LONG_LINES),
        (f"sentences over {LONGEST_SENTENCE} words", len(sprawling), MAX_LONG_SENTENCES),
        ("phrases to avoid", len(phrases), MAX_PHRASES),
        ("docstring findings", len(docstrings), 0),
    ]
    for title, count, limit in rows:
        print(f"{title:40} {count:6}   at most {limit}")
    if show:
        print(*long, *sprawling, *phrases, *docstrings, sep="\n")
    return int(any(count > limit for _, count, limit in rows))


if __name__ == "__main__":
    sys.exit(main())
