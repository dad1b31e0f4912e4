"""Speed of each stage in processor seconds of one core, and relative to a fixed reference workload.

    python -m lab.studies.speed                       # print the table; minutes
    python -m lab.studies.speed --check               # exit code 1 if a ratio is 1.5 times the recorded one
    python -m lab.studies.speed --record              # write lab/records/speed.csv; then run python -m lab.tables
    python -m lab.studies.speed --only matching "one scan, 5 labelled"

The reference workload is a convolution and a copy. It runs before and after each stage, in every round. The ratio of a
stage to it is similar on other machines, while seconds are not. The scans are synthetic: five labelled ones and a new
one of about 128 x 112 x 80 voxels. Adaptation has no time limit. Stages: segmentation of one scan after 5 and after 1
labelled ones, matching (registration of five scans to one), restoring (to the plan and back, three times), metrics
(twenty times), training (20 steps of the network), adaptation of quality draft, and of quality standard with a quarter
of its steps.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.bundle import VolumeSegmenter
from medfewshot.datasets import read_dataset
from medfewshot.evaluation import evaluate_arrays
from medfewshot.inference import segment_volume
from medfewshot.io import read_image, read_label
from medfewshot.learners import make_learner
from medfewshot.learners.base import FunctionSegmenter
from medfewshot.planning import make_support, to_plan
from medfewshot.registration import register
from medfewshot.settings import AdaptSettings
from medfewshot.synthetic import make_ct_cohort
from medfewshot.types import Case, Support, Volume
from medfewshot.workflow import LabelledScans, adapt, read_supports

RECORD = Path(__file__).resolve().parents[1] / "records" / "speed.csv"
SHOTS, STEPS, ROUNDS = 5, 20, 3
SLOWER = 1.5
"""A ratio that grows by this factor fails the check."""
SETTINGS = AdaptSettings(device="cpu", budget_seconds=None)
STANDARD_STEPS = 100
"""A quarter of the default's steps: each step takes as long as another."""
ONCE = ("draft", f"standard, {STANDARD_STEPS} steps")
"""Long stages: they run in the first round alone."""


class Workload:
    """Reference: convolutions of one patch, then copies of 64 MB."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.patch = torch.rand(1, 16, 48, 48, 48, generator=generator)
        self.kernel = torch.rand(16, 16, 3, 3, 3, generator=generator)
        self.block = torch.rand(16 * 2**20, generator=generator)

    def __call__(self) -> None:
        """Run it once."""
        for _ in range(8):
            F.conv3d(self.patch, self.kernel, padding=1)
        for _ in range(12):
            self.block.clone()


@dataclass(frozen=True)
class Bench:
    """The synthetic scans and the stages that are timed; nothing is computed before a stage needs it.

    Args:
        folder: Where the scans are written.
    """

    folder: Path

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The labelled scans and the new one."""
        return tuple(read_dataset(make_ct_cohort(self.folder, SHOTS + 1)).labelled)

    @cached_property
    def supports(self) -> LabelledScans:
        """The labelled scans."""
        return read_supports(self.cases[:SHOTS])

    @cached_property
    def query(self) -> Volume:
        """The new scan."""
        return read_image(self.cases[SHOTS].image_paths)

    @cached_property
    def five(self) -> VolumeSegmenter:
        """The default segmenter of five scans, trained for a few steps; its labels do not matter."""
        return adapt(self.supports, SETTINGS.replace(steps=STEPS))

    @cached_property
    def one(self) -> VolumeSegmenter:
        """The same of one scan."""
        return adapt(read_supports(self.cases[:1]), SETTINGS.replace(steps=STEPS))

    @cached_property
    def support(self) -> Support:
        """The labelled scans on the planned grid."""
        return make_support(self.supports.images, self.supports.labels, self.five.plan)

    @cached_property
    def planned(self) -> Tensor:
        """The new scan on the planned grid."""
        return to_plan(self.query, self.five.plan).image.float()

    @cached_property
    def truth(self) -> np.ndarray:
        """Its label map."""
        return read_label(Path(str(self.cases[SHOTS].label_path))).data[0]

    def prepare(self) -> None:
        """Compute all that the stages share."""
        _ = self.five, self.one, self.support, self.planned, self.truth

    def match(self) -> None:
        """Register five scans to the new one."""
        register([image.float() for image in self.support.images], self.planned, self.five.plan.spacing_mm)

    def restore(self) -> None:
        """Bring the scan to the planned grid, and fixed logits back to the original grid; three times."""
        plan, generator = self.five.plan, torch.Generator().manual_seed(0)
        logits = torch.rand(1, plan.classes, *self.planned.shape[1:], generator=generator)
        for _ in range(3):
            segment_volume(self.query, plan, FunctionSegmenter(lambda _: logits, whole_volume=True))

    def score(self) -> None:
        """Compute every metric of every structure, of labels that are two voxels off; twenty times."""
        moved = np.roll(self.truth, 2, axis=0)
        for _ in range(20):
            evaluate_arrays(moved, self.truth, self.query.spacing_mm, labels=self.five.plan.labels)

    def train(self) -> None:
        """Train the network alone for a few steps."""
        make_learner(SETTINGS.replace(learner="finetune", weights="default", steps=STEPS)).adapt(self.support)

    def stages(self) -> dict[str, Callable[[], object]]:
        """Return what is timed, by name."""
        return {
            f"one scan, {SHOTS} labelled": lambda: self.five.segment(self.query),
            "one scan, 1 labelled": lambda: self.one.segment(self.query),
            "matching": self.match,
            "restoring": self.restore,
            "metrics": self.score,
            "training": self.train,
            "draft": lambda: adapt(self.supports, SETTINGS.replace(quality="draft")),
            ONCE[1]: lambda: adapt(self.supports, SETTINGS.replace(steps=STANDARD_STEPS)),
        }


