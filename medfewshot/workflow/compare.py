"""Comparison of two runs, of two readers, or of a reader with a run: tables, plots and a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medfewshot.data_dictionary import write_table
from medfewshot.errors import InputError, some
from medfewshot.evaluation import Comparison, Evaluation, evaluate_pairs, match_cases
from medfewshot.io import StructureNames, case_id, find_images, in_frame_of, open_scan, read_label
from medfewshot.planning import named_labels
from medfewshot.report import save_volume_plot, volume_plot_uri
from medfewshot.report.page.comparison import ComparisonPage, write_comparison_page
from medfewshot.report.page.viewer import ranks_of
from medfewshot.report.page.write import jpeg_uri
from medfewshot.report.preview import card_jpeg
from medfewshot.settings import EvaluateSettings
from medfewshot.types import Progress, Volume
from medfewshot.workflow.evaluate import VOLUME_PLOT
from medfewshot.workflow.record import RUN_RECORD, read_record, read_run
from medfewshot.workflow.reviews import read_review_status
from medfewshot.workflow.scoring import known_names
from medfewshot.workflow.volumes import check_tables_folder

COMPARISON, CASES, PAGE = "comparison.csv", "cases.csv", "comparison.html"
CHANGE = "second - first"
SHOWN_CASES = 5
SIGNIFICANT = 0.05
Names = Mapping[int, str]


@dataclass(frozen=True)
class _Work:
    """What is compared: see :func:`compare`. Pairs hold the first and the second of two.

    Attributes:
        paths: Folder or file of each result.
        names: Label value -> name in each result, as far as it is known.
        labels: Label value -> name of what is compared, as each result numbers it; None: all values.
        files: Case -> label map of each result.
        truths: Case -> reference, of the cases that have one.
        true_names: Label value -> name in the references.
        ignore: Label value of the references that is not scored.
        warnings: One line each.
    """

    paths: tuple[Path, Path]
    names: tuple[Names, Names]
    labels: tuple[Names | None, Names | None]
    files: Mapping[str, tuple[Path, Path]]
    truths: Mapping[str, Path]
    true_names: Names
    ignore: int | None
    warnings: tuple[str, ...]


def compare(
    first: Path,
    second: Path,
    settings: EvaluateSettings | None = None,
    *,
    reference: Path | None = None,
    scans: Path | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two segmentations of the same scans, by structure; every difference is second minus first.

    Args:
        first: Folder of a run, or of label maps by a reader.
        second: The same kind.
        settings: Structures, and the label value that is not scored.
        reference: Labels by an expert. Dice and HD95 of both against it are then compared too.
        scans: Folder of the scans, for the pictures; default: where the record of a run says they are.
        folder: Where to write tables, plot and page; None writes nothing.
        progress: Receives one event per scan; may cancel.

    Raises:
        InputError: Both are the same folder, a run is not finished, they have no scan or no structure in common, or a
            label value is ignored without references.
    """
    settings, progress = settings or EvaluateSettings(), progress or Progress()
    if first.resolve() == second.resolve():
        raise InputError(f"{first}: is given twice", "give two different folders")
    if settings.ignore is not None and reference is None:
        raise InputError("a label value is ignored, and no reference has it", "give a reference", setting="ignore")
    for path in (first, second):
        if (path / RUN_RECORD).is_file() and not read_record(path).get("finished"):
            raise InputError(f"{path}: this run is not finished", "wait until it ends, or resume it")
    if folder is not None:
        names = (COMPARISON, CASES, PAGE)
        is_earlier = all((folder / name).is_file() for name in names)
        check_tables_folder(folder, () if is_earlier else (*names, VOLUME_PLOT), "compare")
    work = _open((first, second), reference, settings)
    pairs = [(case, files[1], files[0]) for case, files in work.files.items()]
    direct = evaluate_pairs(
        pairs, labels=work.labels[1], names=work.names[1], reference_names=work.names[0],
        progress=progress.at("comparing"),
    )  # fmt: skip
    found = Comparison(direct)
    if reference is not None:
        first_scores = _score(work, 0, progress.at("scoring the first"))
        found = Comparison(direct, first_scores, _score(work, 1, progress.at("scoring the second")))
    scored = len(work.files if reference is None else work.truths)
    of_scores = [text for one in (found.direct, found.first, found.second) if one for text in one.warnings]
    notes = (*work.warnings, *_doubts(found, len(pairs), scored), *of_scores)
    found = replace(found, warnings=tuple(dict.fromkeys(notes)))
    if folder is not None:
        _write(found, work, folder, reference, scans, progress.at("pictures"))
    return found


