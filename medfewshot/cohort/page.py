"""The report of a run: what ``run.json`` says, its pictures and volumes, and scores where there are references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medfewshot.cohort.record import REPORT, flag_warning, read_record
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation
from medfewshot.io import check_same_grid, read_image, read_label
from medfewshot.report.page import (
    Flag,
    Page,
    PageCase,
    Score,
    StructureRow,
    Viewer,
    make_viewer,
    preview_uri,
    raise_flags,
    write_page,
)
from medfewshot.report.page.volumes import voxel_budget
from medfewshot.types import Progress

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
    """Write the report of the run in ``folder``, to ``folder/report.html`` unless ``path`` is given; returns its path.

    ``references``: case -> reference labels, shown beside the segmentation. ``viewer=False`` leaves the volumes out. A
    scan that is no longer where it was costs its case the viewer, and the report says so. Raises InputError where the
    folder holds no run.
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
        raise InputError(f"{folder}: holds no run (no run.json); give a folder that medfewshot segment wrote")
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
        raise InputError(f"{folder / 'run.json'}: is damaged ({error}); segment again with --overwrite") from None
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
        rows.append(
            StructureRow(value, structure, size, entry["confidence"].get(structure), _score(score, unit), predicted)
        )
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
    return Score(row["status"], row["dice"], row["hd95_mm"], row["surface_dice"], size)


def _with_viewer(
    case: PageCase,
    folder: Path,
    entry: Mapping[str, Any],
    values: Sequence[int],
    budget: int,
    reference: Path | None,
) -> PageCase:
    try:
        viewer = _viewer(Path(entry["inputs"][0]), folder / entry["labels"], values, budget, reference)
    except (InputError, OSError) as error:
        return replace(case, warnings=(*case.warnings, f"no viewer: {' '.join(str(error).split())}"))
    return replace(case, viewer=viewer)


def _viewer(
    image_path: Path, labels_path: Path, values: Sequence[int], budget: int, reference: Path | None
) -> Viewer | None:
    """None for what the viewer cannot show: pictures in 2D."""
    labels = read_label(labels_path)
    if labels.spatial_dims != 3:
        return None
    image = read_image(image_path)
    check_same_grid(image, labels)
    truth = read_label(reference) if reference is not None else None
    if truth is not None:
        check_same_grid(labels, truth)
    return make_viewer(
        image.data[0], labels.data[0], labels.affine, values, budget, truth.data[0] if truth is not None else None
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
