"""Quality checks: similarity of a volume to the supports, and the expected accuracy of its segmentation.

They never change a segmentation. A flag means "look at this one first": the result may be right, and one without flags
may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medfewshot.intensities import constant_channels, is_constant, looks_like_hounsfield, subsample
from medfewshot.planning import name_with_value, normalise, planned_order
from medfewshot.structures import structures, voxel_size
from medfewshot.types import Plan, Volume

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
SAMPLES = 100_000
"""Number of voxels whose intensities are compared."""
SPACING_FACTOR = 2.0
"""Voxels this many times coarser (or finer) than in any support are flagged, ..."""
EXTENT_FACTOR = 1.75
"""... and a field of view this many times larger (or smaller) along any axis, ..."""
INTENSITY_DISTANCE = 0.5
"""... normalised intensities whose percentiles differ from every support's by more than this on average, in standard
deviations (or by more than twice the distance between supports, if that is larger), ..."""
SUPPORT_DISTANCE = 1.0
"""... or, between supports, which the plan was made from, by more than this;"""
SIZE_FACTOR = 3.0
"""... and a structure this many times larger (or smaller) than in any support, ..."""
PLANE_COSINE = 0.7
"""... and a slice that is turned by more than 45 degrees."""
NO_CONTRAST = "the image has no contrast"
LOW_CONFIDENCE = 0.5
"""Expected Dice below which a structure is to be reviewed."""
LEAST_AGREEMENT = 0.3
"""Supports whose masks fit each other less than this, by Dice of pairs, say nothing about a further one."""
MISFIT_SHARE = 0.35
"""A support is named if its pairs reach less than this share of the Dice of the others' pairs."""
SOME_AGREEMENT, LEAST_EDGE = 0.45, -0.47
"""If the others' masks agree with this Dice, a mask is misplaced if the logarithm of its edges, relative to theirs, is
lower (``lab/studies/support_check.py``);"""
CLOSE_AGREEMENT, LEAST_FIT = 0.75, -0.25
"""if they agree with this Dice, also if the sum of the logarithms for edges, evenness and Dice is lower."""
CALIBRATION = -0.56
"""Offset of the expected Dice on the logit scale, for segmenters without a ``calibration`` of their own."""


def support_profile(images: Sequence[Volume], labels: Sequence[Volume], plan: Plan) -> dict[str, Any]:
    """Describe the supports as plain data, with which later volumes are compared.

    Returns:
        ``{"supports": [...]}``, one entry a support: ``spacing_mm`` and ``extent_mm`` per planned axis;
        ``intensities``: percentiles of every channel after normalisation; ``sizes``: label value (as text) -> mm³
        (3D) or mm² (2D); ``modality`` as the file states it, or None.
    """
    profiles = []
    for image, label in zip(images, labels, strict=True):
        voxel, found = voxel_size(label.affine, label.spatial_dims), structures(label.data[0])
        # The sizes of structures in partly annotated scans are unknown.
        known = [v for v in plan.label_values if v in found and (label.data >= 0).all()]
        sizes = {str(v): float(f"{found[v].voxels * voxel:.6g}") for v in known}
        profiles.append({**_describe(image, plan), "sizes": sizes})
    return {"supports": profiles}


@dataclass(frozen=True)
class Flag:
    """A reason to look closely at a result.

    Attributes:
        reason: In at most six words.
        text: The same with figures.
        label: Label value of the structure; None for the whole scan.
    """

    reason: str
    text: str
    label: int | None = None


def image_flags(volume: Volume, plan: Plan, profile: Mapping[str, Any]) -> tuple[Flag, ...]:
    """Return how a volume differs from every support.

    Args:
        volume: Image ``(C, *S)``.
        plan: Plan of the supports.
        profile: What :func:`support_profile` returned. If it is empty (saved by an early version), nothing is compared.
    """
    constant = constant_channels(volume.data)
    flags = [Flag(NO_CONTRAST, constant)] if constant else []
    supports = profile.get("supports") or []
    if supports and not is_constant(volume.data):
        own = _describe(volume, plan)
        flags += [*_modality(own, supports), *_lengths(own, supports), *_intensities(own, supports)]
        if volume.slice_of and abs(float(np.array(plan.axes)[:, 2] @ volume.affine[:3, 2])) < PLANE_COSINE:
            text = "its slice lies in another plane than that of the first labelled scan"
            flags.append(Flag("plane unlike the labelled scans", text))
    return tuple(flags)


