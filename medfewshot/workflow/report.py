"""The report of a run: what ``run.json`` says, its pictures and volumes, and scores where there are references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.metrics import METRICS
from medfewshot.report.page.content import Flag, Page, PageCase, Score, StructureRow
from medfewshot.report.page.flags import raise_flags
from medfewshot.report.page.viewer import DisplayVolumes, display_volumes, load_case, voxel_budget
from medfewshot.report.page.write import preview_uri, write_page
from medfewshot.types import Progress, Volume
from medfewshot.workflow.record import REPORT, flag_warning, read_record

_SIZES = {"ml": "volume_ml", "mm²": "area_mm2", "pixels": "voxels"}


def write_report(
    folder: Path,
    path: Path | None = None,
    *,
    evaluation: Evaluation | None = None,
    references: Mapping[str, Path] | None = None,
    viewer: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run.

    The viewer shows what :func:`medfewshot.report.prepare_case` wrote during the run. If that is missing or the labels
    have changed since, the scan and its labels are read again; if the scan is gone, the case has no viewer and the
    report says so.

    Args:
        folder: the folder of the run.
        path: the file to write, by default ``folder/report.html``.
        evaluation: scores to show.
        references: case -> file with reference labels, for the viewer.
        viewer: whether the page contains the viewer and the volumes.
        progress: told about each case.

    Returns:
        The written file.

    Raises:
        InputError: if the folder contains no run or ``run.json`` is damaged.
    """
    page = run_page(folder, evaluation=evaluation, references=references, viewer=viewer, progress=progress)
    return write_page(path or folder / REPORT, page)


def run_page(
    folder: Path,
    *,
    evaluation: Evaluation | None = None,
    references: Mapping[str, Path] | None = None,
    viewer: bool = True,
    progress: Progress | None = None,
) -> Page:
    """The content of the report; see :func:`write_report`."""
    progress = progress or Progress()
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: contains no run (no run.json)", "give a folder that medfewshot segment wrote")
    record = read_record(folder)
    try:
        structures = {int(value): str(name) for value, name in record["plan"]["labels"].items()}
        outputs = [dict(entry) for entry in record["outputs"]]
        unit = _unit(outputs)
        scores = _scores(evaluation)
        cases = []
        for number, entry in enumerate(outputs):
            progress.update(number, len(outputs), str(entry["case"]))
            case = _case(folder, entry, structures, unit, scores)
            if viewer and case.status == "done":
                reference = (references or {}).get(case.name)
                case = _with_viewer(case, folder, entry, tuple(structures), voxel_budget(len(outputs)), reference)
            cases.append(case)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'run.json'}: is damaged ({error})", "segment again and overwrite it") from None
    return Page(
        title=folder.resolve().name,
        structures=structures,
        cases=raise_flags(cases),
        unit=unit,
        facts=_facts(record, evaluation),
        summary=tuple(evaluation.summary_rows()) if evaluation is not None else (),
        warnings=(*_run_warnings(record, outputs), *(evaluation.warnings if evaluation is not None else ())),
    )


def _unit(outputs: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for entry in outputs for row in entry["statistics"]]
    return next((unit for unit, key in _SIZES.items() if any(row.get(key) is not None for row in rows)), "ml")


def _scores(evaluation: Evaluation | None) -> dict[tuple[str, int], dict[str, Any]]:
    rows = evaluation.score_rows() if evaluation is not None else []
    return {(row["case_id"], row["label"]): row for row in rows}


def _case(
    folder: Path,
    entry: Mapping[str, Any],
    structures: Mapping[int, str],
    unit: str,
    scores: Mapping[tuple[str, int], Mapping[str, Any]],
) -> PageCase:
    name = str(entry["case"])
    found = {int(row["label"]): row for row in entry["statistics"]}
    rows = []
    for value, structure in structures.items():
        row = found.get(value)
        score = scores.get((name, value))
        if row is None and score is None:
            continue
        size = row.get(_SIZES[unit]) if row is not None else None
        predicted = entry.get("predicted_dice", {}).get(structure)
        rows.append(StructureRow(value, structure, size, predicted, _score(score, unit)))
    preview = folder / "previews" / f"{name}.png"
    unlike = [str(text) for text in entry.get("flags", ())]
    errors = [str(entry["error"])] if entry.get("error") else []
    return PageCase(
        name=name,
        status=str(entry["status"]),
        structures=tuple(rows),
        seconds=sum(entry["seconds"].values()) if entry["seconds"] else None,
        files=tuple(str(file) for file in (entry["labels"], *entry["files"]) if file),
        warnings=(*errors, *(str(text) for text in entry["warnings"] if text not in map(flag_warning, unlike))),
        flags=tuple(Flag(text) for text in unlike),
        preview=preview_uri(preview) if f"previews/{name}.png" in entry["files"] and preview.is_file() else None,
    )


