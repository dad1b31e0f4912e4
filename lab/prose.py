"""Count what makes the project's text hard to read, and fail above the limits: ``python -m lab.prose``.

It counts words of README and docs, prose lines over 120 characters, sentences over 25 words, phrases that plain English
avoids (in pages, docstrings and comments), function summaries without a verb, and findings of ruff's docstring rules.
``--show`` prints the place of every finding.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_README_WORDS, MAX_DOCS_WORDS, MAX_LONG_LINES, MAX_LONG_SENTENCES, MAX_PHRASES = 800, 15_000, 0, 15, 9
MAX_NOUNS = 9
LONGEST_LINE, LONGEST_SENTENCE = 120, 25
PHRASES = re.compile(
    r"\b(?:told|anew|hears?|heard|untaught|steady|steadiness|by chance|lone|foreign|kept apart|did not pay|of which"
    r"|that of|so that nobody|what came of|whoever|but for|le(?:ave|aves|ft) out|holds|goes on|go on|gives? way"
    r"|where (?:there|it|they) (?:is|are|were|was)|made-up|stands? beside|is asked|speaks?)\b",
    re.IGNORECASE,
)
NO_VERB = re.compile(
    r"(?:A|An|The|Of|As|Where|What|How|Which|Those|At|All|One|Every|Each|Some|No|In|By|With|For|From|On|Only|Several|Any|Its"
    r"|Their)\b|[`(\[]"
)
"""First word of a summary that says what a function is, not what it does."""


def pages() -> list[Path]:
    """List the Markdown pages for users and contributors."""
    named = ["README.md", "CONTRIBUTING.md", "tutorials/README.md", "medfewshot/weights/README.md"]
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.is_symlink()]
    return [*(ROOT / name for name in named), *docs]


def words(text: str) -> int:
    """Count what contains a letter or a digit, in tables and code too."""
    return sum(any(character.isalnum() for character in word) for word in text.split())


def sentences(path: Path) -> Iterator[str]:
    """Yield the sentences of a page's paragraphs and list items, without formulas."""
    lines = (re.sub(r"^\s*([-*]|\d+\.) |^[#>].*|^!\[.*", "\n", line) for _, line in prose(path))
    text = re.sub(r"\$\$.*?\$\$", "", "\n".join(lines), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?:])\s+(?=[A-Z`*$\[])", " ".join(paragraph.split()))


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) outside of code blocks, tables and generated parts."""
    fenced = generated = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("<!-- "):
            generated = line.endswith(": begin -->")
        elif line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not generated and not line.startswith("|"):
            yield number, line


def modules() -> list[Path]:
    """List the Python files of the package, the laboratory and the docs."""
    return [path for room in ("medfewshot", "lab", "docs") for path in sorted((ROOT / room).rglob("*.py"))]


def code_text(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of the docstrings and comments of a Python file."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), start=node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def summaries_without_verb(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, summary) of functions, except properties, that say what they are instead of what they do."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and not any("property" in ast.unparse(d) for d in node.decorator_list):
            text = ast.get_docstring(node) or ""
            if NO_VERB.match(text):
                yield node.lineno, text.splitlines()[0]


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
        for path, lines in [*((page, prose(page)) for page in places), *((file, code_text(file)) for file in modules())]
        for number, line in lines
        for match in PHRASES.finditer(line)
    ]
    nouns = [
        f"{path.relative_to(ROOT)}:{number}: no verb: {summary}"
        for path in modules()
        for number, summary in summaries_without_verb(path)
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
        ("function summaries without a verb", len(nouns), MAX_NOUNS),
        ("docstring findings", len(docstrings), 0),
    ]
    for title, count, limit in rows:
        print(f"{title:40} {count:6}   at most {limit}")
    if show:
        print(*long, *sprawling, *phrases, *nouns, *docstrings, sep="\n")
    return int(any(count > limit for _, count, limit in rows))


if __name__ == "__main__":
    sys.exit(main())
