"""Learners of other packages, for comparison. One peer a file, behind the contract of every learner.

To add one, name its spec here. ``python -m lab.benchmark`` knows them; ``--learner`` does not.
"""

from __future__ import annotations

from lab.peers import monai_unet, nnunet
from medfewshot.learners import LEARNERS, LearnerSpec

PEERS: dict[str, LearnerSpec] = {spec.name: spec for spec in (monai_unet.SPEC, nnunet.SPEC)}
SCAN_PEERS = (nnunet.SPEC.name,)
"""Those that take scans as they are on disk, and plan for themselves: they have ``adapt_scans``."""


def known_learners() -> dict[str, LearnerSpec]:
    """Return all that a benchmark file of the laboratory may name."""
    return {**LEARNERS, **PEERS}
