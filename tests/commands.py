"""The commands of the program, and the check that a line can be typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from medfewshot.cli.app import app


def commands(group: Any, before: str = "") -> dict[str, Any]:
    """Name -> command, of a group and of the groups within."""
    found = {before.strip(): group}
    for name, command in group.commands.items():
        found |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {f"{before}{name}": command}
    return found


COMMANDS = commands(get_command(app))


def owner_of(words: Sequence[str]) -> str:
    """Name of the command that the words begin with, after ``medfewshot``."""
    return max((one for one in COMMANDS if [*words[: len(one.split())]] == one.split()), key=len)


def assert_can_be_typed(words: Sequence[str], *, whole: bool = True) -> None:
    """The words after ``medfewshot`` name a command and its options; a whole line has all that is required.

    A part of a line, as sentences mention it, may end with an option that lacks its value.
    """
    command = COMMANDS[owner := owner_of(words)]
    rest = [*words[len(owner.split()) :]]
    assert owner or rest[0].startswith("-"), f"no command: {rest[0]}"
    parser = command.make_parser(command.context_class(command, info_name=owner))
    ends_early = not whole and bool(rest) and rest[-1].startswith("-")
    try:
        values, left, _ = parser.parse_args(args=[*rest, *["X"] * ends_early])
    except Exception as error:
        raise AssertionError(str(error)) from error
    assert not left or (ends_early and left == ["X"])
    if whole and "help" not in values:
        needed = [one for one in command.params if one.required and values.get(one.name) is None]
        assert not needed, [one.name for one in needed]
