"""Drafts of a project on disk: masks by machine, and what the machine says about each."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.io import write_label, write_text
from medfewshot.types import Volume
from medfewshot.workbench.mask_store import SUFFIX


@dataclass(frozen=True)
class DraftFacts:
    """What the machine says about a draft.

    Args:
        number: Counts from 1; 0 if there is no draft.
        confidence: Expected mean Dice.
        reason: Why a person should look at it; empty if there is no special reason.
        distance: Of the scan to the nearest example, by intensities.
        segmenter: Name of the folder of the segmenter.
        time: When it was made, in UTC.
    """

    number: int = 0
    confidence: float | None = None
    reason: str = ""
    distance: float | None = None
    segmenter: str = ""
    time: str = ""


class DraftStore:
    """Drafts by the name of the case. Not safe for several threads: the project has the lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._facts: dict[str, DraftFacts] = {}

    def path(self, name: str) -> Path:
        """Return where the draft of a case is, if there is one."""
        return self.folder / f"{name}{SUFFIX}"

    def facts(self, name: str) -> DraftFacts:
        """Return what is known about the draft of a case."""
        return self._facts.get(name, DraftFacts())

    def load(self, names: Iterable[str]) -> None:
        """Read the facts of all drafts. One whose facts are damaged counts as none: the next one replaces it."""
        for name in names:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                facts = _checked(json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))
                if self.path(name).is_file():
                    self._facts[name] = facts

    def write(self, name: str, labels: np.ndarray, like: Volume, facts: DraftFacts) -> None:
        """Write a draft ``(*S)`` on the grid of ``like``."""
        write_label(self.path(name), labels, like)
        write_text(self.folder / f"{name}.json", json.dumps(asdict(facts)) + "\n")
        self._facts[name] = facts


def _checked(content: Mapping[str, Any]) -> DraftFacts:
    """Return facts of a file. Raises ValueError, TypeError or KeyError if they are no such facts."""
    facts = DraftFacts(**content)
    numbers = [value for value in (facts.confidence, facts.distance) if value is not None]
    texts = (facts.reason, facts.segmenter, facts.time)
    if facts.number < 1 or not all(map(math.isfinite, numbers)) or not all(isinstance(text, str) for text in texts):
        raise ValueError
    return facts
