"""Labelled volumes -> plan -> support -> segmenter: the first half of every job, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from medfewshot.backbones import UNet
from medfewshot.devices import describe_device, resolve_device
from medfewshot.errors import InputError, did_you_mean
from medfewshot.io import in_frame_of, read_image, read_label
from medfewshot.learners import LEARNERS, Learner, Segmenter, build_start, load_start, read_seen
from medfewshot.planning import make_plan, native_labels_to_plan, to_plan
from medfewshot.quality import support_profile, unlike_each_other
from medfewshot.settings import AUTO, NO_WEIGHTS, AdaptSettings
from medfewshot.supports import adaptation_warnings, check_background, check_marked, given_twice, own_warnings
from medfewshot.types import Case, Plan, Progress, Support, Volume

VOLUME_LEARNER, PLANE_LEARNER = "hybrid", "finetune"
"""What ``auto`` means for 3D and for 2D images. In 2D the hybrid was not measured."""
SHIPPED_WEIGHTS = {("finetune", 3, 1): "default", ("hybrid", 3, 1): "default", ("in_context", 2, 1): "in-context-2d"}
"""Learner, dimensions and channels of its images -> the package's weights that it begins with by itself."""
STARTING_LEARNERS = ("finetune", "hybrid")
"""Learners that begin with the features of a U-Net that was trained for any learner, and train on."""
FEATURE_LEARNERS = ("prototype", "ridge")
"""Learners whose head can stand on any start's features."""
STEPS_FROM_WEIGHTS = {"finetune": 400, "hybrid": 400, "in_context": 0}
"""Steps of these learners from meta-trained weights, where nobody gives a number."""