def _open(paths: tuple[Path, Path], reference: Path | None, settings: EvaluateSettings) -> _Work:
    """Find the scans and structures that both results have, and their references."""
    first, second = paths
    pairs, unmatched = match_cases(second, first, roles=("segmentation", "segmentation"))
    files = {case: (one, two) for case, two, one in pairs}
    known = [known_names(path, path) for path in paths]
    names = (known[0].labels, known[1].labels)
    labels, warnings = _common_structures(paths, names, settings)
    truths: dict[str, Path] = {}
    true_names: Names = {}
    ignore = settings.ignore
    if reference is not None:
        known.append(known_names(second, reference))
        truths = {case: true for case, _, true in match_cases(second, reference)[0] if case in files}
        true_names, ignore = known[2].references, known[2].ignore if ignore is None else ignore
        if not truths:
            raise InputError(f"{reference}: has no reference of the scans in {first} and {second}", "name them alike")
    unread = dict.fromkeys(text for one in known for text in (*one.doubts(truths), *one.warnings))
    return _Work(paths, names, labels, files, truths, true_names, ignore, (*unread, *warnings, *unmatched))


def _score(work: _Work, side: int, progress: Progress) -> Evaluation:
    """Score one of the results against the references."""
    return evaluate_pairs(
        [(case, work.files[case][side], true) for case, true in work.truths.items()],
        labels=work.labels[side], names=work.names[side], reference_names=work.true_names, ignore=work.ignore,
        progress=progress,
    )  # fmt: skip


def _common_structures(
    paths: Sequence[Path], names: Sequence[Names], settings: EvaluateSettings
) -> tuple[tuple[Names | None, Names | None], tuple[str, ...]]:
    """Return label value -> name of what both have, as each numbers it; and warnings. None: all values."""
    known: Names = {**names[0], **names[1]}
    warnings: tuple[str, ...] = ()
    values: dict[str, int] = {}
    if all(names):
        values = {name.casefold(): value for value, name in names[0].items()}
        known = {value: name for value, name in names[1].items() if name.casefold() in values}
        if not known:
            raise InputError(
                f"{paths[0]} and {paths[1]} have no structure in common ({some(names[0].values())}; "
                f"{some(names[1].values())})",
                "compare results of the same structures",
            )
        shared = {name.casefold() for name in known.values()}
        alone = [name for own in names for name in own.values() if name.casefold() not in shared]
        warnings = (f"only in one of the two, and not compared: {some(alone)}",) if alone else ()
    second = named_labels(settings.labels, known) or known or None
    if not values or second is None:
        return (second, second), warnings
    return ({values.get(name.casefold(), value): name for value, name in second.items()}, second), warnings


def _doubts(found: Comparison, cases: int, scored: int) -> list[str]:
    """Say what the numbers cannot show."""
    doubts = []
    one_sided = (one for one in found.direct.summaries if not one.found and 0 in (one.missed, one.false_alarms))
    alone = [one.label_name for one in one_sided if one.label is not None and one.missed != one.false_alarms]
    if alone:
        doubts.append(f"only in one of the two, in every scan: {some(alone)}; do both number the structures alike?")
    if scored < cases:
        doubts.append(f"{cases - scored} of {cases} scans have no reference and are only compared with each other")
    if found.identical:
        doubts.append("both results are identical in every scan")
    elif scored == 1:
        doubts.append("there is one scan to compare: no test, no interval and no limits of agreement")
    else:
        tests = sum(not math.isnan(row.p) for row in found.differences)
        if tests * 2.0 ** (1 - scored) > SIGNIFICANT:  # the least p of a signed-rank test, times Holm's factor
            doubts.append(
                f"with {scored} scans and {tests} test(s), no corrected p-value can be below {SIGNIFICANT}, whatever "
                "the difference"
            )
    return doubts


