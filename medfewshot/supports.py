"""What is wrong with supports, and what whoever adapted to them has to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.learners.fusion import UNLEARNED_DICE
from medfewshot.types import Plan, Volume


def check_marked(labels: Sequence[Volume]) -> None:
    """Raises InputError for a support in which no structure is marked."""
    for label in labels:
        if not label.data.any():
            raise InputError(
                f"{label.name}: no structure is marked (every voxel is 0); "
                "label the structure in this scan or leave the scan out"
            )


def check_background(labels: Sequence[Volume], plan: Plan) -> None:
    """Raises InputError for a support that has no background beside the structures to learn."""
    for label in labels:
        if np.isin(label.data, plan.label_values).all():
            raise InputError(
                f"{label.name}: the label covers the whole image, so there is no background to tell it from; "
                "make the background 0 and export it again"
            )


def given_twice(images: Sequence[Volume]) -> list[str]:
    """A scan that is there twice counts twice, and looks like more knowledge than there is."""
    warnings = []
    for number, image in enumerate(images):
        twin = next((one for one in images[:number] if np.array_equal(one.data, image.data)), None)
        if twin is not None:
            same = "" if twin.name == image.name else f" (as {twin.name})"
            warnings.append(f"{image.name}: is given twice{same} among the supports; leave one out")
    return warnings


def own_warnings(volume: Volume) -> list[str]:
    """What reading it warned of, with its name."""
    return [text if volume.name in text else f"{volume.name}: {text}" for text in volume.warnings]


def adaptation_warnings(record: Mapping[str, Any], plan: Plan) -> list[str]:
    """What the learner's own record gives reason to say."""
    warnings = _unlearned(record, plan)
    if record.get("trained") is False:
        warnings = [
            "adaptation did not learn the structure: do not use this segmenter; check the supports' labels, or take "
            "more --steps"
        ]
    elif record.get("restarts"):
        warnings.append(f"adaptation collapsed to background and was restarted {record['restarts']} time(s)")
    if record.get("stopped_by") == "budget":
        warnings.append(
            f"the time budget ended adaptation after {record['steps']} steps: results depend on this machine's speed"
        )
    return warnings


def _unlearned(record: Mapping[str, Any], plan: Plan) -> list[str]:
    """A word on structures that training did not come to find even where it learned from."""
    dice = record.get("training_dice", ())
    if not record.get("steps") or len(dice) != len(plan.labels):
        return []
    missed = [name for name, value in zip(plan.labels.values(), dice, strict=True) if value < UNLEARNED_DICE]
    matched = " (until then they are found by matching alone)" if "network_trust" in record else ""
    told = f"hardly learned, Dice below {UNLEARNED_DICE} on the supports themselves; take more --steps{matched}"
    return [f"{', '.join(missed)}: {told}"] if missed else []