@dataclass(frozen=True)
class Adapted:
    """A plan, the segmenter adapted on it, and how that went."""

    plan: Plan
    segmenter: Segmenter
    settings: AdaptSettings
    supports: tuple[dict[str, str], ...]
    """``image`` and ``label`` of each, as absolute paths (or "array")."""
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What later volumes are held against: see :func:`medfewshot.quality.support_profile`."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """Real data that the weights to start from were trained on: data set -> subjects and labels."""

    @property
    def learner_record(self) -> dict[str, Any]:
        """What the learner itself reports: steps, loss, restarts."""
        return dict(self.segmenter.record)

    @property
    def record(self) -> dict[str, Any]:
        """Plain data for a saved segmenter and for ``run.json``."""
        return {
            "seed": self.settings.seed,
            "supports": list(self.supports),
            "settings": self.settings.model_dump(),
            "device": describe_device(resolve_device(self.settings.device)),
            "learner": self.learner_record,
            "keeps_supports": self.segmenter.keeps_supports,
            "weights_have_seen": dict(self.seen),
            "seconds": dict(self.seconds),
            "warnings": list(self.warnings),
            "profile": dict(self.profile),
        }


def read_cases(cases: Sequence[Case]) -> tuple[list[Volume], list[Volume]]:
    """Images and labels of labelled cases, each pair on one grid. Raises InputError naming the file at fault."""
    images, labels = [], []
    for case in cases:
        if case.label_path is None:
            raise InputError(f"{case.image_path}: has no label, so it cannot be a support")
        image, label = read_image(case.image_paths), read_label(case.label_path)
        if image.modality is None and case.modality:
            image = replace(image, modality=case.modality)
        images.append(image)
        labels.append(in_frame_of(image, label))
    return images, labels


def cases_from_pairs(pairs: Sequence[tuple[Path, Path]]) -> list[Case]:
    """Support cases from image and label paths."""
    return [Case(image.name, image.name, None, (image,), label) for image, label in pairs]


def adapt_volumes(
    images: Sequence[Volume],
    labels: Sequence[Volume],
    settings: AdaptSettings,
    names: Mapping[int, str] | None = None,
    progress: Progress | None = None,
    learners: Mapping[str, Callable[..., Learner]] = LEARNERS,
) -> Adapted:
    """Plan and adapt. ``names``: label value -> name; ``learners``: those that ``settings`` may name.

    Raises InputError for an unknown learner, device or support.
    """
    settings = choose(settings, images)
    learner = make_learner(settings, progress, learners)
    check_marked(labels)
    begun = time.perf_counter()
    plan = make_plan(images, labels, names=names, settings=settings)
    check_background(labels, plan)
    support = make_support(images, labels, plan)
    planned = time.perf_counter()
    segmenter = _adapt(learner, support, settings)
    seconds = {"plan": round(planned - begun, 2), "adapt": round(time.perf_counter() - planned, 2)}
    pairs = tuple({"image": _where(i), "label": _where(m)} for i, m in zip(images, labels, strict=True))
    warnings = [text for volume in (*images, *labels) for text in own_warnings(volume)]
    profile = support_profile(images, labels, plan)
    seen = read_seen(settings.weights) if settings.weights is not None else {}
    adapted = Adapted(plan, segmenter, settings, pairs, seconds, profile=profile, seen=seen)
    warnings += [
        *given_twice(images),
        *unlike_each_other(images, profile),
        *plan.notes,
        *adaptation_warnings(adapted.learner_record, plan),
    ]
    return replace(adapted, warnings=tuple(warnings))


def choose_learner(settings: AdaptSettings, spatial_dims: int) -> AdaptSettings:
    """Settings whose ``learner`` names one: what ``auto`` means for images of that many dimensions."""
    if settings.learner != AUTO:
        return settings
    return settings.replace(learner=VOLUME_LEARNER if spatial_dims == 3 else PLANE_LEARNER)


def choose(settings: AdaptSettings, images: Sequence[Volume]) -> AdaptSettings:
    """What ``auto`` means for ``images``: settings whose ``learner`` names one, and whose ``weights`` a start or None.

    The package's weights are for images of one channel, and for a backbone as wide as theirs.
    """
    settings = choose_learner(settings, max((image.spatial_dims for image in images), default=3))
    weights = None if settings.weights == NO_WEIGHTS else settings.weights
    if weights == AUTO:
        kinds = {(image.spatial_dims, image.data.shape[0]) for image in images}
        fits = settings.width is None and len(kinds) == 1
        weights = SHIPPED_WEIGHTS.get((settings.learner, *kinds.pop())) if fits else None
    return settings.replace(weights=weights)


def _adapt(learner: Learner, support: Support, settings: AdaptSettings) -> Segmenter:
    try:
        return learner.adapt(support)
    except (MemoryError, RuntimeError) as error:
        # Where the CPU runs out, torch raises a bare RuntimeError.
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise
        raise InputError(
            f"--device {settings.device}: adaptation ran out of memory; take --device cpu, or a smaller "
            "patch_voxels in --config"
        ) from error


def make_support(images: Sequence[Volume], labels: Sequence[Volume], plan: Plan) -> Support:
    """Planned tensors of every support. Raises InputError where an image and its label are on different grids."""
    planned = [to_plan(image, plan).image for image in images]
    marked = [native_labels_to_plan(label, plan) for label in labels]
    for image, label, volume in zip(planned, marked, images, strict=True):
        if image.shape[1:] != label.shape:
            raise InputError(f"{volume.name}: the scan and its label do not fit, {image.shape[1:]} and {label.shape}")
    return Support(
        images=tuple(planned),
        labels=tuple(marked),
        classes=plan.classes,
        patch_size=plan.patch_size,
        spacing_mm=plan.spacing_mm,
    )


def make_learner(
    settings: AdaptSettings,
    progress: Progress | None = None,
    learners: Mapping[str, Callable[..., Learner]] = LEARNERS,
) -> Learner:
    """The one of ``learners`` that ``settings`` names.

    Raises InputError where there is none, or it lacks a setting or device.
    """
    settings = choose_learner(settings, spatial_dims=3)
    if settings.learner not in learners:
        near = did_you_mean(settings.learner, learners)
        raise InputError(f"learner {settings.learner}: unknown{near}; choose {' or '.join(learners)}")
    build = learners[settings.learner]
    known = signature(build).parameters
    options = {
        "steps": settings.steps,
        "budget_seconds": settings.budget_seconds,
        "width": settings.width,
        "learning_rate": settings.learning_rate,
        "progress": progress,
    }
    given = {key: value for key, value in options.items() if value is not None}
    foreign = [key for key in given if key not in known and given[key] != getattr(AdaptSettings(), key, given[key])]
    if foreign:
        raise InputError(f"learner {settings.learner}: has no setting {', '.join(foreign)}; leave it out")
    given = {key: value for key, value in given.items() if key in known}
    started = settings.weights not in (None, AUTO, NO_WEIGHTS)
    if started and "start" not in known:
        load_start(str(settings.weights))  # a name that is misspelt is told first
        raise InputError(f"--weights {settings.weights}: learner {settings.learner} takes none; leave it out")
    if started and settings.width is not None:
        raise InputError(f"--weights {settings.weights}: have a width of their own; leave the width out")
    if settings.steps is None and "steps" in known:
        own = known["steps"].default
        steps = STEPS_FROM_WEIGHTS.get(settings.learner, own) if started else own
        given["steps"] = -(-steps // 4) if settings.fast else steps
    if "seed" in known:  # a learner without chance has none
        given["seed"] = settings.seed
    if started:
        given = _read_start(settings.learner, str(settings.weights)) | given
    return build(device=resolve_device(settings.device), **given)


def _read_start(learner: str, weights: str) -> dict[str, Any]:
    """``start`` for ``learner``, and the settings that it was trained with and must be adapted with.

    Fine-tuning, prototypes and ridge regression may begin with any learner's backbone.
    """
    start = load_start(weights)
    if start.learner == learner:
        return {"start": start.module, **start.adaptation}
    if learner in STARTING_LEARNERS:
        own = start.learner == "finetune"
        return {"start": start.module if own else build_start("finetune", start.backbone)}
    if learner in FEATURE_LEARNERS and isinstance(start.backbone, UNet):
        return {"start": start.backbone}
    raise InputError(
        f"--weights {weights}: were trained for learner {start.learner}, not {learner}; take --learner {start.learner}"
    )


def _where(volume: Volume) -> str:
    return str(volume.path.resolve()) if volume.path is not None else volume.name
