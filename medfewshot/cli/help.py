"""Help of every command as plain text: what it does, examples, arguments and options in at most 80 columns.

The docstring of a command is its help. Its first paragraph is also the line in the list of commands, and its section
``Example:`` is printed as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent, fill
from typing import Any

from typer.core import TyperCommand, TyperGroup

EXIT_CODES = (
    "Exit codes: 0 all done; 1 some scans failed, the others are done, or the disk is full; 2 input or options cannot "
    "be used, nothing was written; 130 interrupted."
)
_EXAMPLE = "Example:\n"
WIDEST_NAME = 26


def about(command: Any) -> str:
    """Return what a command does, without its examples; single line breaks are spaces."""
    text = (command.help or "").partition(_EXAMPLE)[0]
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def examples(command: Any) -> list[str]:
    """Return the example lines of a command."""
    return dedent((command.help or "").partition(_EXAMPLE)[2]).strip().splitlines()


def names_of(parameter: Any) -> str:
    """Return how a parameter is typed, e.g. ``-o, --output FOLDER`` or ``--previews, --no-previews``."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: name.startswith("--")))
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def meaning_of(parameter: Any) -> str:
    """Return what a parameter means, whether it is required, and its default."""
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    note = "" if shown is None or shown is False else "on" if shown is True else str(shown)
    note = f"default: {note}" if note else "required" if parameter.required else ""
    return f"{parameter.help or ''} ({note})" if note else parameter.help or ""


class _PlainHelp:
    """Writes the help; the class beside it in the bases is the command or the group."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words behind the name of the command in the usage line."""
        command: Any = self
        if isinstance(self, TyperGroup):
            return ["COMMAND", "..."]
        arguments = [one for one in command.get_params(ctx) if one.param_type_name == "argument"]
        return [*(one.metavar if one.required else f"[{one.metavar}]" for one in arguments), "[OPTIONS]"]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, description, examples, arguments, options and commands."""
        command: Any = self
        shown = [one for one in command.get_params(ctx) if not (one.param_type_name == "option" and one.hidden)]
        command.format_usage(ctx, formatter)
        formatter.write(f"\n{_prose(about(command), formatter.width)}\n")
        if lines := examples(command):
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in lines))
        if isinstance(self, TyperGroup):
            _write_commands(command, formatter)
        panels: dict[str, list[Any]] = {}
        for one in shown:
            title = "Arguments" if one.param_type_name == "argument" else "Options"
            panels.setdefault(one.rich_help_panel or title, []).append(one)
        for title, parameters in panels.items():
            _write_list(formatter, title, [(names_of(one), meaning_of(one)) for one in parameters])
        formatter.write(f"\n{_prose(EXIT_CODES, formatter.width)}\n")


def _write_commands(group: Any, formatter: Any) -> None:
    """Write the commands of a group, each with the first paragraph of its help."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for name, command in group.commands.items():
        sections.setdefault(command.rich_help_panel or "Commands", []).append((name, about(command).split("\n\n")[0]))
    width = max(len(name) for name in group.commands)
    for title, rows in sections.items():
        _write_list(formatter, title, [(name.ljust(width), text) for name, text in rows])


def _write_list(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write names and meanings in two columns; the meaning of a long name begins below it."""
    column = min(max(len(name) for name, _ in rows), WIDEST_NAME)
    pad = " " * (column + 4)
    with formatter.section(title):
        for name, text in rows:
            head = f"  {name:<{column}}  " if len(name) <= column else f"  {name}\n{pad}"
            formatter.write(head + _prose(text, formatter.width - len(pad)).replace("\n", f"\n{pad}") + "\n")


def _prose(text: str, width: int) -> str:
    """Wrap paragraphs; words are never broken, nor names such as ``--no-report`` at their hyphens."""
    parts = (fill(part, width, break_on_hyphens=False, break_long_words=False) for part in text.split("\n\n"))
    return "\n\n".join(parts)


class Command(_PlainHelp, TyperCommand):
    """A command with plain help."""


class Group(_PlainHelp, TyperGroup):
    """A group of commands with plain help."""
