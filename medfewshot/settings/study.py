"""Settings of a learning curve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medfewshot.settings.base import Option, Settings
from medfewshot.settings.jobs import Count, numbers


class CurveSettings(Settings):
    """Which leave-out tests a learning curve consists of."""

    shots: Annotated[tuple[Count, ...], Option(kind=str, metavar="1,2,..."), numbers(r"\d+(,\d+)*", "1,2,5")] = Field(
        (), description="Numbers of labelled scans to learn from. Default: 1, 2, 3, 5, 8, ... and all but one."
    )
    draws: Count = Field(3, description="Choices of labelled scans for each number; each is a model of its own.")
    tests: Annotated[Count | None, Option(kind=int)] = Field(
        None, description="Most scans that each model segments. Default: all that it has not seen."
    )
    overwrite: bool = Field(False, description="Start again in a folder with a curve of other scans or settings.")
