"""What each command does once its words are understood."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medfewshot.adaptation import adapt_volumes, read_cases
from medfewshot.bundle import DESCRIPTION, VolumeSegmenter, check_free, load_segmenter, strict_json
from medfewshot.cli.console import Console
from medfewshot.cli.source import Support, SupportSource
from medfewshot.cohort import (
    REPORT,
    RUN_RECORD,
    CohortOptions,
    check_folder,
    check_results_folder,
    find_cases,
    segment_cohort,
    write_report,
)
from medfewshot.cohort.inputs import check_channels
from medfewshot.cohort.record import read_record
from medfewshot.datasets import read_dataset
from medfewshot.devices import resolve_device
from medfewshot.errors import InputError
from medfewshot.evaluation import Evaluation, evaluate_folders, match_cases
from medfewshot.inference import InferenceOptions
from medfewshot.io import read_image
from medfewshot.io.dicom_seg import check_available
from medfewshot.planning import check_like_support, label_values
from medfewshot.settings import AdaptSettings, load_settings
from medfewshot.types import Case, Volume

__all__ = [
    "Console",
    "SegmentOptions",
    "SupportSource",
    "adapt",
    "demo",
    "evaluate",
    "inspect",
    "label_app",
    "load_settings",
    "report",
    "segment",
]


@dataclass(frozen=True)
class SegmentOptions:
    probabilities: bool = False
    uncertainty: bool = False
    previews: bool = True
    keep_largest: bool = True
    dicom_seg: bool = False
    resume: bool = False
    overwrite: bool = False
    report: bool = True

    def cohort(self) -> CohortOptions:
        inference = InferenceOptions(
            probabilities=self.probabilities, uncertainty=self.uncertainty, keep_largest=self.keep_largest
        )
        return CohortOptions(inference, self.previews, self.dicom_seg, self.resume, self.overwrite, self.report)


def segment(
    inputs: Sequence[Path],
    output: Path,
    source: SupportSource,
    settings: AdaptSettings,
    options: SegmentOptions,
    console: Console,
) -> int:
    """Exit code 0, or 1 where some volumes failed."""
    begun = time.perf_counter()
    source.check(settings)
    if options.dicom_seg:
        check_available()
    device = resolve_device(settings.device)
    known = load_segmenter(source.segmenter, device) if source.segmenter is not None else source.find()
    cases = find_cases(inputs, known.channels)
    check_results_folder(output, cases, options.cohort())
    lone = _read_lone(cases, known.channels)
    if isinstance(known, Support):
        segmenter = _adapted_for(output / "segmenter", known, settings, options.resume, lone, console)
    else:
        segmenter = known
        if lone is not None:
            check_like_support(lone, segmenter.plan)
    with console.progress("Segmenting") as progress:
        result = segment_cohort(cases, segmenter, output, options.cohort(), _command(), progress)
    if options.report:
        with console.progress("Report") as progress:
            write_report(output, progress=progress)
    console.segmentation_table(result)
    found = [f"{r.case}: {text}" for r in result.results for text in r.warnings]
    console.warnings([*segmenter.record.get("warnings", ()), *found])
    for failed in result.failed:
        console.error(f"{failed.case} failed: {failed.error}")
    done = len(result.results) - len(result.failed)
    earlier = f", {result.resumed} of them from an earlier run" if result.resumed else ""
    console.say(f"{done} of {len(result.results)} volume(s) in {output}{earlier}; {time.perf_counter() - begun:.0f} s")
    if options.report:
        console.say(f"open {output / REPORT} in a browser")
    console.json({"output": str(output), "resumed": result.resumed, "outputs": [asdict(r) for r in result.results]})
    return 1 if result.failed else 0


def adapt(output: Path, source: SupportSource, settings: AdaptSettings, overwrite: bool, console: Console) -> int:
    """Write the adapted segmenter to ``output``."""
    source.check(settings, adapting=True)
    check_folder(output)
    if not overwrite:
        check_free(output)
    support = source.find()
    if any(output.resolve() == path.resolve().parent for case in support.cases for path in case.image_paths):
        raise InputError(f"{output}: holds the supports themselves; give another folder with -o")
    segmenter = _adapt(support, settings, None, console)
    _save(segmenter, output, console)
    console.warnings(segmenter.record["warnings"])
    console.say(f"segmenter in {output}; use it with: medfewshot segment VOLUMES --segmenter {output} -o OUT")
    console.json({"output": str(output), "record": segmenter.record})
    return 0


def evaluate(
    predictions: Path,
    reference: Path,
    output: Path | None,
    labels: list[int | str] | None,
    tolerance: float,
    console: Console,
) -> int:
    """Score, print, and write tables and a plot where an output folder is given."""
    from medfewshot.demo import check_scores_folder, write_scores

    if output is not None:
        check_scores_folder(output)
    names = _label_names(predictions, reference)
    values = label_values(labels, names) if labels else []
    wanted = {value: names.get(value, f"label {value}") for value in values} or names or None
    with console.progress("Scoring") as progress:
        evaluation = evaluate_folders(predictions, reference, labels=wanted, tolerance_mm=tolerance, progress=progress)
    nowhere = {value: names.get(value, f"label {value}") for value in values} if labels else {}
    for score in evaluation.scores:
        if score.status != "absent":
            nowhere.pop(score.label, None)
    if nowhere:
        told = f"{', '.join(nowhere.values())}: in no segmentation and no reference; is that the value in the files?"
        evaluation = replace(evaluation, warnings=(told, *evaluation.warnings))
    if output is not None:
        write_scores(evaluation, output)
        if (predictions / RUN_RECORD).is_file():
            _write_scored_report(predictions, reference, evaluation, output / REPORT, console)
    console.score_table(evaluation)
    console.warnings(evaluation.warnings, "in summary.json" if output else "(-o FOLDER writes them all)")
    if output is not None:
        console.say(f"tables and plot in {output}")
    console.json({"summary": evaluation.summary_rows(), "warnings": list(evaluation.warnings)})
    return 0


def report(folder: Path, reference: Path | None, path: Path | None, viewer: bool, console: Console) -> int:
    """Write the report of a run, scored where there are references."""
    if path is not None and path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of the file, e.g. -o {path / REPORT}")
    path = path or folder / REPORT
    if reference is not None:
        names = _label_names(folder, reference)
        with console.progress("Scoring") as progress:
            evaluation = evaluate_folders(folder, reference, labels=names or None, progress=progress)
        _write_scored_report(folder, reference, evaluation, path, console, viewer)
    else:
        with console.progress("Report") as progress:
            write_report(folder, path, viewer=viewer, progress=progress)
    console.say(f"open {path} in a browser ({path.stat().st_size / 1e6:.1f} MB)")
    console.json({"report": str(path)})
    return 0


def _write_scored_report(
    folder: Path, reference: Path, evaluation: Evaluation, path: Path, console: Console, viewer: bool = True
) -> None:
    truths = {case: truth for case, _, truth in match_cases(folder, reference).pairs}
    with console.progress("Report") as progress:
        write_report(folder, path, evaluation=evaluation, references=truths, viewer=viewer, progress=progress)


def inspect(folder: Path, output: Path | None, console: Console) -> int:
    """Exit code 0 when there is something to adapt to, 1 where errors stand in the way of some cases."""
    from medfewshot.inspection import inspect as inspect_dataset

    if output is not None:
        check_folder(output)
    with console.progress("Reading") as progress:
        inspection = inspect_dataset(read_dataset(folder), progress)
    if output is not None:
        inspection.write(output)
    console.inspection_table(inspection)
    console.json({"summary": inspection.summary, "problems": [asdict(p) for p in inspection.problems]})
    return 1 if inspection.errors else 0


def label_app(folder: Path, segmenter: Path | None, names: dict[int, str], console: Console) -> int:
    """Write a MONAI Label app."""
    from medfewshot.integrations.label_files import write_label_app

    write_label_app(folder, names, segmenter)
    console.say(f"app in {folder}; start it with: monailabel start_server --app {folder} --studies SCANS")
    console.json({"app": str(folder)})
    return 0


def demo(output: Path, data: Path | None, shots: int, queries: int, settings: AdaptSettings, console: Console) -> int:
    """Everything at once, on made-up scans where ``data`` is None."""
    from medfewshot.demo import DEMO_STEPS, run_demo

    settings = settings.replace(steps=DEMO_STEPS if settings.steps is None else settings.steps)
    with console.progress("Demo") as progress:
        result = run_demo(
            output, data=data, shots=shots, queries=queries, settings=settings, command=_command(), progress=progress
        )
    console.score_table(result.evaluation)
    console.warnings([*result.warnings, *result.evaluation.warnings])
    console.say(f"pictures, tables and the segmenter in {output}; open {output / REPORT} in a browser")
    console.json({"output": str(output), "summary": result.evaluation.summary_rows(), "seconds": result.seconds})
    return 0


def _read_lone(cases: Sequence[Case], channels: int) -> Volume | None:
    """The volume, where there is but one: what is wrong with it must show before adaptation costs a minute."""
    if len(cases) > 1:
        return None
    check_channels(cases[0], channels)
    return read_image(cases[0].image_paths)


def _check_kind(lone: Volume | None, support: Volume) -> None:
    if lone is None:
        return
    for kind, other in zip(_kind(lone), _kind(support), strict=True):
        if kind != other:
            raise InputError(f"{lone.name}: is {kind} but the support is {other}; give scans of the supports' kind")


def _kind(volume: Volume) -> tuple[str, str]:
    return f"{volume.spatial_dims}D", f"of {volume.data.shape[0]} channel(s)"


def _adapted_for(
    folder: Path, support: Support, settings: AdaptSettings, resume: bool, lone: Volume | None, console: Console
) -> VolumeSegmenter:
    """A segmenter kept in ``folder`` beside the results: adapted now, or by the run that is resumed."""
    if resume and (folder / DESCRIPTION).is_file():
        earlier = load_segmenter(folder, resolve_device(settings.device))
        if earlier.record.get("request") != _request(support, settings):
            raise InputError(f"{folder}: was adapted to another support or settings; drop --resume or use --overwrite")
        return earlier
    segmenter = _adapt(support, settings, lone, console)
    _save(segmenter, folder, console)
    return segmenter


def _save(segmenter: VolumeSegmenter, folder: Path, console: Console) -> None:
    segmenter.save(folder)
    if segmenter.record["keeps_supports"]:
        console.say(f"{folder} holds the supports' scans, which new ones are matched to: pass it on as you would them")


def _adapt(support: Support, settings: AdaptSettings, lone: Volume | None, console: Console) -> VolumeSegmenter:
    images, labels = read_cases(support.cases)
    _check_kind(lone, images[0])
    with console.progress("Adapting") as progress:
        adapted = adapt_volumes(images, labels, settings, support.names, progress)
    console.plan(adapted)
    record = {**adapted.record, "request": _request(support, settings)}
    return VolumeSegmenter(adapted.plan, adapted.segmenter, record)


def _request(support: Support, settings: AdaptSettings) -> str:
    """Fingerprint of the support's files (names, sizes, times) and the settings, for --resume."""
    files = [path for case in support.cases for path in (*case.image_paths, case.label_path) if path is not None]
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    content = [facts, support.names, settings.model_dump(exclude={"device"})]
    return hashlib.sha256(strict_json(content).encode()).hexdigest()


def _command() -> list[str]:
    return ["medfewshot", *sys.argv[1:]]


def _label_names(predictions: Path, reference: Path) -> dict[int, str]:
    """What the segmenter learned, as the predictions' run.json says, else what the references' dataset.json lists.

    A structure that the segmenter knows by number alone takes its name from dataset.json.
    """
    known: dict[int, str] = {}
    for folder in (reference, reference.parent):
        if (folder / "dataset.json").is_file():
            known = dict(read_dataset(folder).labels)
            break
    try:
        learned = {int(value): str(name) for value, name in read_record(predictions)["plan"]["labels"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return known
    return {v: known.get(v, name) if name == f"label {v}" else name for v, name in learned.items()}