def _score(row: Mapping[str, Any] | None, unit: str) -> Score | None:
    if row is None:
        return None
    size = row["reference_volume_ml"] if unit == "ml" else None
    return Score(row["status"], {name: row[name] for name in METRICS}, size)


def _with_viewer(
    case: PageCase,
    folder: Path,
    entry: Mapping[str, Any],
    values: Sequence[int],
    budget: int,
    reference: Path | None,
) -> PageCase:
    """The case with its volumes; unchanged for a 2D image, which the viewer does not show."""
    labels_file = folder / entry["labels"]
    try:
        volumes = load_case(folder, case.name, labels_file=labels_file) or _read_case(folder, entry, values)
        if volumes is None:
            return case
        volumes = volumes.coarser(budget)
        if reference is not None:
            truth = read_label(reference)
            grid = np.broadcast_to(np.uint8(0), (1, *volumes.shape))
            check_same_grid(Volume(grid, volumes.affine, path=labels_file), truth)
            volumes = volumes.with_reference(truth.data[0], values)
    except (InputError, OSError) as error:
        return replace(case, warnings=(*case.warnings, f"no viewer: {' '.join(str(error).split())}"))
    return replace(case, viewer=volumes.encoded())


def _read_case(folder: Path, entry: Mapping[str, Any], values: Sequence[int]) -> DisplayVolumes | None:
    """The volumes of a case from its files; None for a 2D image."""
    if not any(row.get("volume_ml") is not None for row in entry["statistics"]):
        return None
    labels = read_label(folder / entry["labels"])
    image = read_image(Path(entry["inputs"][0]))
    check_same_grid(image, labels)
    uncertain = next((folder / file for file in entry["files"] if file.startswith("uncertainty/")), None)
    doubt = read_image(uncertain) if uncertain is not None and uncertain.is_file() else None
    return display_volumes(
        image.data[0], labels.data[0], labels.affine, values=values, uncertainty=doubt.data[0] if doubt else None
    )


def _facts(record: Mapping[str, Any], evaluation: Evaluation | None) -> dict[str, str]:
    plan, adaptation = record["plan"], record.get("adaptation", {})
    settings, learner = adaptation.get("settings", {}), adaptation.get("learner", {})
    seconds = record.get("seconds", {})
    versions = record.get("versions", {})
    facts = {
        "Finished": record.get("finished") or "not finished: the run was stopped",
        "Learner": ", ".join(
            [str(settings.get("learner", "unknown")), *([f"{learner['steps']} steps"] if "steps" in learner else [])]
        ),
        "Supports": ", ".join(Path(pair["image"]).name for pair in record["supports"]) or "not recorded",
        "Plan": f"{plan['spatial_dims']}D at {' × '.join(f'{s:.3g}' for s in plan['spacing_mm'])} mm",
        "Seed": str(record.get("seed")),
        "Device": str(record.get("device")),
        "Seconds": ", ".join(f"{stage} {time:.1f}" for stage, time in seconds.items()),
        "Versions": ", ".join(f"{name} {v}" for name, v in versions.items() if name != "platform"),
    }
    if evaluation is not None:
        facts["Surface Dice"] = f"share of the surfaces within {evaluation.tolerance_mm:g} mm of each other"
    return facts


def _run_warnings(record: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of the adaptation: those of the cases stand with the cases."""
    of_cases = {f"{entry['case']}: {text}" for entry in outputs for text in entry["warnings"]}
    return [text for text in record.get("warnings", []) if text not in of_cases]
