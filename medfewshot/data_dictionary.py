"""``data_dictionary.csv``: what each column of the tables in a folder means, and its unit."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medfewshot.errors import InputError
from medfewshot.io import write_csv
from medfewshot.metrics import METRICS

DATA_DICTIONARY = "data_dictionary.csv"
_HEADER = ("file", "column", "unit", "meaning")
Meaning = tuple[str, str]
"""Unit ("" for a plain number or text), and meaning in one sentence."""

_COLUMNS: dict[str, Meaning] = {
    "case": ("", "name of the scan"),
    "case_id": ("", "name of the scan"),
    "subject_id": ("", "whose scan it is; the name of the scan if no subject is known"),
    "label": ("", "value of the structure in the label map; empty: all structures together"),
    "label_name": ("", "name of the structure"),
    "name": ("", "name of the structure"),
    "structure": ("", "name of the structure"),
    "status": ("", "found: in reference and prediction; missed: in the reference only; false_alarm: in the prediction "
               "only; absent: in neither"),
    "volume_ml": ("ml", "volume of the segmentation: voxels times voxel size; empty in 2D, or if that is unknown"),
    "reference_volume_ml": ("ml", "volume of the reference; empty in 2D"),
    "tolerance_mm": ("mm", "distance within which surfaces count as equal in the surface Dice"),
    "review_status": ("", "newest review of the scan in reviews.csv: accepted, corrected (accepted after a change by "
                      "hand), rejected or needs review; empty: not reviewed"),
    "cases": ("", "number of scans"),
    "subjects": ("", "number of subjects"),
    "found": ("", "number of scans with the structure in reference and prediction"),
    "missed": ("", "number of scans with the structure in the reference only; Dice 0, no distance"),
    "false_alarms": ("", "number of scans with the structure in the prediction only; Dice 0, no distance"),
    "absent": ("", "number of scans without the structure in either; part of no mean"),
    "dice_ci_low": ("", "lower end of the 95 % interval of the mean Dice (percentile bootstrap over subjects)"),
    "dice_ci_high": ("", "upper end of the 95 % interval of the mean Dice"),
    "dice_median": ("", "median Dice of the scans"),
    "distances_left_out": ("", "number of scans whose distances are undefined: missed structures and false alarms"),
    "volume_bias_ml": ("ml", "mean of predicted minus reference volume, over scans with the structure in either"),
    "volume_bias_percent": ("%", "volume_bias_ml in percent of the mean reference volume"),
    "volume_limit_low_ml": ("ml", "lower 95 % limit of agreement of the volumes (Bland and Altman): bias minus 1.96 "
                            "standard deviations"),
    "volume_limit_high_ml": ("ml", "upper 95 % limit of agreement of the volumes"),
    "volume_icc": ("", "ICC(2,1) of the volumes: two-way random effects, absolute agreement, single measurement"),
    "volume_icc_low": ("", "lower end of the 95 % interval of volume_icc (Shrout and Fleiss)"),
    "volume_icc_high": ("", "upper end of the 95 % interval of volume_icc"),
    "voxels": ("voxels", "number of voxels of the structure"),
    "area_mm2": ("mm2", "area of the structure in a 2D image; empty in 3D"),
    "mean": ("gray value", "mean of the scan inside the structure"),
    "std": ("gray value", "standard deviation of the scan inside the structure"),
    "min": ("gray value", "minimum of the scan inside the structure"),
    "max": ("gray value", "maximum of the scan inside the structure"),
    "median": ("gray value", "median of the scan inside the structure"),
    "components": ("", "number of parts that do not touch, not even at a corner"),
    "predicted_dice": ("", "Dice that is expected without a reference (the confidence); it can be wrong"),
    "review": ("", "reason to look at the structure; empty: none"),
    "flags": ("", "why the scan is unlike the labelled scans or uncertain"),
    "measure": ("", "what is compared: dice and hd95_mm of each result against the reference, or volume_ml"),
    "scans": ("", "number of scans in which both values are defined"),
    "first_mean": ("of the measure", "mean of the first result"),
    "second_mean": ("of the measure", "mean of the second result"),
    "difference": ("of the measure", "mean of second minus first"),
    "difference_percent": ("%", "difference of the volumes in percent of first_mean; empty for other measures"),
    "difference_ci_low": ("of the measure", "lower end of the 95 % interval of the difference (percentile bootstrap "
                          "over scans)"),
    "difference_ci_high": ("of the measure", "upper end of the 95 % interval of the difference"),
    "scans_higher": ("", "number of scans in which the second result has the higher value"),
    "scans_lower": ("", "number of scans in which the second result has the lower value"),
    "p": ("", "p-value of the two-sided signed-rank test (Wilcoxon, zeros by Pratt) of the paired differences"),
    "p_holm": ("", "p after Holm's correction for all tests in the table"),
    "limit_low": ("ml", "lower 95 % limit of agreement of the volumes, second minus first (Bland and Altman)"),
    "limit_high": ("ml", "upper 95 % limit of agreement of the volumes"),
    "icc": ("", "ICC(2,1) of the volumes: two-way random effects, absolute agreement, single measurement"),
    "icc_low": ("", "lower end of the 95 % interval of icc (Shrout and Fleiss)"),
    "icc_high": ("", "upper end of the 95 % interval of icc"),
    "in_both": ("", "where the structure is: both, first only, second only, or neither"),
    "dice_between": ("", "Dice between the first and the second result"),
    "hd95_between_mm": ("mm", "HD95 between the first and the second result"),
    "volume_difference_ml": ("ml", "volume of the second minus volume of the first result"),
    "frame": ("", "frame of a film, from 0; empty for a scan that is no film"),
    "frames": ("", "number of frames of the film"),
    "labelled_frames": ("", "number of frames with a reference"),
    "consistency": ("", "mean Dice between neighbouring frames of the prediction; motion lowers it too"),
    "motion_consistency": ("", "the same after registration of the earlier frame to the later one in the scan; empty "
                           "if the scan is not known"),
    "curve_error_percent": ("%", "mean absolute difference of the sizes of prediction and reference over the labelled "
                            "frames, in percent of the largest size of the reference"),
    "change_percent": ("%", "largest minus smallest size over all frames, in percent of the largest: the ejection "
                       "fraction of a cavity"),
    "reference_change_percent": ("%", "the same of the reference, over its labelled frames"),
    "change_error_points": ("points", "change_percent minus reference_change_percent"),
    "time_s": ("s", "time of the frame after the first one"),
    "ed_frame": ("", "frame of end-diastole, from 0: the first cavity is largest there"),
    "es_frame": ("", "frame of end-systole, from 0: the first cavity is smallest there"),
    "edv_ml": ("ml", "volume at end-diastole"),
    "esv_ml": ("ml", "volume at end-systole"),
    "stroke_ml": ("ml", "stroke volume: edv_ml minus esv_ml"),
    "ejection_fraction_percent": ("%", "stroke volume in percent of edv_ml; empty if edv_ml or esv_ml is 0"),
    "shots": ("", "number of labelled scans that a model learned from"),
    "draw": ("", "which choice of these scans, from 1"),
    "subject": ("", "whose scan it is"),
    "tests": ("", "number of pairs of a model and a scan that it has not seen"),
    "version": ("", "version of the mask that was exported"),
    "draft": ("", "number of the model's draft, from 1; 0 if there was none"),
    "time": ("", "time of the review, in UTC"),
    "note": ("", "newest note of a reviewer"),
    "image": ("", "file of the scan"),
    "usable": ("", "True if the scan and its labels can be used as an example"),
    "shape": ("voxels", "number of voxels along each axis, as the file orders them"),
    "channels": ("", "number of channels"),
    "spacing_mm": ("mm", "edges of a voxel along each axis; empty if unknown"),
    "orientation": ("", "where each voxel axis leads to: left or right, anterior or posterior, superior or inferior"),
    "modality": ("", "CT or MR, as the file says or the gray values suggest"),
    "minimum": ("gray value", "minimum of the scan"),
    "percentile_1": ("gray value", "1st percentile of the scan"),
    "percentile_99": ("gray value", "99th percentile of the scan"),
    "maximum": ("gray value", "maximum of the scan"),
    "label_values": ("", "values in the label map, without 0"),
    "dataset": ("", "name of the data set"),
    "learner": ("", "name of the method with its settings"),
    "seeds": ("", "number of draws of labelled scans"),
    "first": ("", "name of the first learner"),
    "second": ("", "name of the second learner"),
    "wins": ("", "number of subjects on whom the first learner has the higher Dice"),
    "adapt_seconds_mean": ("s", "mean time of an adaptation"),
    "seconds_per_query_mean": ("s", "mean time of the segmentation of a scan"),
    "peak_gb_max": ("GB", "largest memory of a process"),
    "steps_mean": ("", "mean number of training steps"),
}  # fmt: skip
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (r"centroid_voxel_([xyz])", "voxels", "centre of the structure along voxel axis {0}, counted from 0"),
    (r"centroid_([xyz])_mm", "mm", "centre of the structure along the patient's axis {0} (RAS)"),
    (r"(first|second)_review_status", "", "review_status of the {0} result"),
    (r"(first|second)_volume_ml", "ml", "volume of the structure in the {0} result"),
    (r"(first|second)_dice", "", "Dice of the {0} result against the reference"),
    (r"(first|second)_hd95_mm", "mm", "HD95 of the {0} result against the reference"),
    (r"(dice|hd95_mm)_difference", "of {0}", "second_{0} minus first_{0}"),
    (r"(.+ \(\d+\)) voxels", "voxels", "number of voxels of {0}"),
    (r"(.+ \(\d+\)) ml", "ml", "volume of {0}; empty in 2D, or if the voxel size is unknown"),
    (r"(.+ \(\d+\)) components", "", "number of parts of {0} that do not touch, not even at a corner"),
    (r"(.+ \(\d+\)) touches border", "", "True if {0} touches the border of the scan"),
    (r"size_([xyz])_mm", "mm", "edge of the box around the structure along voxel axis {0}"),
)
_ONE_FILE: dict[tuple[str, str], Meaning] = {
    ("reviews.csv", "status"): (
        "",
        "accepted, rejected or needs review (said by a reviewer); example: drawn by hand; "
        "draft: not reviewed; unlabelled",
    ),
    ("reviews.csv", "dice"): ("", "mean Dice between the draft and the mask; empty if there was only one of them"),
    ("reviews.csv", "version"): ("", "version of the mask; 0 if there is none"),
    ("inspection.csv", "label"): ("", "file of the label map"),
    ("inspection.csv", "median"): ("gray value", "median of the scan"),
    ("comparisons.csv", "difference"): ("", "mean Dice of the first minus that of the second learner, over subjects"),
    ("comparisons.csv", "p_holm"): ("", "p after Holm's correction for all pairs of the same data set and shots"),
    ("statistics.csv", "status"): ("", "status of the mask in the workbench: accepted, or example (drawn by hand)"),
}
"""Meanings of a column that differ from the others of its name."""


def meaning_of(file: str, column: str) -> Meaning:
    """Return unit and meaning of a column; empty if nothing is known about it."""
    own = _ONE_FILE.get((file, column))
    if own is not None:
        return own
    metric = METRICS.get(column.removesuffix("_mean"))
    if metric is not None:
        share = " (mean over the scans in which it is defined)" if column.endswith("_mean") else ""
        text = metric.meaning.replace("{tolerance_mm:g} mm", "tolerance_mm")
        return metric.unit, f"{metric.title}: {text}{share}"
    for pattern, unit, text in _PATTERNS:
        if match := re.fullmatch(pattern, column):
            return unit.format(*match.groups()), text.format(*match.groups())
    return _COLUMNS.get(column, ("", ""))


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a CSV file, and describe its columns in ``data_dictionary.csv`` beside it.

    Descriptions of other tables in the folder stay.

    Returns:
        ``path``.
    """
    write_csv(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        describe_columns(path.parent, path.name, next(csv.reader(file), []))
    return path


def describe_columns(folder: Path, file: str, columns: Iterable[str]) -> None:
    """Describe the columns of a table in ``data_dictionary.csv``; descriptions of other tables stay.

    Args:
        folder: Where the dictionary is.
        file: Name of the table from there; ``films/*.csv`` for many tables of the same columns.
        columns: Its columns.
    """
    before = _read(folder / DATA_DICTIONARY)
    described = [(file, column, *meaning_of(file, column)) for column in columns]
    now = [row for row in before if row["file"] != file]
    now += [dict(zip(_HEADER, row, strict=True)) for row in described]
    now.sort(key=lambda row: row["file"])
    if now != before:
        write_csv(folder / DATA_DICTIONARY, now)


def check_dictionary(folder: Path) -> None:
    """Check that a data dictionary in ``folder`` replaces no file of somebody else."""
    path = folder / DATA_DICTIONARY
    if path.is_file() and not _read(path):
        raise InputError(
            f"{path}: exists already and is no data dictionary of medfewshot", "give another folder", setting="output"
        )


def _read(path: Path) -> list[dict[str, str]]:
    """Read the rows of an earlier dictionary; a file that is none counts as empty."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError):
        return []
    return [row for row in rows if tuple(row) == _HEADER]
