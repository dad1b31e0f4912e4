"""What each command does once its words are understood."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import medfewshot
from medfewshot.adaptation import Adapted, AdaptSettings, adapt_volumes, cases_from_pairs, read_cases
from medfewshot.bundle import VolumeSegmenter, load_segmenter
from medfewshot.cli.console import Console
from medfewshot.cohort import CohortOptions, CohortResult, output_names, prepare_folder, segment_cohort
from medfewshot.datasets import parse_pair, read_dataset
from medfewshot.devices import describe_device, resolve_device
from medfewshot.inference import InferenceOptions
from medfewshot.io import find_images, read_image
from medfewshot.types import Case, InputError

__all__ = ["Console", "SegmentOptions", "SupportSource", "adapt", "demo", "evaluate", "inspect", "segment"]


@dataclass(frozen=True)
class SupportSource:
    """Where the knowledge comes from: pairs, a folder, or a segmenter made earlier. Exactly one of the three."""

    pairs: tuple[str, ...]
    folder: Path | None
    segmenter: Path | None

    def check(self) -> None:
        given = [bool(self.pairs), self.folder is not None, self.segmenter is not None]
        if sum(given) != 1:
            what = "--support IMG=LAB, --support-dir FOLDER or --segmenter FOLDER"
            raise InputError(f"give {what}" if not any(given) else f"give only one of {what}")

    def cases(self, modality: str | None) -> tuple[list[Case], dict[int, str]]:
        if self.folder is not None:
            dataset = read_dataset(self.folder)
            if not dataset.labelled:
                raise InputError(f"{self.folder}: holds no labelled scan; see medfewshot inspect {self.folder}")
            return list(dataset.labelled), dict(dataset.labels)
        return cases_from_pairs([parse_pair(text) for text in self.pairs], modality), {}


@dataclass(frozen=True)
class SegmentOptions:
    probabilities: bool = False
    uncertainty: bool = False
    previews: bool = True
    keep_largest: bool = True
    resume: bool = False
    overwrite: bool = False

    def cohort(self) -> CohortOptions:
        inference = InferenceOptions(
            probabilities=self.probabilities, uncertainty=self.uncertainty, keep_largest=self.keep_largest
        )
        return CohortOptions(inference, self.previews, self.resume, self.overwrite)


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
    source.check()
    prepare_folder(output, options.cohort())
    paths = [path for given in inputs for path in find_images(given)]
    output_names(paths)
    if len(paths) == 1:
        read_image(paths[0])  # a lone bad volume is found before adaptation costs a minute
    segmenter = _segmenter(source, settings, output / "segmenter", options.resume, console)
    about = _about(segmenter, settings)
    with console.progress("Segmenting") as progress:
        result = segment_cohort(inputs, segmenter, output, options.cohort(), about, progress)
    console.segmentation_table(result)
    console.warnings([*segmenter.record.get("warnings", ()), *_warnings(result)])
    for failed in result.failed:
        console.error(f"failed: {failed.error}")
    done = len(result.results) - len(result.failed)
    console.say(f"{done} of {len(result.results)} volume(s) in {output} after {time.perf_counter() - begun:.0f} s")
    console.json({"output": str(output), "volumes": [asdict(r) for r in result.results], "segmenter": about})
    return 1 if result.failed else 0


def adapt(output: Path, source: SupportSource, settings: AdaptSettings, overwrite: bool, console: Console) -> int:
    """Write the adapted segmenter to ``output``."""
    source.check()
    if (output / "segmenter.json").exists() and not overwrite:
        raise InputError(f"{output}: already holds a segmenter; add --overwrite to replace it")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder with -o")
    segmenter = _adapt(source, settings, console)
    segmenter.save(output)
    console.warnings(segmenter.record.get("warnings", ()))
    console.say(f"segmenter in {output}; use it with: medfewshot segment VOLUMES --segmenter {output} -o OUT")
    console.json({"output": str(output), "record": dict(segmenter.record)})
    return 0


def evaluate(
    predictions: Path, reference: Path, output: Path | None, labels: list[int] | None, tolerance: float, console: Console
) -> int:
    """Score, print, and write tables and a plot where an output folder is given."""
    from medfewshot.evaluation import evaluate_folders
    from medfewshot.report import save_score_plot

    with console.progress("Scoring") as progress:
        evaluation = evaluate_folders(
            predictions, reference, labels=labels or _reference_names(reference), tolerance_mm=tolerance,
            progress=progress,
        )  # fmt: skip
    if output is not None:
        evaluation.write(output)
        by_label: dict[str, list[float]] = {}
        for score in evaluation.scores:
            if score.status != "absent":
                by_label.setdefault(score.label_name, []).append(score.dice)
        save_score_plot(output / "dice.png", by_label, f"Dice, {len(evaluation.scores)} structures scored")
    console.score_table(evaluation)
    console.warnings(evaluation.warnings)
    if output is not None:
        console.say(f"tables and plot in {output}")
    console.json({"summary": evaluation.summary_rows(), "warnings": list(evaluation.warnings)})
    return 0


def inspect(folder: Path, output: Path | None, console: Console) -> int:
    """Exit code 0 when there is something to adapt to, 1 where errors stand in the way of some cases."""
    from medfewshot.inspection import inspect as inspect_dataset

    with console.progress("Reading") as progress:
        inspection = inspect_dataset(read_dataset(folder), progress)
    if output is not None:
        inspection.write(output)
    console.inspection_table(inspection)
    console.json({"summary": inspection.summary, "problems": [asdict(p) for p in inspection.problems]})
    return 1 if inspection.errors else 0


def demo(
    output: Path,
    data: Path | None,
    shots: int,
    queries: int,
    steps: int | None,
    seed: int,
    device: str,
    console: Console,
) -> int:
    from medfewshot.demo import run_demo

    with console.progress("Demo") as progress:
        result = run_demo(output, data=data, shots=shots, queries=queries, steps=steps, seed=seed, device=device,
                          progress=progress)  # fmt: skip
    console.score_table(result.evaluation)
    console.warnings([*result.warnings, *result.evaluation.warnings])
    console.say(f"pictures, tables and the segmenter in {output}; look at {output / 'segmentations' / 'previews'}")
    console.json({"output": str(output), "summary": result.evaluation.summary_rows(), "seconds": result.seconds})
    return 0


def _segmenter(
    source: SupportSource, settings: AdaptSettings, folder: Path, resume: bool, console: Console
) -> VolumeSegmenter:
    """The segmenter that was given, or one adapted now and kept beside the results."""
    if source.segmenter is not None:
        return load_segmenter(source.segmenter, resolve_device(settings.device))
    if resume and (folder / "segmenter.json").is_file():
        earlier = load_segmenter(folder, resolve_device(settings.device))
        if earlier.record.get("request") != _request(source, settings):
            raise InputError(f"{folder}: was adapted to another support or settings; drop --resume or use --overwrite")
        return earlier
    segmenter = _adapt(source, settings, console)
    segmenter.save(folder)
    return segmenter


def _adapt(source: SupportSource, settings: AdaptSettings, console: Console) -> VolumeSegmenter:
    cases, names = source.cases(settings.plan.modality)
    images, labels = read_cases(cases)
    with console.progress("Adapting") as progress:
        adapted = adapt_volumes(images, labels, settings, names, progress)
    console.plan(adapted)
    return VolumeSegmenter(adapted.plan, adapted.segmenter, _record(adapted, source, settings, cases))


def _record(adapted: Adapted, source: SupportSource, settings: AdaptSettings, cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "request": _request(source, settings),
        "adaptation": adapted.record,
        "seconds": dict(adapted.seconds),
        "settings": asdict(settings),
        "supports": [{"image": [str(p) for p in c.image_paths], "label": str(c.label_path)} for c in cases],
        "device": describe_device(resolve_device(settings.device)),
        "warnings": list(adapted.warnings),
    }


def _request(source: SupportSource, settings: AdaptSettings) -> str:
    """Fingerprint of the support's files (names, sizes, times) and the settings, for --resume."""
    cases, _ = source.cases(settings.plan.modality)
    files = [path for case in cases for path in (*case.image_paths, case.label_path) if path is not None]
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps([facts, asdict(settings)], sort_keys=True, default=str).encode()).hexdigest()


def _about(segmenter: VolumeSegmenter, settings: AdaptSettings) -> dict[str, Any]:
    return {
        "version": medfewshot.__version__,
        "command": sys.argv[1:],
        "device": describe_device(resolve_device(settings.device)),
        **{key: value for key, value in segmenter.record.items() if key != "request"},
    }


def _warnings(result: CohortResult) -> list[str]:
    return [f"{r.case}: {w}" for r in result.results for w in r.warnings]


def _reference_names(reference: Path) -> dict[int, str] | None:
    """Names from a dataset.json beside or above the reference labels; None where there is none."""
    for folder in (reference, reference.parent):
        path = folder / "dataset.json"
        if path.is_file():
            try:
                return dict(read_dataset(folder).labels) or None
            except InputError:
                return None
    return None


