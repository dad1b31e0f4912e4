"""Shell commands that the pages publish: README, docs, tutorials, the bundle's README and the package's messages."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = (
    *("medfewshot", "python", "python3", "py", "pip", "uv", "make", "docker", "torchrun", "monailabel"),
    *("export", "git", "gpg", "twine", "mkdir", "."),
)
"""What a published command may begin with, besides the activation of an environment."""
ACTIVATES = re.compile(r"\.venv\\Scripts\\activate(\.ps1)?\s*(&& )?", re.IGNORECASE)
OPERATORS = ("&&", "||", ";", "|", ">", ">>", "&")


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        page: Path of the page, relative to the repository.
        words: Program and arguments, without quotes, comments and redirections.
        whole: Whether a reader can type it as it is. A mention within a sentence may lack arguments.
    """

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def pages() -> list[Path]:
    """List the files that publish commands, apart from messages."""
    named = ("README.md", "CONTRIBUTING.md", "tutorials/README.md", "medfewshot/bundle/templates/README.md")
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.is_symlink()]
    notes = sorted((ROOT / "lab/notes").glob("*.md"))
    tutorials = sorted((ROOT / "tutorials").glob("[0-9]*.py"))
    return [*(ROOT / name for name in named), *docs, *notes, *tutorials]


def published() -> list[Command]:
    """Return all commands of all pages and messages."""
    messages = [found for path in sorted((ROOT / "medfewshot").rglob("*.py")) for found in messages_of(path)]
    return [found for page in pages() for found in commands_of(page)] + messages


def commands_of(page: Path) -> Iterator[Command]:
    """Yield the commands of one page: first those of its code blocks, then those within sentences."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    if page.suffix == ".py":  # a notebook as a script: its prose is in comments
        text = re.sub(r"^# ?", "", text, flags=re.M)
    fenced = re.compile(r"^(?P<fence>```+)(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.S | re.M)
    blocks = [match["body"] for match in fenced.finditer(text) if match["kind"] in ("", "bash", "sh")]
    rest = fenced.sub("", text)
    indented = re.compile(r"(?:^    [^\n]*\n)+", re.M)
    if page.parent.name == "templates":  # the bundle's README indents its blocks
        blocks += [re.sub(r"^    ", "", block, flags=re.M) for block in indented.findall(rest)]
        rest = indented.sub("", rest)
    for block in blocks:
        lines = block.replace("\\\n", " ").splitlines()
        if any(is_command(line) for line in lines):
            for line in filter(str.strip, lines):
                yield from (Command(name, words, whole=True) for words in split(line))
    for code in re.findall(r"`([^`]+)`", rest):
        line = " ".join(code.split())
        if is_command(line) and " " in line:
            yield from (Command(name, words, whole=False) for words in split(line))


def messages_of(path: Path) -> Iterator[Command]:
    """Yield the commands of pip that the messages of a module name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for line in re.findall(r"\bpip install [^,\n]+", node.value):
                yield Command(path.relative_to(ROOT).as_posix(), tuple(shlex.split(line)), whole=True)


def is_command(line: str) -> bool:
    """Return whether a line begins with a known program or activates an environment."""
    return line.split(" ")[0] in PROGRAMS or bool(ACTIVATES.match(line))


def split(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command of a line, without activations of an environment on Windows."""
    lexer = shlex.shlex(ACTIVATES.sub("", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    target = False
    for word in [*lexer, ";"]:
        if word in OPERATORS:
            if words:
                yield tuple(words)
            words, target = [], word.startswith(">")
        elif target:  # the file of a redirection
            target = False
        else:
            words.append(word)
