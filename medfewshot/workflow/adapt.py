"""Adaptation: labelled scans become a plan and support tensors, and these a segmenter."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, check_free, load_segmenter
from medfewshot.datasets import Dataset
from medfewshot.devices import describe_device, resolve_device
from medfewshot.errors import InputError, some
from medfewshot.heart import find_cavities
from medfewshot.intensities import voxel_digest
from medfewshot.io import files_of, strict_json
from medfewshot.io.itk_snap import described_names
from medfewshot.learners import (
    LEARNERS,
    Learner,
    LearnerSpec,
    Segmenter,
    make_learner,
    read_seen,
    resolve_auto,
    start_of,
)
from medfewshot.learners.atlas import Atlas
from medfewshot.mask_fit import mask_fit
from medfewshot.planning import check_like_support, make_plan, make_support
from medfewshot.quality import check_supports, support_profile, support_warnings
from medfewshot.settings import AdaptSettings
from medfewshot.types import Plan, Progress, Support, Volume
from medfewshot.workflow.continuing import (
    continued,
    continuing_warnings,
    history_of,
    quality_of,
    same_structures,
    unlike_warnings,
    with_names_of,
)
from medfewshot.workflow.contrast import contrast_warning, planned, with_contrast_of
from medfewshot.workflow.own_frames import digest_of, with_tracked_frames
from medfewshot.workflow.supports import (
    LabelledScans,
    check_background,
    check_marked,
    ignore_warnings,
    learner_warnings,
    read_supports,
    scan_path,
    scan_warnings,
    unnamed_warnings,
)
from medfewshot.workflow.volumes import check_folder

LEAST_SUPPORTS = 3
"""Fewer supports cannot tell which of them is wrong."""
COMPARE_SECONDS = 10.0
"""Time limit of the comparison of 2D supports; one round is always made."""
Learners = Mapping[str, LearnerSpec]


@dataclass(frozen=True)
class Prepared:
    """A plan, the support tensors on its grid, and what is known about the scans.

    Args:
        plan: What was derived from the scans.
        support: Their planned tensors.
        profile: What later volumes are compared with: see :func:`medfewshot.quality.support_profile`.
        warnings: What to tell the user before anything is learned.
        seconds: Time that planning took.
    """

    plan: Plan
    support: Support
    profile: Mapping[str, Any]
    warnings: tuple[str, ...]
    seconds: float


def prepare(scans: LabelledScans, settings: AdaptSettings | None = None, *, like: Plan | None = None) -> Prepared:
    """Derive the plan of labelled scans and bring them to its grid.

    Args:
        scans: Labelled scans.
        settings: What the user fixed.
        like: Plan of an earlier segmenter, whose grid and normalization stay.

    Raises:
        InputError: The scans do not go together, or a label marks nothing or everything.
    """
    begun = time.perf_counter()
    scans = scans.ignoring(settings.ignore if settings is not None else None)
    check_marked(scans.labels)
    if like is not None:
        check_like_support(scans.images[0], like)
    plan = make_plan(scans.images, scans.labels, names=scans.names, settings=settings, like=like)
    warnings: tuple[str, ...] = ()
    if like is not None:
        warnings = unlike_warnings(plan, like)
        pairs = zip(plan.normalization, like.normalization, strict=True)
        normalization = tuple(replace(old, extremes=old.extremes or new.extremes) for new, old in pairs)
        plan = replace(plan, patch_size=like.patch_size, median_shape=like.median_shape, normalization=normalization)
    check_background(scans.labels, plan.label_values)
    support = make_support(scans.images, scans.labels, plan)
    profile = support_profile(scans.images, scans.labels, plan)
    warnings += (
        *scan_warnings(scans), *unnamed_warnings(scans, plan), *support_warnings(scans.images, profile), *plan.notes
    )  # fmt: skip
    return Prepared(plan, support, profile, warnings, round(time.perf_counter() - begun, 2))


def adapt(
    scans: LabelledScans,
    settings: AdaptSettings | None = None,
    *,
    query: Volume | None = None,
    cavities: Sequence[str] = (),
    cohort: Iterable[Volume] = (),
    start: VolumeSegmenter | None = None,
    progress: Progress | None = None,
    learners: Learners = LEARNERS,
    compare: bool = True,
) -> VolumeSegmenter:
    """Adapt to labelled scans.

    Args:
        scans: What :func:`~medfewshot.workflow.read_supports` read.
        settings: How to adapt.
        query: A volume that is to be segmented; adaptation does not begin if it is of another kind.
        cavities: Names to measure in films; adaptation does not begin if one is no structure.
        cohort: Some of the scans that are to be segmented. A few are read, and if structures are clearly brighter or
            darker there, networks learn from copies of the labelled scans with that contrast too.
        start: An earlier segmenter to continue from. It gives the learner, and the grid unless its quality was lower.
        progress: Receives events of the stages; may cancel.
        learners: Those that ``settings`` may name.
        compare: Whether to compare 2D supports with each other if the learner does not.

    Returns:
        The segmenter; its ``record`` says how it was made: ``seed``, ``supports`` (paths), ``settings``, ``device``,
        ``learner`` (what the learner reports), ``seconds``, ``warnings``, ``profile``, ``weights_have_seen``.

    Raises:
        InputError: The learner, the device or the scans cannot be used, or memory runs out.
    """
    progress = progress or Progress()
    settings = settings or AdaptSettings()
    if start is None or start.plan.spatial_dims == 2:
        scans = scans.as_2d_if_planar()
    asked = settings
    settings = resolve_auto(settings, scans.images, learners) if start is None else continued(settings, start)
    make = partial(make_learner, settings, progress.at("adapting"), learners, shots=len(scans.images))
    if start is None:
        learner = make()
    progress.at("planning").update(0, 1)
    lifted = start is not None and settings.quality != quality_of(start)
    history = {} if start is None else history_of(start, scans)
    if start is not None:
        scans = with_names_of(scans, start)
    if start is not None and not lifted:
        scans = scans.placed_like(start.plan, start.record.get("profile") or {})
    unused = ignore_warnings(scans, asked.ignore)
    prepared = prepare(scans, settings, like=None if start is None or lifted else start.plan)
    if start is not None:
        same = same_structures(prepared.plan, start.plan)
        network = start_of(start.segmenter, settings.learner, same_classes=same)
        done = start.record["learner"].get("steps", 0) if lifted else None
        learner = make(network=network, steps_done=done)
    if query is not None:
        check_like_support(query, prepared.plan)
    find_cavities([*prepared.plan.labels.values()], cavities)
    begun = time.perf_counter()
    progress.at("adapting").update(0, 1)
    support = prepared.support
    differ: tuple[int, ...] = ()
    unfit: list[str] = []
    contrast: dict[str, int] = {}
    if learners[settings.learner].derived and not settings.level.instant:
        support = with_tracked_frames(support, scans, prepared.plan, progress=progress)
        if support.derived and start is None:
            learner = make(tracked=True)
        if not support.derived and support.spatial_dims == 3:
            support, differ, number = with_contrast_of(
                planned(cohort, prepared.plan, unfit), support, progress=progress
            )
            contrast = {"scans_compared": number, "contrast_copies": support.derived} if number else {}
    segmenter = _adapt(learner, support, settings)
    tracked, support = 0 if contrast else support.derived, prepared.support
    seconds = {"plan": prepared.seconds, "adapt": round(time.perf_counter() - begun, 2)}
    learned = {**segmenter.record, **contrast, **({"tracked_frames": tracked} if tracked else {})}
    names = [Path(image.name).name for image in scans.images]
    compared = learned.pop("supports_compared", None)
    if compared is None:
        compared = _compare(support, progress) if compare else []
    fits = [mask_fit(*one, prepared.plan.classes) for one in zip(support.images, support.labels, strict=True)]
    check = check_supports(compared, names, list(prepared.plan.labels.values()), fits)
    record = {
        "seed": settings.seed,
        "supports": [
            {
                "image": scan_path(image),
                "label": scan_path(label),
                "voxels": voxel_digest(image.data),
                **({} if image.frame is None else {"frame": image.frame, "digest": digest_of(planned)}),
            }
            for image, label, planned in zip(scans.images, scans.labels, support.labels, strict=True)
        ],
        **({"earlier": history} if history else {}),
        "settings": settings.model_dump(),
        "device": describe_device(resolve_device(settings.device)),
        "learner": learned,
        "keeps_supports": segmenter.keeps_supports,
        "weights_have_seen": _seen(settings, start),
        "seconds": seconds,
        "warnings": [
            *unused,
            *prepared.warnings,
            *(continuing_warnings(prepared.plan, start, history, asked=asked) if start is not None else ()),
            *([f"{some(unfit)}: of another kind than the labelled scans; it cannot be segmented"] if unfit else ()),
            *contrast_warning([prepared.plan.labels[prepared.plan.label_values[index - 1]] for index in differ]),
            *(one["message"] for one in check if one["message"]),
            *learner_warnings(learned, prepared.plan),
        ],
        "profile": dict(prepared.profile),
        "support_check": check,
    }
    return VolumeSegmenter(prepared.plan, segmenter, record)


def adapt_to_folder(
    support: Dataset,
    folder: Path,
    settings: AdaptSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    query: Volume | None = None,
    cavities: Sequence[str] = (),
    cohort: Iterable[Volume] = (),
    start: Path | None = None,
    progress: Progress | None = None,
) -> VolumeSegmenter:
    """Read the support, adapt to it and save the segmenter.

    Args:
        support: What :func:`~medfewshot.workflow.find_supports` found.
        folder: Where the segmenter is written.
        settings: How to adapt.
        resume: Load the segmenter that an earlier call left in ``folder`` from the same support and settings.
        overwrite: Replace what ``folder`` contains.
        query: A volume that is to be segmented; adaptation does not begin if it is of another kind.
        cavities: Names to measure in films: see :func:`adapt`.
        cohort: Some of the scans that are to be segmented: see :func:`adapt`.
        start: Folder of an earlier segmenter to continue from.
        progress: Receives events of the stages; may cancel.

    Raises:
        InputError: The folder, the support or a setting cannot be used.
    """
    make_learner(settings)  # reports an unknown learner or device before any scan is read
    request = fingerprint_of(support, settings)
    if resume and (folder / DESCRIPTION).is_file():
        earlier = load_segmenter(folder, resolve_device(settings.device))
        if earlier.record.get("request") != request:
            raise InputError(
                f"{folder}: contains a model of other labelled scans or other settings",
                "replace it",
                setting="overwrite",
            )
        return earlier
    check_folder(folder)
    if any(folder.resolve() == path.resolve().parent for case in support.cases for path in case.image_paths):
        raise InputError(f"{folder}: contains the labelled scans themselves", "give another folder", setting="output")
    if not overwrite:
        check_free(folder)
    before = None if start is None else load_segmenter(start, resolve_device(settings.device))
    scans = read_supports(support, frame=settings.frame, progress=progress)
    made = adapt(scans, settings, query=query, cavities=cavities, cohort=cohort, start=before, progress=progress)
    segmenter = VolumeSegmenter(made.plan, made.segmenter, {**made.record, "request": request})
    if not overwrite:  # another adaptation may have ended meanwhile
        check_free(folder)
    segmenter.save(folder, overwrite=True)
    return segmenter


def _seen(settings: AdaptSettings, start: VolumeSegmenter | None) -> dict[str, Any]:
    if start is not None:
        return dict(start.record.get("weights_have_seen") or {})
    return dict(read_seen(settings.weights)) if settings.weights is not None else {}


def _adapt(learner: Learner, support: Support, settings: AdaptSettings) -> Segmenter:
    try:
        return learner.adapt(support)
    except (MemoryError, RuntimeError) as error:
        # If the CPU runs out of memory, torch raises a bare RuntimeError.
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise
        raise InputError(
            f"there is not enough memory for training on device {settings.device}",
            "train on the CPU or on smaller patches",
            setting=("device", "patch_voxels"),
        ) from error


def _compare(support: Support, progress: Progress) -> list[dict[str, Any]]:
    """Compare 2D supports by registration, which takes seconds; in 3D, the default learner does it."""
    if support.spatial_dims != 2 or support.shots < LEAST_SUPPORTS:
        return []
    return Atlas(progress=progress).leave_one_out(support, COMPARE_SECONDS).rows()


def fingerprint_of(support: Dataset, settings: AdaptSettings) -> str:
    """Fingerprint of the support's files (names, sizes, times), facts and settings, to recognise a run on resuming."""
    paths = [path for case in support.labelled for path in (*case.image_paths, case.label_path) if path is not None]
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for path in paths for p in files_of(path)]
    unused = [name for name in ("ignore", "frame") if dict(settings)[name] is None]
    content: list[Any] = [facts, support.labels, settings.model_dump(exclude={"device", *unused})]
    content += [support.ignore] if support.ignore is not None else []
    stated = [(case.modality, case.frame, case.channels) for case in support.labelled]
    described = [described_names(case.label_path) for case in support.labelled if case.label_path is not None]
    content += [described] if any(described) else []
    content += [stated] if any(one != (None, None, 1) for one in stated) else []
    return hashlib.sha256(strict_json(content).encode()).hexdigest()
