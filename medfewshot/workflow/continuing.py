"""An adaptation that continues from an earlier segmenter: what it keeps, and what it warns of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError, some
from medfewshot.learners import learner_for
from medfewshot.settings import AUTO, QUALITY_LEVELS, AdaptSettings
from medfewshot.types import Plan
from medfewshot.workflow.supports import LabelledScans, scan_path

_LEVELS = list(QUALITY_LEVELS)
_GRID = ("spacing_mm", "patch_voxels", "modality")
_FIXED_BY_START = ("learner", "weights", "width", *_GRID)
_KEPT = (*_GRID, "ignore")


def continued(settings: AdaptSettings, start: VolumeSegmenter) -> AdaptSettings:
    """Return the settings of an adaptation that continues from ``start``, at the higher quality of both.

    Raises:
        InputError: A setting would change the grid, the network or the learner.
    """
    before, default = _before(start), AdaptSettings().model_dump()
    changed = _changed(settings, before)
    if changed:
        raise InputError(
            "the segmenter to continue from fixes grid, network and learner", "remove these settings", setting=changed
        )
    quality = max(settings.quality, quality_of(start), key=_LEVELS.index)
    name, dims = before.get("learner", AUTO), start.plan.spatial_dims
    if settings.learner == AUTO and name == learner_for(AUTO, dims, level=QUALITY_LEVELS[quality_of(start)]):
        name = learner_for(AUTO, dims, level=QUALITY_LEVELS[quality])  # a draft has another learner
    kept = {one: before.get(one, default[one]) for one in _KEPT if getattr(settings, one) == default[one]}
    return settings.replace(**kept, learner=name, weights=before.get("weights"), quality=quality)


def can_continue(settings: AdaptSettings, start: VolumeSegmenter) -> bool:
    """Return whether an adaptation with these settings, and not at a higher quality, can continue from ``start``."""
    lower = _LEVELS.index(settings.quality) < _LEVELS.index(quality_of(start))
    return start.segmenter.trained_network is not None and not lower and not _changed(settings, _before(start))


def quality_of(start: VolumeSegmenter) -> str:
    """Return the quality of an earlier segmenter."""
    return str(_before(start).get("quality", AdaptSettings().quality))


def with_names_of(scans: LabelledScans, start: VolumeSegmenter) -> LabelledScans:
    """Return the scans with the names of an earlier segmenter where they state none."""
    taken = {name.casefold() for name in scans.names.values()}
    known = {value: name for value, name in _named(start.plan).items() if name.casefold() not in taken}
    return replace(scans, names=known | dict(scans.names))


def same_structures(plan: Plan, before: Plan) -> bool:
    """Return whether label values and their names are those of an earlier segmenter."""
    return plan.label_values == before.label_values and not _renamed(plan, before)


def history_of(start: VolumeSegmenter, scans: LabelledScans) -> dict[str, Any]:
    """Return what the record keeps of earlier segmenters: ``supports`` that are not given again, and ``steps``."""
    earlier, given = start.record.get("earlier") or {}, {scan_path(image) for image in scans.images}
    pairs = (*earlier.get("supports", ()), *start.record.get("supports", ()))
    steps = earlier.get("steps", 0) + start.record.get("learner", {}).get("steps", 0)
    return {"supports": [pair for pair in pairs if pair["image"] not in given], "steps": steps}


def unlike_warnings(plan: Plan, before: Plan) -> tuple[str, ...]:
    """Say so if scans with this plan are of another kind than those of an earlier one."""
    found = [
        f"gray values are normalised as before ({old.reason}), but these scans are of another kind ({new.reason}); "
        "make a new segmenter unless both are CT"
        for new, old in zip(plan.normalization, before.normalization, strict=True)
        if new.kind != old.kind
    ]
    if 1 in plan.median_shape and 1 not in before.median_shape:
        found.append("the labelled scans are single slices, and the earlier segmenter learned from volumes: look "
                     "closely at the results, or give volumes")  # fmt: skip
    return tuple(found)


def continuing_warnings(
    plan: Plan, start: VolumeSegmenter, history: Mapping[str, Any], *, asked: AdaptSettings
) -> tuple[str, ...]:
    """Name what an adaptation that continues may forget, and what has another meaning now.

    Args:
        plan: The new plan.
        start: The earlier segmenter.
        history: What :func:`history_of` returned.
        asked: The settings before :func:`continued`.
    """
    before, quality = start.plan, quality_of(start)
    found = [f"label value {value}: was {old} and is {new} now" for value, old, new in _renamed(plan, before)]
    gone = [name for value, name in before.labels.items() if value not in plan.labels]
    if gone:
        found.append(f"{some(gone)}: no labelled scan shows it now, so the model no longer finds it")
    more = [name for value, name in plan.labels.items() if value not in before.labels]
    if more and _before(start).get("labels"):
        found.append(f"{some(more)}: learned too; the earlier segmenter had a choice of structures without it")
    if missing := sorted({pair["image"] for pair in history["supports"]}):
        shown = ", ".join(Path(path).name for path in missing[:3])
        many = f"{len(missing)} support(s) of the earlier segmenter are not given again"
        found.append(f"{many} and may be forgotten: {shown}")
    if asked.quality != AdaptSettings().quality and _LEVELS.index(asked.quality) < _LEVELS.index(quality):
        found.append(f"the earlier segmenter has quality {quality}, so this one has it too, not {asked.quality}")
    return tuple(found)


def _named(plan: Plan) -> dict[int, str]:
    """Label value -> name, without structures that have a number alone."""
    return {value: name for value, name in plan.labels.items() if name != f"label {value}"}


def _renamed(plan: Plan, before: Plan) -> list[tuple[int, str, str]]:
    """List label value, old and new name of structures whose name is another one."""
    old, new = _named(before), _named(plan)
    both = [value for value in old if value in new]
    return [(value, old[value], new[value]) for value in both if old[value].casefold() != new[value].casefold()]


def _before(start: VolumeSegmenter) -> dict[str, Any]:
    """Return the settings of an earlier segmenter."""
    return dict(start.record.get("settings") or {})


def _changed(settings: AdaptSettings, before: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that differ from the default and an earlier adaptation, and that can no longer change."""
    default = AdaptSettings()
    return tuple(
        name
        for name in _FIXED_BY_START
        if getattr(settings, name) not in (getattr(default, name), before.get(name, getattr(default, name)))
    )
