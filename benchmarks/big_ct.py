"""Peak memory of a 512 x 512 x 600 CT with 13 labels through the command line.

    python benchmarks/big_ct.py --runs runs/big_ct
    python benchmarks/big_ct.py --runs runs/huge_ct --slices 1200 --labels 20

Makes a support of 13 ellipsoids in a body (128 x 128 x 150 at 3 mm), adapts to it for a few steps, makes the same body
at 512 x 512 x 600 (0.75 mm), and segments that. Quality is beside the point here: memory and time are measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

LABELS = 13


@dataclass(frozen=True)
class Finished:
    """Seconds and peak resident memory of one child process."""

    seconds: float
    peak_gb: float


def call(arguments: list[str], log: Path) -> Finished:
    """Run ``medfewshot`` as a person would; stops where it fails."""
    begun = time.perf_counter()
    with log.open("w") as stream:
        child = subprocess.Popen([sys.executable, "-m", "medfewshot", *arguments], stdout=stream, stderr=stream)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"medfewshot {' '.join(arguments[:2])} ... ended with {child.returncode}; see {log}")
    return Finished(time.perf_counter() - begun, usage.ru_maxrss / 1024**2)


def body(shape: tuple[int, int, int], count: int = LABELS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A CT-like volume (int16, HU) and its labels (uint8): 13 ellipsoids in a cylinder of soft tissue."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    image = np.full(shape, -1000, dtype=np.int16)
    image[np.broadcast_to(x**2 + y**2 < 0.7, shape)] = 40
    labels = np.zeros(shape, dtype=np.uint8)
    for label in range(1, count + 1):
        cx, cy, cz = [*rng.uniform(-0.5, 0.5, 2).tolist(), rng.uniform(-0.7, 0.7)]
        rx, ry, rz = rng.uniform(0.1, 0.25, 3)
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1
        labels[inside], image[inside] = label, 60 + 15 * label
    for index in range(shape[2]):
        image[..., index] += rng.normal(0, 12, shape[:2]).astype(np.int16)
    return image, labels


def write(folder: Path, name: str, shape: tuple[int, int, int], spacing_mm: float, count: int) -> tuple[Path, Path]:
    image, labels = body(shape, count)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    paths = folder / f"{name}.nii.gz", folder / f"{name}_seg.nii.gz"
    for path, data in zip(paths, (image, labels), strict=True):
        if not path.exists():
            nib.save(nib.Nifti1Image(data, affine), path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/big_ct"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--labels", type=int, default=LABELS)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    image, label = write(given.runs, "support", (128, 128, given.slices // 4), 3.0, given.labels)
    big, _ = write(given.runs, "big", (512, 512, given.slices), 0.75, given.labels)
    segmenter, out = given.runs / "segmenter", given.runs / "out"
    adapt = call(
        [
            "adapt",
            "--support",
            f"{image}={label}",
            "-o",
            str(segmenter),
            "--steps",
            str(given.steps),
            "--overwrite",
            "--device",
            "cpu",
        ],
        given.runs / "adapt.log",
    )
    segment = call(
        ["segment", str(big), "--segmenter", str(segmenter), "-o", str(out), "--overwrite", "--device", "cpu"],
        given.runs / "segment.log",
    )
    print(f"adapt: {adapt.seconds:.0f} s, peak {adapt.peak_gb:.2f} GB")
    size = f"512x512x{given.slices}, {given.labels} labels"
    print(f"segment {size}: {segment.seconds:.0f} s, peak {segment.peak_gb:.2f} GB")


if __name__ == "__main__":
    main()
