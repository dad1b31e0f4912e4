"""Labelled volumes -> plan -> support -> segmenter: the first half of every job, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


from medfewshot.devices import resolve_device
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.learners import LEARNERS
from medfewshot.planning import PlanOptions, make_plan, native_labels_to_plan, to_plan
from medfewshot.types import Case, InputError, Plan, Progress, Segmenter, Support, Volume

FAST_STEPS = 100


@dataclass(frozen=True)
class AdaptSettings:
    """How to adapt: the settings behind ``medfewshot adapt`` and ``medfewshot.adapt``; None takes the learner's own."""

    learner: str = "finetune"
    steps: int | None = None
    budget_seconds: float | None = None
    seed: int = 0
    device: str = "auto"
    width: int | None = None
    learning_rate: float | None = None
    fast: bool = False
    plan: PlanOptions = field(default_factory=PlanOptions)


@dataclass(frozen=True)
class Adapted:
    """A plan, the segmenter adapted on it, and how that went."""

    plan: Plan
    segmenter: Segmenter
    settings: AdaptSettings
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        return dict(getattr(self.segmenter, "record", {}))


def read_cases(cases: Sequence[Case]) -> tuple[list[Volume], list[Volume]]:
    """Images and labels of labelled cases, each pair on one grid. Raises InputError naming the file at fault."""
    images, labels = [], []
    for case in cases:
        if case.label_path is None:
            raise InputError(f"{case.image_path}: has no label, so it cannot be a support")
        image = read_image(case.image_paths if len(case.image_paths) > 1 else case.image_path)
        if image.modality is None and case.modality:
            image = replace(image, modality=case.modality)
        label = read_label(case.label_path)
        check_same_grid(image, label)
        if not label.data.any():
            raise InputError(
                f"{case.label_path}: no structure is marked (every voxel is 0); "
                "label the structure in this scan or leave the scan out"
            )
        images.append(image)
        labels.append(label)
    return images, labels


def cases_from_pairs(pairs: Sequence[tuple[Path, Path]], modality: str | None = None) -> list[Case]:
    """Support cases from image and label paths."""
    return [Case(image.name, image.name, modality, (image,), label) for image, label in pairs]


def adapt_volumes(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    settings: AdaptSettings,
    names: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> Adapted:
    """Plan and adapt. ``names``: label value -> name. Raises InputError for an unknown learner, device or support."""
    learner = make_learner(settings, progress)
    begun = time.perf_counter()
    plan = make_plan(images, labels, names=names, options=replace(settings.plan, fast=settings.fast))
    support = make_support(images, labels, plan)
    planned = time.perf_counter()
    segmenter = learner.adapt(support)
    seconds = {"plan": round(planned - begun, 2), "adapt": round(time.perf_counter() - planned, 2)}
    warnings = [w for volume in (*images, *labels) for w in _with_name(volume)]
    adapted = Adapted(plan, segmenter, settings, seconds, ())
    return replace(adapted, warnings=(*warnings, *plan.notes, *_record_warnings(adapted.record)))


def make_support(images: Sequence[Volume], labels: Sequence[Volume], plan: Plan) -> Support:
    """Planned tensors of every support."""
    return Support(
        images=tuple(to_plan(image, plan).image for image in images),
        labels=tuple(native_labels_to_plan(label, plan) for label in labels),
        classes=plan.classes,
        patch_size=plan.patch_size,
        spacing_mm=plan.spacing_mm,
    )


def make_learner(settings: AdaptSettings, progress: Progress | None = None) -> Any:
    """The learner that ``settings`` names. Raises InputError where there is none of that name."""
    if settings.learner not in LEARNERS:
        raise InputError(f"--learner {settings.learner}: unknown; choose {' or '.join(LEARNERS)}")
    steps = settings.steps if settings.steps is not None else (FAST_STEPS if settings.fast else None)
    options = {
        "steps": steps,
        "budget_seconds": settings.budget_seconds,
        "width": settings.width,
        "learning_rate": settings.learning_rate,
        "progress": progress,
    }
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return LEARNERS[settings.learner](seed=settings.seed, device=resolve_device(settings.device), **given)
    except TypeError as error:
        raise InputError(f"--learner {settings.learner}: {error}") from None


def _with_name(volume: Volume) -> list[str]:
    return [w if volume.name in w else f"{volume.name}: {w}" for w in volume.warnings]


def _record_warnings(record: Mapping[str, Any]) -> list[str]:
    warnings = []
    if record.get("restarts"):
        warnings.append(f"adaptation collapsed to background and was restarted {record['restarts']} time(s)")
    if record.get("trained") is False:
        warnings.append("adaptation did not learn the structure: do not use this segmenter; check the supports' labels")
    if record.get("stopped_by") == "budget":
        warnings.append(
            f"the time budget ended adaptation after {record['steps']} steps: the result depends on this machine's speed"
        )
    return warnings


