"""Open what a user names: a project, scans, a data set with labels, or a folder that ``segment`` wrote."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from medfewshot.datasets import PROJECT_FILE, Dataset, read_dataset
from medfewshot.errors import InputError
from medfewshot.io import StructureNames, claimed, find_images, open_film, read_examples, read_label, specific_names
from medfewshot.types import Volume
from medfewshot.workbench.project import Project
from medfewshot.workbench.project_file import named_structures
from medfewshot.workflow import RUN_RECORD, channels_a_scan, find_cases, read_run
from medfewshot.workflow.scoring import learned_names

ENDING = "_project"
"""The project of a folder of scans is beside it, in a folder with this ending."""
HALF = "unfinished"
"""File in the folder of a project while it is made. Without it, half a project would be opened the next time."""


def open_folder(path: Path, project_folder: Path | None = None) -> Project:
    """Open a project, or make one of scans.

    Args:
        path: A project; a folder of scans; a data set with labels (MSD, nnU-Net and other layouts), whose labels are
            copied; or a folder that ``segment`` wrote, whose results become drafts.
        project_folder: Folder of the project; default: beside ``path``. A project that exists there is opened, and gets
            the scans and labels that came to ``path`` since.

    Raises:
        InputError: There are no scans, or they cannot be used.
    """
    path = Path(path)
    if (path / PROJECT_FILE).is_file():
        if (path / HALF).is_file():
            raise InputError(f"{path}: making this project was interrupted", "give the folder of the scans again")
        return Project.open(path)
    absolute = path.absolute()
    folder = project_folder or absolute.with_name(f"{absolute.name.split('.')[0]}{ENDING}")
    if (folder / PROJECT_FILE).is_file() and not (folder / HALF).is_file():
        return _updated(Project.open(folder), path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HALF).touch()
    (folder / PROJECT_FILE).unlink(missing_ok=True)
    try:
        if (path / RUN_RECORD).is_file():
            return _of_run(path, folder)
        dataset = _dataset(path)
        count = channels_a_scan(find_images(path)) if dataset is None else dataset.channels
        if count > 1:
            raise InputError(
                f"{path}: each scan has {count} channels, as files or in one file; the workbench takes one channel",
                "give a folder with one channel of each scan",
            )
        return Project.create(folder, [path]) if dataset is None else _of_dataset(dataset, folder)
    except BaseException:
        (folder / PROJECT_FILE).unlink(missing_ok=True)
        raise
    finally:
        (folder / HALF).unlink()
        with suppress(OSError):  # it is not empty, unless nothing was made
            folder.rmdir()


def _updated(project: Project, path: Path) -> Project:
    """Add the scans that came to ``path`` since the project was made, with their labels."""
    if (path / RUN_RECORD).is_file():
        return project
    try:
        dataset = _dataset(path)
        cases = find_cases([path] if dataset is None else [case.image_path for case in dataset.cases])
    except InputError:
        if any(case.scan.exists() for case in project.cases()):
            raise
        return project  # the page says that the scans are gone
    with claimed(project.folder) as free:
        if free:  # no other workbench has opened it
            project.add_scans(cases)
            if dataset is not None:
                _import_labels(dataset, project)
    return project


def _dataset(path: Path) -> Dataset | None:
    """Return the data set, or None for scans without any labels; a wrong table or ``dataset.json`` is an error."""
    if path.is_file() and path.suffix.lower() not in (".json", ".csv", ".tsv"):
        return None
    try:
        return read_dataset(path)
    except InputError:
        if path.is_file() or (path / "dataset.json").is_file():
            raise
        return None


def _of_dataset(dataset: Dataset, folder: Path) -> Project:
    scans = [case.image_path for case in dataset.cases]
    project = Project.create(folder, scans, structures=named_structures(dataset.labels))
    _import_labels(dataset, project)
    return project


def _import_labels(dataset: Dataset, project: Project) -> None:
    """Copy the labels of scans without a mask. A value must mean the same in the data set and in the project."""
    names, ignore, given = _names(project), dataset.ignore, specific_names(dataset.labels)
    done = {scan for (scan, _), name in names.items() if project.facts(name).version}
    cases = [one for one in dataset.labelled if one.image_path.resolve() in {scan for scan, _ in names} - done]
    known = {one.value: one.name for one in project.structures}
    table = StructureNames(known, source="the project", fixed=bool(given))
    if cases:
        table.match(Volume(np.zeros((1, 1, 1, 1), np.uint8), np.eye(4), path=Path(dataset.name), names=given))
    for case in cases:
        path = case.image_path.resolve()
        if (path, None) in names and case.label_path is not None:
            project.import_mask(names[path, None], case.label_path, ignore=ignore, table=table)
        else:  # a film
            for image, label in read_examples(case, ignore=ignore):
                project.import_mask(_name_of(names, path, image.frame), label, ignore=ignore, table=table)


def _names(project: Project) -> dict[tuple[Path, int | None], str]:
    """(scan, frame) -> name of the case."""
    return {(case.scan.resolve(), case.frame): case.name for case in project.cases()}


def _name_of(names: dict[tuple[Path, int | None], str], scan: Path, frame: int | None) -> str:
    if (scan, frame) not in names:
        raise InputError(f"{scan}: its labels are not of the frames that the workbench shows", "open the scans alone")
    return names[scan, frame]


def _of_run(run: Path, folder: Path) -> Project:
    """Return a project of the scans of a run, with its results as drafts."""
    record, results = read_run(run)
    done = [result for result in results if result.status == "done" and result.labels and len(result.inputs) == 1]
    scans = [Path(result.inputs[0]) for result in done]
    missing = next((scan for scan in scans if not scan.exists()), None)
    if not scans or missing is not None:
        raise InputError(f"{run}: {missing or 'no scan'} is missing", "give the folder of the scans instead")
    project = Project.create(folder, scans, structures=named_structures(learned_names(record)))
    case_of = _names(project)
    for result in done:
        path, scan = run / str(result.labels), Path(result.inputs[0]).resolve()
        film = open_film(path, is_label=True)
        expected = [value for value in result.predicted_dice.values() if value is not None]
        reasons = "; ".join(result.flags[:3])
        for volume in [read_label(path)] if film is None else film.frames():
            project.write_draft(
                _name_of(case_of, scan, volume.frame), volume.data[0], reason=reasons, segmenter=run.name,
                confidence=float(np.mean(expected)) if expected else None,
            )  # fmt: skip
    return project