def support_warnings(images: Sequence[Volume], profile: Mapping[str, Any]) -> tuple[str, ...]:
    """Name supports that differ from every other support, one sentence each.

    Their voxel size, their field of view or, with three or more supports, their intensities differ; or the intensities
    of some look like CT and those of others do not.
    """
    own = profile["supports"]
    warnings = []
    for number, image in enumerate(images):
        others = [*own[:number], *own[number + 1 :]]
        flags = [
            *_lengths(own[number], others),
            *(_intensities(own[number], others, least=SUPPORT_DISTANCE) if len(others) > 1 else ()),
        ]
        warnings += [
            f"{image.name}: {flag.text.replace('the labelled scans', 'the others')}; remove it if it is of another kind"
            for flag in flags
        ]
    return (*_mixed_modalities(images), *warnings)


def _mixed_modalities(images: Sequence[Volume]) -> tuple[str, ...]:
    if all(image.modality for image in images):
        return ()
    is_ct = [any(looks_like_hounsfield([channel]) for channel in image.data) for image in images]
    if all(is_ct) or not any(is_ct):
        return ()
    ct, other = images[is_ct.index(True)], images[is_ct.index(False)]
    return (
        f"gray values look like Hounsfield units in {ct.name}, but not in {other.name}: if the supports mix CT and "
        "MR, give those of one modality",
    )


