"""Peak memory of a 512 x 512 x 600 CT with 13 labels through the command line.

    python -m lab.studies.big_ct
    python -m lab.studies.big_ct --slices 1200 --labels 20 --steps 2

Makes a support of 13 ellipsoids in a body (128 x 128 x 150 at 3 mm), adapts to it for a few steps, makes the same body
at 512 x 512 x 600 (0.75 mm), and segments that. Quality is beside the point here: memory and time are measured.
``--support-mm`` gives the support, and with it the grid on which the network works, another resolution. All files lie
in a temporary folder that is removed, or stay in ``--runs``. A child that needs more than ``--most-gb`` is ended.

Memory is the high-water mark that Linux keeps of the child's own address space (VmHWM). The usual ``ru_maxrss`` would
not do: a child takes over its parent's mark, and the parent makes the volumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

LABELS = 13
MAX_GB = 12.0
FIELD_MM = 384.0
"""Edge of a slice: 512 voxels of 0.75 mm."""


@dataclass(frozen=True)
class Finished:
    """Seconds and peak resident memory of one child process."""

    seconds: float
    peak_gb: float


def call(arguments: list[str], log: Path, most_gb: float = MAX_GB) -> Finished:
    """Run ``medfewshot`` as a person would; stops where it fails or needs more than ``most_gb``."""
    begun, peak = time.perf_counter(), 0.0
    with log.open("w") as stream:
        child = subprocess.Popen([sys.executable, "-m", "medfewshot", *arguments], stdout=stream, stderr=stream)
        while child.poll() is None:
            peak = max(peak, peak_gb(child.pid))
            if peak > most_gb:
                child.kill()
                child.wait()
                raise SystemExit(f"medfewshot {arguments[0]}: needed more than {most_gb} GB and was ended; see {log}")
            time.sleep(0.2)
    if child.returncode != 0:
        raise SystemExit(f"medfewshot {arguments[0]}: ended with {child.returncode}:\n{log.read_text()[-2000:]}")
    return Finished(time.perf_counter() - begun, peak)


def peak_gb(process: int) -> float:
    """High-water mark of a living process; 0 once it has none."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return marks[0] / 1024**2 if marks else 0.0


def body(shape: tuple[int, int, int], count: int = LABELS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a CT-like volume (int16, HU) and its labels (uint8) slice by slice: ellipsoids in soft tissue."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    x, y = x[:, None], y[None]
    places = [
        (*rng.uniform(-0.5, 0.5, 2).tolist(), rng.uniform(-0.7, 0.7), *rng.uniform(0.1, 0.25, 3)) for _ in range(count)
    ]
    image = np.empty(shape, dtype=np.int16, order="F")
    labels = np.zeros(shape, dtype=np.uint8, order="F")
    tissue = np.where(x**2 + y**2 < 0.7, 40, -1000).astype(np.int16)
    for index, height in enumerate(z):
        plane, marks = tissue.copy(), labels[..., index]
        for label, (cx, cy, cz, rx, ry, rz) in enumerate(places, start=1):
            rest = 1 - ((height - cz) / rz) ** 2
            if rest > 0:
                inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < rest
                marks[inside], plane[inside] = label, 60 + 15 * label
        image[..., index] = plane + rng.normal(0, 12, shape[:2]).astype(np.int16)
    return image, labels


def write(folder: Path, name: str, shape: tuple[int, int, int], spacing_mm: float, count: int) -> tuple[Path, Path]:
    """Write an image and its label map unless they exist; return both paths."""
    paths = folder / f"{name}.nii.gz", folder / f"{name}_seg.nii.gz"
    if all(path.exists() for path in paths):
        return paths
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    for path, data in zip(paths, body(shape, count), strict=True):
        nib.save(nib.Nifti1Image(data, affine), path)
    return paths


def measure(folder: Path, given: argparse.Namespace) -> None:
    """Adapt and segment, and print time and peak memory of each."""
    edge, slices = round(FIELD_MM / given.support_mm), round(given.slices * 0.75 / given.support_mm)
    image, label = write(folder, "support", (edge, edge, slices), given.support_mm, given.labels)
    big, _ = write(folder, "big", (512, 512, given.slices), 0.75, given.labels)
    segmenter, out = folder / "segmenter", folder / "out"
    to_cpu = ["--overwrite", "--device", "cpu"]
    words = ["adapt", "--support", f"{image}={label}", "-o", str(segmenter), "--steps", str(given.steps), *to_cpu]
    weights = ["--weights", given.weights] if given.weights else []
    adapt = call([*words, *weights], folder / "adapt.log", given.most_gb)
    print(f"adapt to {edge}x{edge}x{slices}: {adapt.seconds:.0f} s, peak {adapt.peak_gb:.2f} GB", flush=True)
    words = ["segment", str(big), "--segmenter", str(segmenter), "-o", str(out), *to_cpu]
    segment = call(words, folder / "segment.log", given.most_gb)
    result = nib.load(next(out.glob("*.nii.gz")))
    assert result.shape == (512, 512, given.slices), result.shape
    size = f"512x512x{given.slices}, {given.labels} labels"
    print(f"segment {size}: {segment.seconds:.0f} s, peak {segment.peak_gb:.2f} GB")


def main() -> None:
    """Run the study in a temporary or given folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="keep everything in this folder (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--labels", type=int, default=LABELS)
    parser.add_argument("--support-mm", type=float, default=3.0, help="voxel size of the support")
    parser.add_argument("--weights", default="none", help="as for medfewshot adapt")
    parser.add_argument("--most-gb", type=float, default=MAX_GB, help="end a child that needs more")
    given = parser.parse_args()
    if given.runs is not None:
        given.runs.mkdir(parents=True, exist_ok=True)
        measure(given.runs, given)
        return
    with tempfile.TemporaryDirectory(prefix="big_ct_") as folder:
        measure(Path(folder), given)


if __name__ == "__main__":
    main()
