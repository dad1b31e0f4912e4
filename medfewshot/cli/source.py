"""Where a command takes its knowledge from: labelled scans, or a segmenter made from them earlier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medfewshot.adaptation import cases_from_pairs, make_learner
from medfewshot.datasets import parse_pair, read_dataset
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings
from medfewshot.types import Case


@dataclass(frozen=True)
class Support:
    """Labelled cases that were found on disk, and the names of their labels."""

    cases: tuple[Case, ...]
    names: dict[int, str]

    @property
    def channels(self) -> int:
        return len(self.cases[0].image_paths)


@dataclass(frozen=True)
class SupportSource:
    """Where the knowledge comes from: pairs, a folder, or a segmenter made earlier. Exactly one of the three."""

    pairs: tuple[str, ...]
    folder: Path | None
    segmenter: Path | None

    def check(self, settings: AdaptSettings, adapting: bool = False) -> None:
        given = [bool(self.pairs), self.folder is not None, self.segmenter is not None]
        if sum(given) != 1:
            what = "--support IMG=LAB or --support-dir FOLDER"
            what = what if adapting else f"{what.replace(' or', ',')} or --segmenter FOLDER"
            raise InputError(f"give {what}" if not any(given) else f"give only one of {what}")
        if self.segmenter is None:
            make_learner(settings)  # an unknown learner or device is told before scans are read
            return
        default = AdaptSettings(device=settings.device)
        changed = [name for name, value in settings if value != getattr(default, name)]
        if changed:
            raise InputError(
                f"--segmenter {self.segmenter}: was adapted already, so settings of the adaptation "
                f"({', '.join(changed)}) would have no effect; leave them out, or give a support instead"
            )

    def find(self) -> Support:
        if self.folder is None:
            return Support(tuple(cases_from_pairs([parse_pair(text) for text in self.pairs])), {})
        dataset = read_dataset(self.folder)
        if not dataset.labelled:
            raise InputError(f"{self.folder}: holds no labelled scan; see medfewshot inspect {self.folder}")
        return Support(dataset.labelled, dict(dataset.labels))
