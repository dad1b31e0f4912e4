"""``medfewshot learners``."""

from __future__ import annotations

from medfewshot.cli.options import Json, Quiet


def learners(quiet: Quiet = False, json: Json = False) -> None:
    """List the methods (for --learner) and the settings of each.

    Example:
        medfewshot learners
    """
    from medfewshot.cli.console import Console
    from medfewshot.learners import LEARNERS
    from medfewshot.settings import AdaptSettings

    console = Console(quiet, json)
    rows = [
        {
            "learner": spec.name,
            "what it does": spec.summary,
            "auto for": ", ".join(f"{dims}D" for dims in spec.auto_dims),
            "settings": ", ".join(name for name in spec.settings if name in AdaptSettings.model_fields),
        }
        for spec in LEARNERS.values()
    ]
    console.rows("Methods, for --learner", rows, below=("settings",))
    console.json({"learners": rows})
