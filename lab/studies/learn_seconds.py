"""How long does the workbench take from *Learn* to a draft? A project of four scans of a data set's support pool.

    MEDFEWSHOT_DATA=scans/ python -m lab.studies.learn_seconds abd-mr-chaos Task04_Hippocampus

Three slices of the first scan are drawn while the second is open. Then the three worst slices of its draft are
corrected, the third scan is open, and *Learn* is pressed again. Printed are the seconds until each new draft of the
open scan, until each stage begins, and those of the whole adaptation in the same run. Leave the machine idle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from medfewshot.bundle import load_segmenter
from medfewshot.datasets import read_dataset
from medfewshot.episodes import fixed_split
from medfewshot.io import read_label
from medfewshot.structures import dice
from medfewshot.workbench import Jobs, Project, Structure

SCANS, PLACES, CORRECTED = 4, (0.25, 0.5, 0.75), 3


def learn(jobs: Jobs, project: Project, case: str) -> None:
    """Learn, and print the seconds of every stage and of every new draft of ``case``."""
    before = seen = project.case(case).draft
    times: dict[str, float] = {}
    stage, begun = "", time.perf_counter()
    jobs.start_learn(open_case=case)
    while True:
        state, draft = jobs.state(), project.case(case).draft
        now = round(time.perf_counter() - begun, 1)
        if draft > seen:
            seen = draft
            times[f"draft {draft - before}"] = now
        if state["stage"] != stage:
            stage = state["stage"]
            times[f"stage {stage}"] = now
        if not state["running"]:
            break
        time.sleep(0.02)
    current = json.loads((project.folder / "segmenters/current.json").read_text())["segmenter"]
    record = load_segmenter(project.folder / "segmenters" / current).record
    print(state["status"], state["error"], *state["warnings"], sep="; ")
    print(json.dumps(times), "the end:", now, "whole adaptation:", record["seconds"], flush=True)


def run(name: str, folder: Path) -> None:
    """Measure one data set in an empty folder."""
    data = read_dataset(Path(os.environ["MEDFEWSHOT_DATA"]) / name)
    cases = sorted(data.labelled, key=lambda case: case.image_path.name)
    pool = [cases[number] for number in list(fixed_split(name)[0])[:SCANS]]
    (folder / "scans").mkdir()
    for number, case in enumerate(pool):
        shutil.copy(case.image_path, folder / "scans" / f"s{number}.nii.gz")
    structures = [Structure(text, value, "#ff0000") for value, text in data.labels.items()]
    project = Project.create(folder / "project", [folder / "scans"], structures=structures)
    truth = [read_label(case.label_path).data[0].astype(np.uint8) for case in pool if case.label_path is not None]
    shown = np.flatnonzero(truth[0].any(axis=(0, 1)))
    drawn = [int(shown[int(len(shown) * place)]) for place in PLACES]
    mask = np.zeros_like(truth[0])
    mask[..., drawn] = truth[0][..., drawn]
    project.save_mask("s0", mask, version=0, drawn=drawn, axis=2)
    jobs = Jobs(project)
    print(f"{name}: {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    learn(jobs, project, "s1")
    fixed = np.array(project.read_draft("s1"))
    worst = np.argsort(-(fixed != truth[1]).sum(axis=(0, 1)), kind="stable")[:CORRECTED]
    fixed[..., worst] = truth[1][..., worst]
    project.save_mask("s1", fixed, version=0)
    learn(jobs, project, "s2")
    for number in range(1, SCANS):
        draft = project.read_draft(f"s{number}")
        print(f"s{number}: Dice {np.mean([dice(draft == v, truth[number] == v) for v in data.labels]):.3f}")


def main() -> None:
    """Measure the data sets of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("datasets", nargs="+", metavar="DATA_SET")
    for name in parser.parse_args().datasets:
        with tempfile.TemporaryDirectory(prefix="learn_seconds_") as folder:
            run(name, Path(folder))


if __name__ == "__main__":
    main()
