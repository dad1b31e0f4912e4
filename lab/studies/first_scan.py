"""Is the most typical scan a better first example than a random one? Support-pool subjects alone.

    python -m lab.studies.support_check --data ../shared/data pairs/      # registers every pair of subjects
    python -m lab.studies.first_scan --data ../shared/data pairs/

The worth of a scan is the mean Dice of all others if registration segments them from it alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lab.studies.support_check import OWN, SETS, read_pairs
from medfewshot.io import read_image
from medfewshot.registration import RegistrationOptions
from medfewshot.workbench.choice import coarse_picture, mean_distances


def main() -> None:
    """Print a table: the worth of the most typical scan, and the mean, best and worst of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="pairs that lab.studies.support_check compared")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(SETS))
    given = parser.parse_args()
    print("| data set | most typical | random (mean) | best | worst |\n|---|---|---|---|---|")
    for dataset in given.only:
        count = SETS[dataset][2]
        pairs, _ = read_pairs(given.data, given.folder, dataset, RegistrationOptions.voxels)
        dice = [
            [np.array(pairs[f"{query} {OWN} {one} {OWN}"], float) for query in range(count) if query != one]
            for one in range(count)
        ]
        worth = np.array([np.nanmean(one) for one in dice])
        files = sorted((given.data / dataset / "imagesTr").glob("*.nii.gz"))[:count]
        typical = int(mean_distances([coarse_picture(read_image(path)) for path in files]).argmin())
        shown = (worth[typical], worth.mean(), worth.max(), worth.min())
        print(f"| {dataset} | {' | '.join(f'{value:.3f}' for value in shown)} |", flush=True)


if __name__ == "__main__":
    main()
