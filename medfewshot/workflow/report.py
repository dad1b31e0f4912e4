"""The report of a run: what ``run.json`` says, its pictures and volumes, and scores if there are references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, match_cases
from medfewshot.evaluation.pairs import PairScorer
from medfewshot.io import check_same_grid, first_volume, in_frame_of, labelled_frames, open_film, read_image, read_label
from medfewshot.metrics import METRICS
from medfewshot.report import FilmStrip, volume_plot_uri
from medfewshot.report.page.content import Page, PageCase, StructureRow
from medfewshot.report.page.flags import look_first, raise_flags
from medfewshot.report.page.split import write_page
from medfewshot.report.page.viewer import (
    LARGEST_CASE,
    DisplayVolumes,
    display_volumes,
    load_case,
    prepared_path,
    voxel_budget,
)
from medfewshot.report.page.write import card_uri, preview_uri
from medfewshot.types import Progress, Volume
from medfewshot.workflow.measures import SIZES, unit_of
from medfewshot.workflow.record import REPORT, CaseResult, damaged, flag_warning, read_run
from medfewshot.workflow.scoring import known_names, learned_names, score

MARK = b'<meta name="generator" content="medfewshot'
"""What each report contains near its start."""
CHANGED = "its labels were changed later: sizes, expected Dice and preview are those of the first ones"


def report(
    folder: Path,
    path: Path | None = None,
    *,
    reference: Path | Mapping[str, Path] | None = None,
    evaluation: Evaluation | None = None,
    viewer: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run, with scores if there are references: one file, or several for many scans.

    The viewer shows what :func:`medfewshot.report.prepare_case` wrote during the run. If that is missing or the labels
    have changed since, the scan and its labels are read again; if the scan is gone, the case has no viewer and the
    report says so.

    Args:
        folder: The folder of the run.
        path: The file to write; default: ``report.html`` in ``folder``.
        reference: Folder of reference labels, or the file of each case.
        evaluation: The scores, if they are computed already.
        viewer: Whether the page contains the viewer and the volumes.
        progress: Receives one event per case; may cancel.

    Returns:
        The written file.

    Raises:
        InputError: ``folder`` contains no run, ``run.json`` is damaged, or ``path`` is a folder or no report.
    """
    path, progress = path or folder / REPORT, progress or Progress()
    if path.is_dir():
        raise InputError(f"{path}: is a folder", f"give the name of the file, e.g. {path / REPORT}", setting="output")
    if path.is_file():
        with path.open("rb") as file:
            if MARK not in file.read(4096):
                raise InputError(f"{path}: exists already and is no report", "give another file", setting="output")
    scorer = None
    if isinstance(reference, Path):
        names = known_names(folder, reference)
        evaluation = evaluation or score(folder, reference, progress=progress)
        reference = {case: truth for case, _, truth in match_cases(folder, reference)[0]}
        scorer = PairScorer(names=names.predictions, reference_names=names.references, ignore=names.ignore)
    page = run_page(folder, evaluation=evaluation)
    progress = progress.at("report")
    shown = show_cases(folder, page, references=reference, scorer=scorer, viewer=viewer, progress=progress)
    return write_page(path, page, shown)


def run_page(folder: Path, *, evaluation: Evaluation | None = None) -> Page:
    """Return the content of the report without pictures and volumes.

    Raises:
        InputError: ``folder`` contains no run, or ``run.json`` is damaged.
    """
    record, results = read_run(folder)
    try:
        structures, unit = learned_names(record), _unit(results)
        scores = {(row["case_id"], row["label"]): row for row in (evaluation.score_rows() if evaluation else [])}
        # Warnings of the cases stand with the cases.
        of_cases = {f"{result.case}: {text}" for result in results for text in result.warnings}
        return Page(
            title=folder.resolve().name,
            structures=structures,
            cases=raise_flags([_case(result, structures, unit, scores) for result in results]),
            unit=unit,
            facts=_facts(record, evaluation, unit if unit in ("pixels", "voxels") else "mm"),
            summary=tuple(evaluation.summary_rows()) if evaluation else (),
            warnings=(
                *(text for text in record.get("warnings", []) if text not in of_cases),
                *(evaluation.warnings if evaluation else ()),
            ),
            volume_plot=volume_plot_uri(evaluation.volumes) if evaluation else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, error) from None


