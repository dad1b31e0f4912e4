"""Errors for users: one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Input or a setting that cannot be used. The command line prints one line and exits with 2.

    The library knows settings by their Python names and never writes a command-line option into a text. It passes the
    name in ``setting``; the code that prints the error spells it, see :meth:`render`.

    Args:
        problem: What is wrong; begins with the file or the value at fault.
        remedy: What the user can do about it.
        setting: Name of the setting that is at fault or that helps, or several names, e.g. ``"device"``.
    """

    def __init__(self, problem: str, remedy: str = "", *, setting: str | tuple[str, ...] = ()) -> None:
        self.problem, self.remedy = problem, remedy
        self.settings: tuple[str, ...] = (setting,) if isinstance(setting, str) else tuple(setting)
        super().__init__(self.render())

    def render(self, spell: Callable[[str], str] = str, noun: str = "setting") -> str:
        """Format the whole text.

        Args:
            spell: Spells a setting's name, e.g. ``lambda name: f"--{name}"``.
            noun: Word for a setting, e.g. ``"option"``.

        Returns:
            ``problem; remedy (setting: name)``, without empty parts.
        """
        text = "; ".join(part for part in (self.problem, self.remedy) if part)
        if not self.settings:
            return text
        plural = "s" if len(self.settings) > 1 else ""
        return f"{text} ({noun}{plural}: {', '.join(spell(name) for name in self.settings)})"


class GridMismatchError(InputError):
    """An image and its label (or prediction and reference) are on different voxel grids."""


def one_line(error: object) -> str:
    """Write an error in one line: its kind unless the input is to blame; the file that cannot be read or written."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check the disk and the path"
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".removesuffix(": ")


MOST_SHOWN = 10
"""No message lists more values, names or files than this."""


def some(values: Iterable[object], most: int = MOST_SHOWN) -> str:
    """Write the first values of a list that may be long.

    Args:
        values: What to list, in order.
        most: How many are written at most.

    Returns:
        ``"1, 2, 3"``, or ``"1, 2, ... (40 in all)"``.
    """
    texts: Sequence[str] = [str(value) for value in values]
    return ", ".join(texts) if len(texts) <= most else f"{', '.join(texts[:most])}, ... ({len(texts)} in all)"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, e.g. ``1 scan`` or ``3 scans``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most similar to ``given``.

    Returns:
        ``" (did you mean liver?)"``, to be added to the text of an error, or ``""`` if no known name is similar.
    """
    by_case = {name.casefold(): name for name in known}
    near = get_close_matches(given.casefold(), by_case, n=1, cutoff=0.65)
    return f" (did you mean {by_case[near[0]]}?)" if near else ""
