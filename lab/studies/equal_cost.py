"""What is a kind of tasks, or a meta-learner, worth at equal cost? Trains variants alike and writes their benchmark.

    python -m lab.studies.equal_cost sources configs/train/regions.yaml -o runs/sources --minutes 60
    python -m lab.studies.equal_cost learners configs/train/regions.yaml -o runs/learners --minutes 60
    medfewshot benchmark runs/sources/compare.yaml

``sources`` trains without regions, without label maps, or without both. ``learners`` trains every meta-learner on the
same episodes. The benchmark adapts from each of them, and from the supplied weights that ``--weights`` names and all
continue from, on subjects of the support pools alone; SABS is fair only if these weights have not seen it (``open``).
An interrupted training continues. With ``--minutes``, nothing else may use the machine; ``--steps`` needs no
clock. ``--small`` is for one core of a CPU: small patches, two images to segment an episode, two episodes a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medfewshot.benchmark import BenchmarkConfig
from medfewshot.settings import read_yaml
from medfewshot.training import TrainSettings, train

SOURCES: dict[str, dict[str, Any]] = {
    "all": {},
    "no-regions": {"regions": None},
    "no-label-maps": {"label_maps": None},
    "procedural": {"regions": None, "label_maps": None},
}
"""Variant -> what changes in the settings of the tasks."""
LEARNERS: dict[str, dict[str, Any]] = {
    "finetune": {"learner": "finetune"},
    "prototype": {"learner": "prototype"},
    "ridge": {"learner": "ridge"},
    "fomaml": {"learner": "maml", "learner_options": {"variant": "fomaml", "inner_steps": 3}},
    "anil": {"learner": "maml", "learner_options": {"variant": "anil", "inner_steps": 3}},
    "protomaml": {"learner": "protomaml", "learner_options": {"second_order": False, "inner_steps": 3}},
}
"""Variant -> what changes in the settings of the run."""
SMALL: dict[str, dict[str, Any]] = {
    "synthetic": {"patches": [[48, 48, 48], [64, 64, 24], [40, 56, 40]]},
    "real": {"patches": [[56, 56, 56], [72, 72, 32], [48, 48, 48]]},
    "regions": {"patches": [[56, 56, 56], [72, 72, 32], [48, 48, 48]]},
    "label_maps": {"patches": [[48, 48, 48], [64, 64, 24]]},
}
"""Kind of tasks -> what ``--small`` changes in them."""
POOLS = (
    {"name": "chaos-pool", "folder": "abd-mr-chaos", "modality": "MR", "pool": (0, 7), "queries": (7, 10)},
    {"name": "mscmr-pool", "folder": "card-mr-mscmr", "modality": "MR", "pool": (0, 11), "queries": (11, 15)},
    {
        "name": "hippocampus-pool",
        "folder": "Task04_Hippocampus",
        "modality": "MR",
        "pool": (0, 50),
        "queries": (50, 60),
    },
    {
        "name": "sabs-pool",
        "folder": "abd-ct-sabs",
        "modality": "CT",
        "labels": [1, 2, 3, 6],
        "pool": (0, 11),
        "queries": (11, 15),
    },
)
"""Support-pool subjects of the fixed splits; choices are made on them, never on the query sets."""


def small(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a training file for one core of a CPU; patches of single data sets shrink too."""
    tasks = dict(content["tasks"])
    for kind, changes in SMALL.items():
        if tasks.get(kind):
            tasks[kind] = {**tasks[kind], **changes, "queries": 2}
            for options in tasks[kind].get("datasets", {}).values():
                if "patches" in options:
                    options["patches"] = [[min(edge, 80) for edge in patch] for patch in options["patches"]]
    few = {"episodes_per_step": 2, "ema": 0.95, "validate_every": 50, "validation_episodes": 8}
    return {**content, **few, "tasks": tasks}


def settings_of(base: TrainSettings, kind: str, changes: Mapping[str, Any], limit: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of one variant.

    Args:
        base: The settings that all variants share.
        kind: ``sources`` or ``learners``.
        changes: What the variant changes.
        limit: ``steps`` or ``minutes``, equal for all variants.
    """
    if kind == "sources":
        return base.replace(tasks=base.tasks.replace(**changes), **limit)
    return base.replace(**{"learner_options": {}, "start_options": {}, **changes}, **limit)


def benchmark_of(starts: Mapping[str, tuple[str, str]], steps: Sequence[int]) -> dict[str, Any]:
    """Return a benchmark file that adapts from every start with every number of steps.

    Args:
        starts: Variant -> its learner and its weights.
        steps: Numbers of adaptation steps.
    """
    learners = [
        {"name": f"{name}-{count}", "learner": learner, "weights": weights, "steps": count}
        for name, (learner, weights) in starts.items()
        for count in steps
    ]
    plan = {"protocol": "volume", "datasets": list(POOLS), "learners": learners, "shots": [1, 5], "seeds": [0, 1, 2]}
    return BenchmarkConfig.model_validate(plan).model_dump(mode="json", exclude_defaults=True)


def main() -> None:
    """Train the variants and write the benchmark file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("sources", "learners"))
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--adapt", type=int, nargs="+", default=(0, 25, 100, 400), help="numbers of adaptation steps")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pack", type=Path, help="made once by `medfewshot train --pack`, for all of the data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", help="supplied weights that every training continues from, e.g. open")
    parser.add_argument("--small", action="store_true", help="for one core of a CPU")
    given = parser.parse_args()
    content = read_yaml(given.config)
    if given.weights:
        content["weights"] = given.weights
    base = TrainSettings(**(small(content) if given.small else content))
    limit = {name: value for name in ("minutes", "steps") if (value := vars(given)[name]) is not None}
    if len(limit) != 1:
        parser.error("give --minutes or --steps")
    limit = {"minutes": None, **limit}
    variants = SOURCES if given.kind == "sources" else LEARNERS
    supplied = given.weights or "default"
    starts = {f"{supplied}-{name}": (name, supplied) for name in ("finetune", "ridge", "prototype")}
    for name in given.only or variants:
        folder = given.output / name
        settings = settings_of(base, given.kind, variants[name], limit)
        train(settings, folder, device=given.device, resume=folder.is_dir(), data=given.data, pack=given.pack)
        starts[name] = (settings.learner, str(folder / "start"))
    path = given.output / "compare.yaml"
    path.write_text(yaml.safe_dump(benchmark_of(starts, given.adapt), sort_keys=False), encoding="utf-8")
    print(f"medfewshot benchmark {path} -o {given.output / 'compare'}")


if __name__ == "__main__":
    main()