def show_cases(
    folder: Path,
    page: Page,
    *,
    references: Mapping[str, Path] | None = None,
    scorer: PairScorer | None = None,
    viewer: bool = True,
    progress: Progress | None = None,
) -> Iterator[PageCase]:
    """Yield the scans of a page with their pictures and volumes; thousands need not fit into memory.

    ``references`` are the reference labels of each case, and ``scorer`` scores them (by the names of the page).
    """
    references, progress = references or {}, progress or Progress()
    scorer = scorer or PairScorer(names=page.structures)
    results = {result.case: result for result in read_run(folder)[1]}
    pictured = {case.name for case in look_first(page.cases)}
    budget = voxel_budget(len(results)) if viewer else 0
    for number, case in enumerate(page.cases):
        progress.update(number, len(page.cases), case.name)
        result = results[case.name]
        preview = f"previews/{case.name}.png"
        if preview in result.files and (folder / preview).is_file():
            case = replace(case, preview=preview_uri(folder / preview))
        if not case.failed and (viewer or case.name in pictured):
            case = _with_volumes(
                case, folder, result, tuple(page.structures), reference=references.get(case.name),
                scorer=scorer, budget=budget, pictured=case.name in pictured,
            )  # fmt: skip
        yield case


def reasons_to_review(results: Sequence[CaseResult]) -> dict[tuple[str, int], str]:
    """Choose the structures to review: each has a reason of its own or is unlike the same structure in the other scans.

    Returns:
        (case, label value) -> one reason in at most six words.
    """
    size = SIZES[_unit(results)]
    cases = [
        PageCase(
            one.case,
            failed=one.status == "failed",
            structures=tuple(
                StructureRow(int(row["label"]), row["name"], row.get(size), row.get("predicted_dice"))
                for row in one.statistics
            ),
        )
        for one in results
    ]
    reasons = {
        (case.name, row.label): row.flags[0] for case in raise_flags(cases) for row in case.structures if row.flags
    }
    own = {(one.case, int(row["label"])): row.get("review") for one in results for row in one.statistics}
    return reasons | {key: reason for key, reason in own.items() if reason}


def _unit(results: Sequence[CaseResult]) -> str:
    return unit_of([row for result in results for row in result.statistics])


def _case(
    result: CaseResult, structures: Mapping[int, str], unit: str, scores: Mapping[tuple[str, int], Mapping[str, Any]]
) -> PageCase:
    measured = {int(row["label"]): row for row in result.statistics}
    rows = [
        _row(value, name, measured.get(value, {}), scores.get((result.case, value), {}), result, unit)
        for value, name in structures.items()
        if value in measured or (result.case, value) in scores
    ]
    return PageCase(
        name=result.case,
        failed=result.status == "failed",
        structures=tuple(rows),
        seconds=sum(result.seconds.values()) if result.seconds else None,
        files=tuple(file for file in (result.labels, *result.files) if file),
        warnings=(
            *([result.error] if result.error else []),
            *(text for text in result.warnings if text not in map(flag_warning, result.flags)),
        ),
        details=result.flags,
    )


def _row(
    value: int, name: str, measured: Mapping[str, Any], score: Mapping[str, Any], result: CaseResult, unit: str
) -> StructureRow:
    """Return one structure from its statistics and its score; each may be empty."""
    reason = measured.get("review")  # early records lack it
    return StructureRow(
        value,
        name,
        size=measured.get(SIZES[unit]),
        predicted_dice=result.predicted_dice.get(name),
        status=score.get("status"),
        scores={metric: score.get(metric) for metric in METRICS},
        reference_size=score.get("reference_volume_ml") if unit == "ml" else None,
        flags=result.flags if reason is None else (reason,) if reason else (),
    )