def check_supports(
    compared: Sequence[Mapping[str, Any]], supports: Sequence[str], structures: Sequence[str],
    fits: Sequence[np.ndarray] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Judge each support by how well its mask fits its scan, and the masks of the others.

    Args:
        compared: ``support``, ``from`` and ``dice`` (per structure, None if undefined) of pairs of supports, as the
            learner's record has them.
        supports: Names of the supports.
        structures: Names of the structures.
        fits: What :func:`medfewshot.mask_fit.mask_fit` says about each support; empty: nothing.

    Returns:
        ``support`` (name), ``dice`` (mean over its pairs and structures) and ``message``. The message is empty unless
        there are at least three supports, and this one fits none of the others while they fit each other, or fits its
        own scan less than the others fit theirs.
    """
    table = np.full((len(supports), len(supports), len(structures)), np.nan)
    for pair in compared:
        table[pair["support"], pair["from"]] = [np.nan if value is None else value for value in pair["dice"]]
    rows = []
    for number, name in enumerate(supports):
        others = [other for other in range(len(supports)) if other != number]
        own = np.stack([*table[number, others], *table[others, number]]) if others else table[number]
        rest = table[np.ix_(others, others)].reshape(-1, len(structures))
        own_dice, rest_dice = _means(own), _means(rest)
        bad = [
            index
            for index in range(len(structures))
            if rest_dice[index] >= LEAST_AGREEMENT and own_dice[index] < MISFIT_SHARE * rest_dice[index]
        ]
        known = own_dice[np.isfinite(own_dice)]
        score = round(float(known.mean()), 4) if known.size else None
        message = ""
        if bad:
            what = "its mask fits" if len(bad) == len(known) else f"{', '.join(structures[i] for i in bad)} of it fit"
            hint = "are names or sides swapped?" if 1 < len(bad) < len(known) else "is it the mask of this scan?"
            message = (
                f"check {name}: {what} none of the others (Dice {own_dice[bad].mean():.2f}, the others "
                f"{rest_dice[bad].mean():.2f}); {hint}"
            )
        elif len(supports) > 2 and len(fits) and _is_misplaced(number, fits, own_dice, rest_dice):
            message = f"check {name}: its mask fits this scan less than the other masks fit theirs; is it of this scan?"
        rows.append({"support": name, "dice": score, "message": message})
    return rows


def _is_misplaced(number: int, fits: Sequence[np.ndarray], own_dice: np.ndarray, rest_dice: np.ndarray) -> bool:
    """Return whether a mask misses the edges of its scan, or misses them a little where all others agree closely.

    If the others do not agree, as for lesions, their edges differ too much to say anything.
    """
    together = float(np.nanmean(rest_dice)) if np.isfinite(rest_dice).any() else 0.0
    if together < SOME_AGREEMENT:
        return False
    others = np.ma.masked_invalid([fit for other, fit in enumerate(fits) if other != number])
    below = np.log(fits[number]) - np.log(np.ma.median(others, axis=0).filled(np.nan))
    edge, evenness = _means(below)
    agreement = _means(np.log(np.maximum(own_dice, 0.05) / np.maximum(rest_dice, 0.05))[:, None])[0]
    return bool(edge < LEAST_EDGE or (together >= CLOSE_AGREEMENT and edge + evenness + agreement < LEAST_FIT))


def _means(values: np.ndarray) -> np.ndarray:
    """Mean of each column of ``(n, N)`` without NaN; NaN for a column without numbers."""
    count = np.isfinite(values).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def support_distance(volume: Volume, plan: Plan, profile: Mapping[str, Any]) -> float:
    """Return the distance between the intensities of ``volume (C, *S)`` and those of the nearest support.

    It is in standard deviations after normalisation, a mean over :data:`PERCENTILES`; 0 if the profile is empty.
    """
    return _nearest(_describe(volume, plan), profile.get("supports") or [])


def size_flags(voxels: Mapping[int, int], volume: Volume, plan: Plan, profile: Mapping[str, Any]) -> tuple[Flag, ...]:
    """Return the structures that are far larger or smaller than in every support.

    Args:
        voxels: Label value -> number of voxels.
        volume: The segmented image.
        plan: Plan of the supports.
        profile: What :func:`support_profile` returned.
    """
    unit, per_unit = ("ml", 1000.0) if volume.spatial_dims == 3 else ("mm²", 1.0)
    if not volume.has_spacing:
        unit, per_unit = ("voxels" if volume.spatial_dims == 3 else "pixels"), 1.0
    voxel = voxel_size(volume.affine, volume.spatial_dims)
    flags = []
    for value, count in voxels.items():
        known = [s["sizes"][str(value)] / per_unit for s in profile.get("supports") or [] if str(value) in s["sizes"]]
        if count and (flag := _unusual(count * voxel / per_unit, known, SIZE_FACTOR, ("smaller", "larger"), unit)):
            text = f"{name_with_value(plan.labels[value], value)} is {flag.text}"
            flags.append(Flag(f"{flag.reason} than in labelled scans", text, value))
    return tuple(flags)


def reasons_to_review(
    voxels: Mapping[int, int], predicted: Mapping[int, float], doubted: Iterable[int], flags: Sequence[Flag] = ()
) -> dict[int, str]:
    """Choose the structures to review, each with its most serious reason in at most six words.

    Args:
        voxels: Label value -> number of voxels.
        predicted: Label value -> expected Dice.
        doubted: Label values of structures that the segmenter doubts.
        flags: What sets the scan or its structures apart from the supports.

    Returns:
        Label value -> reason.
    """
    whole = next((flag.reason for flag in flags if flag.label is None), None)
    reasons = dict.fromkeys(voxels, whole) if whole else {}
    if whole == NO_CONTRAST:  # the cause of everything else
        return reasons
    reasons |= {value: "low confidence" for value, dice in predicted.items() if dice < LOW_CONFIDENCE}
    reasons |= {flag.label: flag.reason for flag in flags if flag.label is not None}
    reasons |= dict.fromkeys(doubted, "the model is uncertain")
    return reasons | {value: "not found" for value, count in voxels.items() if not count}


def predicted_dice(inside: float, voxels: float, total: float, calibration: float | None = None) -> float | None:
    """Return the Dice that the probabilities imply for a predicted mask, or None for an empty mask.

    If each voxel belonged to the structure with its probability, independently, the expected overlap would be
    ``inside`` and the expected size of the truth ``total``, so Dice = 2 inside / (voxels + total) to first order.
    Networks are overconfident, hence an offset on the logit scale, which ``lab/studies/calibration.py`` fits to
    subjects that no published figure uses. The offset changes no order. ``docs/reliability.md`` says how far to trust
    the prediction: it ranks the volumes of one segmenter.

    Args:
        inside: Sum of the structure's probability over its mask.
        voxels: Voxels of the mask.
        total: Sum of the structure's probability over the whole volume.
        calibration: The offset; None for :data:`CALIBRATION`.

    References:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    if voxels <= 0 or total <= 0:
        return None
    raw = min(max(2 * inside / (voxels + total), 1e-4), 1 - 1e-4)
    return 1 / (1 + math.exp(-(math.log(raw / (1 - raw)) + (CALIBRATION if calibration is None else calibration))))


def _describe(volume: Volume, plan: Plan) -> dict[str, Any]:
    order = planned_order(volume, plan.axes)
    known = volume.has_spacing
    sample = np.stack([subsample(channel, SAMPLES) for channel in volume.data]).astype(np.float32, copy=False)
    channels = normalise(torch.from_numpy(sample), plan.normalization).numpy()
    spacing = [volume.spacing_mm[axis] for axis in order]
    extent = [volume.spacing_mm[axis] * volume.spatial_shape[axis] for axis in order]
    return {
        "spacing_mm": [float(f"{length:.6g}") for length in spacing] if known else [],
        "extent_mm": [float(f"{length:.6g}") for length in extent] if known else [],
        "intensities": [[round(float(v), 4) for v in np.percentile(values, PERCENTILES)] for values in channels],
        "modality": volume.modality,
    }


def _modality(own: Mapping[str, Any], supports: Sequence[Mapping[str, Any]]) -> Iterator[Flag]:
    stated = {s["modality"] for s in supports if s["modality"]}
    if own["modality"] and stated and own["modality"] not in stated:
        text = f"its header says {own['modality']}, those of the labelled scans {' and '.join(sorted(stated))}"
        yield Flag("modality unlike the labelled scans", text)


def _lengths(own: Mapping[str, Any], supports: Sequence[Mapping[str, Any]]) -> Iterator[Flag]:
    checks = (
        ("spacing_mm", SPACING_FACTOR, ("finer", "coarser"), "voxels", "are"),
        ("extent_mm", EXTENT_FACTOR, ("smaller", "larger"), "field of view", "is"),
    )
    for key, factor, kinds, subject, verb in checks:
        for axis, length in enumerate(own[key]):
            known = [s[key][axis] for s in supports if s[key]]
            if flag := _unusual(length, known, factor, kinds, f"mm along axis {axis + 1}"):
                yield Flag(f"{subject} unlike labelled scans", f"its {subject} {verb} {flag.text}")
                break


def _unusual(value: float, known: Sequence[float], factor: float, kinds: tuple[str, str], unit: str) -> Flag | None:
    """Say so if a value is far below the known ones (the first of ``kinds``) or far above (the second)."""
    if not known or min(known) / factor <= value <= max(known) * factor:
        return None
    own, low, high = (f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in (value, min(known), max(known)))
    kind, where = kinds[value > max(known)], low if low == high else f"{low} to {high}"
    return Flag(kind, f"{kind} than in the labelled scans: {own} {unit} (there {where})")


def _intensities(
    own: Mapping[str, Any], supports: Sequence[Mapping[str, Any]], least: float = INTENSITY_DISTANCE
) -> Iterator[Flag]:
    spread = max((_nearest(s, [o for o in supports if o is not s]) for s in supports), default=0.0)
    limit = max(least, 2 * spread)
    distance = _nearest(own, supports)
    if distance > limit:
        text = f"its gray values differ by {distance:.2f} standard deviations from those of the labelled scans"
        yield Flag("gray values unlike labelled scans", f"{text} (up to {limit:.2f} is usual)")


def _nearest(one: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean distance of the percentiles to those of the nearest of ``others``; 0 if there is none."""
    own = np.array(one["intensities"])
    return min((float(np.abs(own - np.array(o["intensities"])).mean()) for o in others), default=0.0)
