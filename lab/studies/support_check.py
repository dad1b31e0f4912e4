"""Does the check of supports name a wrong mask, and only a wrong one? Support-pool subjects alone.

    python -m lab.studies.support_check --data ../shared/data pairs/

``pairs/`` keeps the compared pairs of each data set (registration, minutes each); trials then take seconds. A trial
draws 3 to 5 supports. In half of the trials one mask is wrong: two structures are swapped, or it is the mask of another
subject. It is found if its scan, and no other, is named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.studies.pool import plan_draw
from medfewshot.episodes import fixed_split
from medfewshot.learners.atlas import MAX_LEFT_OUT, AtlasSegmenter
from medfewshot.mask_fit import mask_fit
from medfewshot.quality import check_supports
from medfewshot.registration import RegistrationOptions
from medfewshot.settings import PlanSettings
from medfewshot.structures import dice
from medfewshot.types import Support

SETS = {
    "abd-mr-chaos": ("MR", None, 7, (2, 3)),
    "Task04_Hippocampus": ("MR", None, 7, (1, 2)),
    "abd-ct-sabs": ("CT", (1, 2, 3, 6), 7, (2, 3)),
}
"""Data set -> modality, labels, subjects, and the two classes that are swapped: the kidneys, or front and back."""
OWN, SWAPPED, FOREIGN = KINDS = ("own", "swapped", "foreign")
Pairs = dict[str, list[float]]
Fits = dict[str, list[list[float]]]


def variants(labels: Sequence[Tensor], swap: tuple[int, int]) -> dict[str, list[Tensor]]:
    """Every mask as it is, with two classes swapped, and in its place the mask of the next subject."""
    first, second = swap
    swapped = [torch.where(label == first, second, torch.where(label == second, first, label)) for label in labels]
    foreign = [
        F.interpolate(labels[(n + 1) % len(labels)][None, None].float(), size=label.shape, mode="nearest")[0, 0].long()
        for n, label in enumerate(labels)
    ]
    return {OWN: list(labels), SWAPPED: swapped, FOREIGN: foreign}


def compare(
    support: Support, masks: dict[str, list[Tensor]], one: int, voxels: int
) -> Iterator[tuple[str, list[float]]]:
    """Yield ``subject kind other kind`` and the Dice per structure of subject ``one``, carried over from the other."""
    query = support.images[one]
    others = [n for n in range(support.shots) if n != one]
    for batch in (others[at : at + MAX_LEFT_OUT] for at in range(0, len(others), MAX_LEFT_OUT)):
        atlases = {
            kind: AtlasSegmenter(
                [support.images[n] for n in batch],
                [masks[kind][n] for n in batch],
                classes=support.classes,
                spacing_mm=support.spacing,
                options=RegistrationOptions(voxels=voxels),
            )
            for kind in KINDS
        }
        transform, _ = atlases[OWN].register(query.float())
        for place, other in enumerate(batch):
            for kind, other_kind in [(OWN, kind) for kind in KINDS] + [(kind, OWN) for kind in KINDS[1:]]:
                carried = atlases[other_kind].carried_label(place, transform, query.shape[1:])
                truth = masks[kind][one]
                values = [dice(carried == index, truth == index) for index in range(1, support.classes)]
                yield f"{one} {kind} {other} {other_kind}", values


def trial(pairs: Pairs, fits: Fits, shots: Sequence[int], kinds: Sequence[str]) -> list[str]:
    """Return the messages of the check for subjects ``shots`` whose masks are of ``kinds``."""
    own = [np.array(fits[f"{one} {kind}"]) for one, kind in zip(shots, kinds, strict=True)]
    compared = [
        {"support": a, "from": b, "dice": pairs[f"{shots[a]} {kinds[a]} {shots[b]} {kinds[b]}"]}
        for a in range(min(len(shots), MAX_LEFT_OUT))
        for b in [n for n in range(len(shots)) if n != a][:MAX_LEFT_OUT]
    ]
    names = [str(n) for n in shots]
    return [row["message"] for row in check_supports(compared, names, [f"s{n}" for n in range(len(own[0]))], own)]


def count(pairs: Pairs, fits: Fits, subjects: int, kind: str, trials: int) -> tuple[int, int, int]:
    """Return in how many trials the wrong mask alone is named, it and others, and any mask that is right."""
    random = np.random.default_rng(0)
    found = beside = false = 0
    for _ in range(trials):
        shots = random.choice(subjects, int(random.integers(3, 6)), replace=False).tolist()
        wrong = int(random.integers(len(shots)))
        kinds = [kind if n == wrong else OWN for n in range(len(shots))]
        named = [n for n, message in enumerate(trial(pairs, fits, shots, kinds)) if message]
        found += wrong in named
        beside += wrong in named and len(named) > 1
        false += kind == OWN and bool(named)
    return found, beside, false


def read_pairs(data: Path, folder: Path, dataset: str, voxels: int) -> tuple[Pairs, Fits]:
    """Read the compared pairs of a data set, or register them; and how its masks fit their scans."""
    modality, labels, subjects, swap = SETS[dataset]
    paths = [folder / f"{dataset}-{one}.json" for one in range(subjects)]
    if not all(path.is_file() for path in [*paths, folder / f"{dataset}-fits.json"]):
        chosen = list(fixed_split(dataset)[0])[:subjects]
        support = plan_draw(data, dataset, chosen, [], PlanSettings(modality=modality, labels=labels)).support
        masks = variants(support.labels, swap)
        folder.mkdir(parents=True, exist_ok=True)
        fits = {
            f"{one} {kind}": mask_fit(support.images[one], masks[kind][one], support.classes).tolist()
            for one in range(subjects)
            for kind in KINDS
        }
        (folder / f"{dataset}-fits.json").write_text(json.dumps(fits))
        for one, path in enumerate(paths):
            if not path.is_file():
                path.write_text(json.dumps(dict(compare(support, masks, one, voxels))))
    pairs = {key: values for path in paths for key, values in json.loads(path.read_text()).items()}
    return pairs, json.loads((folder / f"{dataset}-fits.json").read_text())


def main() -> None:
    """Print a table: data set, kind of mask, trials, wrong masks named, trials with a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where the compared pairs are kept")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--voxels", type=int, default=RegistrationOptions.voxels, help="grid of the registration")
    parser.add_argument("--only", nargs="*", default=list(SETS))
    given = parser.parse_args()
    print("| data set | masks | trials | wrong one named | others named too |\n|---|---|---|---|---|")
    for dataset in given.only:
        pairs, fits = read_pairs(given.data, given.folder, dataset, given.voxels)
        for kind, trials in ((SWAPPED, 20), (FOREIGN, 20), (OWN, 40)):
            found, beside, false = count(pairs, fits, SETS[dataset][2], kind, trials)
            wrong = "-" if kind == OWN else f"{found}"
            print(f"| {dataset} | {kind} | {trials} | {wrong} | {false if kind == OWN else beside} |", flush=True)


if __name__ == "__main__":
    main()
