"""Pages that are made, not written: the command line's help, and the tutorials as they were last executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, "command_line.md", content=command_line()))
    for notebook in sorted((ROOT / "tutorials").glob("[0-9]*.ipynb")):
        text, pictures = page_of(notebook)
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
    return files


def command_line() -> str:
    """The help of every command, as a reader of ``--help`` sees it, without the boxes."""
    from typer.main import get_command

    from medfewshot.cli.app import EXIT_CODES, app

    root = get_command(app)
    parts = ["# Command line", "", EXIT_CODES.replace("**", "`"), ""]
    for name, command in _commands(root):
        parts += [f"## medfewshot {name}", "", command.help or "", "", "| option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name != "option":
                names = f"`{parameter.metavar or parameter.name.upper()}`"
            parts.append(f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |")
        parts.append("")
    return "\n".join(parts)


def _commands(group: Any, before: str = "") -> list[tuple[str, Any]]:
    """(name, command), those of groups as ``group command``."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += _commands(command, f"{before}{name} ") if inner else [(f"{before}{name}", command)]
    return found


def page_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown and pictures of an executed notebook."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(notebook))
    pictures = {}
    for name, data in resources.get("outputs", {}).items():
        unique = f"{notebook.stem}_{name}"
        text = text.replace(f"({name})", f"({unique})")
        pictures[unique] = data
    return re.sub(r"\x1b\[[0-9;]*m", "", text), pictures


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