def _with_volumes(
    case: PageCase, folder: Path, result: CaseResult, values: Sequence[int], *,
    reference: Path | None, scorer: PairScorer, budget: int, pictured: bool,
) -> PageCase:  # fmt: skip
    """Return the case with its picture, and with its volumes for the viewer if it is 3D and there is a budget."""
    labels_file = folder / str(result.labels)
    try:
        prepared = load_case(folder, case.name, labels_file=labels_file)
        if prepared is None and prepared_path(folder, case.name).is_file():
            case = replace(case, warnings=(*case.warnings, CHANGED))
        volumes = prepared or _read_case(folder, result, values)
        volumes = volumes.coarser(budget or LARGEST_CASE)
        if reference is not None:
            grid = np.broadcast_to(np.uint8(0), (1, *volumes.shape))
            shown = Volume(grid, volumes.affine, path=labels_file)
            truth = _reference(reference, shown, result.frame)
            if truth is not None:
                volumes = volumes.with_reference(scorer.as_scored(truth).data[0], values)
    except (InputError, OSError) as error:
        return replace(case, warnings=(*case.warnings, f"no viewer: {' '.join(str(error).split())}"))
    rank = values.index(case.worst.label) + 1 if case.worst else None
    if pictured:
        case = replace(case, picture=card_uri(volumes, rank))
    return replace(case, viewer=volumes.encoded(rank)) if budget and len(volumes.shape) == 3 else case


def _reference(path: Path, shown: Volume, frame: int | None) -> Volume | None:
    """Read the reference of a volume, or of the frame of a film that is shown; None if it is not labelled."""
    film = open_film(path, is_label=True)
    if film is None:
        return in_frame_of(shown, read_label(path, image=shown))
    label = labelled_frames(film).get(-1 if frame is None else frame)
    return None if label is None else in_frame_of(shown, label)


def _read_case(folder: Path, result: CaseResult, values: Sequence[int]) -> DisplayVolumes:
    """Return the volumes of a case from its files."""
    if result.frame is not None:
        return _read_film(folder, result, values)
    labels = read_label(folder / str(result.labels))
    image = first_volume([Path(result.inputs[0])])
    check_same_grid(image, labels)
    uncertain = next((folder / file for file in result.files if file.startswith("uncertainty/")), None)
    doubt = read_image(uncertain) if uncertain is not None and uncertain.is_file() else None
    return display_volumes(
        image.data[0], labels.data[0], labels.affine, values=values, uncertainty=doubt.data[0] if doubt else None
    )


def _facts(record: Mapping[str, Any], evaluation: Evaluation | None, unit: str) -> dict[str, str]:
    plan, adaptation = record["plan"], record.get("adaptation", {})
    settings, learner = adaptation.get("settings", {}), adaptation.get("learner", {})
    steps = [f"{learner['steps']} steps"] if "steps" in learner else []
    facts = {
        "Finished": record.get("finished") or "not finished: the run still goes on, or it was stopped",
        "Labelled scans": ", ".join(Path(pair["image"]).name for pair in record["supports"]) or "not recorded",
        "Learner": ", ".join([str(settings.get("learner", "unknown")), *steps]),
        "Resolution": f"{plan['spatial_dims']}D at {' × '.join(f'{s:.3g}' for s in plan['spacing_mm'])} {unit}",
        "Seed": str(record.get("seed")),
        "Device": str(record.get("device")),
        "Seconds": ", ".join(f"{stage} {time:.1f}" for stage, time in record.get("seconds", {}).items()),
        "Versions": ", ".join(f"{name} {v}" for name, v in record.get("versions", {}).items() if name != "platform"),
    }
    if evaluation is not None:
        facts["Surface Dice"] = f"share of the surfaces within {evaluation.tolerance_mm:g} mm of each other"
    return facts


def _read_film(folder: Path, result: CaseResult, values: Sequence[int]) -> DisplayVolumes:
    """Return what the viewer plays of a film, from its files."""
    path, labels = Path(result.inputs[0]), folder / str(result.labels)
    film, drawn = open_film(path), open_film(labels, is_label=True)
    if film is None or drawn is None or film.count != drawn.count:
        raise InputError(f"{labels}: does not have the frames of {path}", "segment again")
    strip, frame = FilmStrip(film.count, values), result.frame or 0
    numbers = strip.numbers.tolist()
    for image, label in zip(film.frames(numbers), drawn.frames(numbers), strict=True):
        strip.add(image.frame or 0, image.data[0], in_frame_of(image, label).data[0], image.affine)
    return strip.played(frame)
