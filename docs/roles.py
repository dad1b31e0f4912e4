"""Griffe extension: show Sphinx roles of docstrings, such as ``:class:`~a.b.C```, as links or plain code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|obj|exc):`(~?)([\w.]+)(?:\(\))?`(:(?= ))?")


def as_link(match: re.Match[str]) -> str:
    """Return a link if the site documents the object, else code.

    A colon directly behind it becomes a semicolon, because Google style takes what stands before a colon for a type.
    """
    short, name, colon = match.groups()
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>' + (";" if colon else "")


class Roles(Extension):
    """Rewrites every docstring as it is loaded."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Replace the roles in a docstring by links (called by griffe)."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(as_link, obj.docstring.value)