def _write(
    found: Comparison, work: _Work, folder: Path, reference: Path | None, scans: Path | None, progress: Progress
) -> None:
    write_table(folder / COMPARISON, [row.row() for row in found.differences])
    reviews = {name: read_review_status(path) for name, path in zip(("first", "second"), work.paths, strict=True)}
    write_table(
        folder / CASES,
        [
            {**row, **{f"{name}_review_status": known.get(row["case"]) for name, known in reviews.items() if known}}
            for row in found.case_rows()
        ],
    )
    volumes = found.direct.volumes
    (folder / VOLUME_PLOT).unlink(missing_ok=True)  # of an earlier comparison
    if volumes:
        save_volume_plot(folder / VOLUME_PLOT, volumes, difference=CHANGE)
    changes = dict([*found.changes.items()][:SHOWN_CASES])
    images = _scans_of(work.paths, scans)
    structures = {score.label: score.label_name for score in found.direct.scores}
    pictures = {}
    for number, case in enumerate(changes):
        progress.update(number, len(changes), case)
        with suppress(InputError, OSError):  # its files cannot be shown together
            pictures[case] = _picture(work, case, images.get(case), structures)
    page = ComparisonPage(
        str(work.paths[0]), str(work.paths[1]), None if reference is None else str(reference), found, changes, pictures,
        volume_plot_uri(volumes, difference=CHANGE),
    )  # fmt: skip
    write_comparison_page(folder / PAGE, page)


def _scans_of(runs: Sequence[Path], folder: Path | None) -> dict[str, tuple[Path, int]]:
    """Case -> its scan, in ``folder`` or where the record of a run says, as far as it exists; and its channels."""
    found: dict[str, Path] = {}
    channels = 1
    for run in runs:
        if (run / RUN_RECORD).is_file():
            record, results = read_run(run)
            channels = max(channels, record["plan"].get("channels", 1))
            found |= {result.case: Path(result.inputs[0]) for result in results}
    if folder is not None:
        found |= {case_id(path): path for path in find_images(folder)}
    return {case: (path, channels) for case, path in found.items() if path.exists()}


def _picture(work: _Work, case: str, scan: tuple[Path, int] | None, structures: Names) -> str:
    """Paint the first and the second result of a case, each with the reference as a dashed line; return a data URI.

    Without a reference, one picture shows the first result, and the second one as a dashed line. If the scan is not
    found, its structures are painted on black.

    Args:
        work: What is compared.
        case: Which scan.
        scan: Its file and the channels of the runs, if it is known.
        structures: Label value -> name of what was compared, as the second result numbers it.
    """
    found = open_scan([scan[0]], channels=scan[1]) if scan is not None else None
    image = found if isinstance(found, Volume) else None  # it is not known which frame of a film is labelled
    given = [*zip(work.files[case], work.names, strict=True)]
    given += [(work.truths[case], work.true_names)] if case in work.truths else []
    base = image or read_label(given[0][0])
    table = StructureNames(structures, grows=False)
    ranks = [_ranks(path, names, base, table, tuple(structures)) for path, names in given]
    grey, window = (base.data[0], None) if image is not None else (np.zeros(ranks[0].shape, np.float32), (0.0, 1.0))
    first, second, *true = ranks
    panels = [(first, true[0]), (second, true[0])] if true else [(first, second)]
    return jpeg_uri(card_jpeg(grey, panels, base.affine, window=window))


def _ranks(
    path: Path, names: Mapping[int, str], base: Volume, table: StructureNames, values: Sequence[int]
) -> np.ndarray:
    """Read a label map on the grid of ``base``; structure i of ``values`` becomes i + 1."""
    label = in_frame_of(base, read_label(path, image=base))
    return ranks_of(table.match(label if label.names else replace(label, names=names)).data[0], values)
