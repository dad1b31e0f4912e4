"""What the MONAI Label app adds to a session: settings of a training, names of segments, and the scan to offer next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medfewshot.errors import InputError, did_you_mean
from medfewshot.io import match_names, read_label, values_of
from medfewshot.settings import AdaptSettings
from medfewshot.types import Volume
from medfewshot.workbench.choice import Assessment, in_order_of_need

_OF_THE_APP = ("device", "labels", "ignore")
"""Settings that belong to the app and not to a single training."""


def training_options(conf: Mapping[str, Any]) -> dict[str, Any]:
    """List the options of a training, with the values of ``conf`` or the defaults.

    Empty text stands for None. Zero ``steps`` mean the learner's default number. Warns of misspelled keys.
    """
    fields = {name: field.default for name, field in AdaptSettings.model_fields.items() if name not in _OF_THE_APP}
    defaults = {name: "" if default is None else default for name, default in fields.items()}
    for name in sorted(conf.keys() - {*AdaptSettings.model_fields, "auto_train"}):
        if near := did_you_mean(name, (*fields, "device", "auto_train")):
            warnings.warn(f"conf {name}: is unknown{near}", stacklevel=2)
    return {name: conf.get(name, default) for name, default in {**defaults, "steps": 0}.items()}


def training_settings(conf: Mapping[str, Any], request: Mapping[str, Any]) -> AdaptSettings:
    """Build the settings of a training from ``request``, then ``conf``, then the defaults."""
    options = training_options(conf)
    values = options | {name: request[name] for name in options if request.get(name) is not None}
    unset = {name for name, value in values.items() if value == "" or (name == "steps" and str(value) == "0")}
    return AdaptSettings(**{name: value for name, value in values.items() if name not in unset})


def labelled_pairs(
    found: Sequence[tuple[str, str, Mapping[str, Any]]], names: Mapping[int, str]
) -> list[tuple[str, Volume]]:
    """Read submitted label maps, and give each structure one value by its name.

    Args:
        found: Scan, label map, and what the viewer states about the label map.
        names: Label value -> name in the app. A label map without names, for which the viewer has none, follows them.

    Raises:
        InputError: A label map cannot be read, or has more structures than the viewer names.
    """
    labels = []
    for _, path, info in found:
        label = read_label(Path(path))
        segments = (
            label.names
            or _segments(label, info)
            or {value: names[value] for value in values_of(label.data) & set(names)}
        )
        labels.append(replace(label, names=segments))
    matched = match_names(labels, names, fixed=False)
    return [(scan, label) for (scan, _, _), label in zip(found, matched, strict=True)]


def _segments(label: Volume, info: Mapping[str, Any]) -> dict[int, str]:
    """Return label value -> name of submitted segments; 3D Slicer numbers those of a file 1, 2, ..."""
    rows = [row for row in info.get("label_info") or () if isinstance(row, Mapping) and row.get("name")]
    names = {number: str(row["name"]) for number, row in enumerate(rows, start=1)}
    present = values_of(label.data)
    if rows and not present <= set(names):
        raise InputError(f"{label.name}: has label {max(present)}, but {len(names)} segments", "submit it again")
    return {value: names[value] for value in present if rows}


def choose_next(assessments: Mapping[str, Mapping[str, Any]], offered: Mapping[str, float] | None = None) -> str | None:
    """Choose the scan to annotate next: high in both ranks, by uncertainty and by distance to the supports.

    Args:
        assessments: Scan -> result of :meth:`LabelSession.assess`; empty for a scan that was not assessed. Those come
            last, by name.
        offered: Scan -> time in seconds at which it was offered to the annotator. A scan that was offered and not
            labelled waits until its next assessment.

    Returns:
        The name of the scan; None if there is none.
    """
    passed = {
        name for name, when in (offered or {}).items() if name in assessments and when >= assessments[name].get("ts", 0)
    }
    names = sorted(set(assessments) - passed) or sorted(assessments)
    known = [name for name in names if "uncertainty" in assessments[name]]
    if not known:
        return names[0] if names else None
    ranked = {name: Assessment(assessments[name]["uncertainty"], assessments[name]["distance"]) for name in known}
    return in_order_of_need(ranked)[0]