def seconds_of(work: Callable[[], object]) -> float:
    """Return the processor seconds of ``work``."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure(
    stages: Mapping[str, Callable[[], object]], reference: Callable[[], object], *, rounds: int
) -> dict[str, tuple[float, float]]:
    """Time all stages in turn, the reference before and after each.

    Args:
        stages: Name -> work.
        reference: The workload to compare with.
        rounds: How often; the stages of ``ONCE`` run in the first round alone.

    Returns:
        Name -> median seconds and median ratio; ``reference`` is the first row.
    """
    seconds: dict[str, list[float]] = {"reference": []}
    ratios: dict[str, list[float]] = {"reference": [1.0]}
    seconds_of(reference)  # the first run also allocates memory
    for number in range(rounds):
        for name, work in stages.items():
            if number and name in ONCE:
                continue
            before, own, after = seconds_of(reference), seconds_of(work), seconds_of(reference)
            seconds["reference"] += [before, after]
            seconds.setdefault(name, []).append(own)
            ratios.setdefault(name, []).append(2 * own / (before + after))
            print(f"{own:8.2f} s, {ratios[name][-1]:8.2f} times the reference: {name}", file=sys.stderr, flush=True)
    return {name: (statistics.median(seconds[name]), statistics.median(ratios[name])) for name in seconds}


def slower(found: Mapping[str, tuple[float, float]], recorded: Mapping[str, float]) -> list[str]:
    """List the stages whose ratio grew by ``SLOWER`` or more, and those without a record."""
    texts = [f"{name}: no record" for name in found if name not in recorded]
    for name, (_, ratio) in found.items():
        if name in recorded and ratio >= SLOWER * recorded[name]:
            texts.append(f"{name}: {ratio:.2f} times the reference, recorded {recorded[name]:.2f}")
    return texts


def read_record(path: Path = RECORD) -> dict[str, float]:
    """Return stage -> recorded ratio."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["stage"]: float(row["ratio"]) for row in csv.DictReader(stream)}


def write_record(found: Mapping[str, tuple[float, float]], path: Path = RECORD) -> None:
    """Write stage, seconds and ratio, and the machine in every row."""
    busy = "busy" if os.getloadavg()[0] > 1.5 else "idle"
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {busy}"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["stage", "seconds", "ratio", "machine"])
        writer.writerows([name, f"{took:.2f}", f"{ratio:.3f}", machine] for name, (took, ratio) in found.items())


def main(words: Sequence[str] | None = None) -> int:
    """Time the stages and print a table; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="time these alone")
    parser.add_argument("--check", action="store_true", help="compare with the record")
    parser.add_argument("--record", action="store_true", help="replace the record")
    given = parser.parse_args(words)
    if given.record and given.only:
        parser.error("a record has all stages: leave out --only")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        bench = Bench(Path(folder))
        stages = bench.stages()
        if unknown := set(given.only or ()) - set(stages):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(stages)}")
        print("preparing two segmenters", file=sys.stderr, flush=True)
        bench.prepare()
        found = measure(
            {name: work for name, work in stages.items() if name in (given.only or stages)},
            Workload(),
            rounds=given.rounds,
        )
    print(f"{'stage':<24}{'seconds':>10}{'ratio':>10}")
    for name, (took, ratio) in found.items():
        print(f"{name:<24}{took:>10.2f}{ratio:>10.2f}")
    if given.record:
        write_record(found)
    problems = slower(found, read_record()) if given.check else []
    print(*(f"SLOWER: {text}" for text in problems), sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
