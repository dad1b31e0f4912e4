"""Registration packages against ``medfewshot.registration``: Dice of transferred labels and seconds a pair, CHAOS.

    python -m lab.studies.registration_packages prepare --data ../shared/data --runs runs/registration
    OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 taskset -c 1 \
        python -m lab.studies.registration_packages measure --runs runs/registration

Pairs of support-pool subjects on the planned grid: the label of one goes to the other, through one transform. Packages
are optional (antspyx, itk-elastix, fireants, convexAdam); what is not installed is skipped. ``measure`` needs NumPy,
torch and ``medfewshot.registration`` alone, so that the packages may live in an environment of their own. Each package
runs with its own defaults, an affine step first where it has one; loading is not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

DRAW, SHOTS, PAIRS = 100, 5, 6
MIN_FIREANTS = 32
"""Voxels an axis: with fewer its pyramid stops with an error."""
Transfer = Callable[[np.ndarray, np.ndarray, np.ndarray, tuple[float, ...]], np.ndarray]
"""Query image, support image, support label, spacing in mm -> label on the query's grid."""


def ours(query: np.ndarray, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Transfer a label with ``medfewshot.registration``."""
    import torch
    import torch.nn.functional as F

    from medfewshot.registration import register

    moving, fixed = torch.from_numpy(image)[None], torch.from_numpy(query)[None]
    transform, _ = register([moving], fixed, spacing)
    one_hot = torch.stack([torch.from_numpy(label == index).float() for index in range(int(label.max()) + 1)])
    warped = F.grid_sample(one_hot[None], transform.grid(query.shape), padding_mode="border", align_corners=False)
    return warped[0].argmax(0).numpy()


def with_ants(kind: str) -> Transfer:
    """Return a transfer with ANTs; ``kind`` is its type of transform."""

    def transfer(query: np.ndarray, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
        import ants

        fixed, moving, mask = (ants.from_numpy(a.astype(np.float32), spacing=spacing) for a in (query, image, label))
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(fixed, moving, type_of_transform=kind, outprefix=f"{folder}/t", random_seed=0)
            warped = ants.apply_transforms(fixed, mask, found["fwdtransforms"], interpolator="genericLabel")
        return np.rint(warped.numpy()).astype(np.int64)

    return transfer


def with_elastix(query: np.ndarray, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Transfer a label with elastix."""
    import itk

    def as_image(array: np.ndarray) -> object:
        made = itk.image_from_array(np.ascontiguousarray(array, dtype=np.float32))
        made.SetSpacing(spacing[::-1])  # ITK counts axes from the last
        return made

    parameters = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(kind))
    _, found = itk.elastix_registration_method(
        as_image(query), as_image(image), parameter_object=parameters, number_of_threads=1, log_to_console=False
    )
    for stage in range(found.GetNumberOfParameterMaps()):
        found.SetParameter(stage, "FinalBSplineInterpolationOrder", "0")
    return np.rint(itk.array_from_image(itk.transformix_filter(as_image(label), found))).astype(np.int64)


def with_fireants(query: np.ndarray, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Transfer a label with FireANTs."""
    import SimpleITK as sitk
    from fireants.io import BatchedImages, Image
    from fireants.registration.affine import AffineRegistration
    from fireants.registration.greedy import GreedyRegistration

    def as_batch(array: np.ndarray, mode: str | None = None) -> BatchedImages:
        array = np.pad(array, _margins(array, np.maximum(array.shape, MIN_FIREANTS)), mode="edge")
        made = sitk.GetImageFromArray(np.ascontiguousarray(array, dtype=np.float32))
        made.SetSpacing(spacing[::-1])
        made.SetOrigin([-(n - 1) / 2 * s for n, s in zip(made.GetSize(), spacing[::-1], strict=True)])
        one = Image(made, device="cpu")
        one.interpolation_mode = mode
        return BatchedImages([one])

    fixed, moving = as_batch(query), as_batch(image)
    affine = AffineRegistration(
        [4, 2, 1],
        [200, 100, 50],
        fixed,
        moving,
        loss_type="cc",
        optimizer="Adam",
        optimizer_lr=3e-3,
        progress_bar=False,
    )
    affine.optimize()
    greedy = GreedyRegistration(
        [4, 2, 1], [200, 100, 25], fixed, moving, loss_type="cc", cc_kernel_size=5, deformation_type="compositive",
        optimizer="Adam", optimizer_lr=0.5, smooth_grad_sigma=1.0, smooth_warp_sigma=0.25, progress_bar=False,
        init_affine=affine.get_affine_matrix().detach(),
    )  # fmt: skip
    greedy.optimize()
    warped = greedy.evaluate(fixed, as_batch(label, "nearest"))[0, 0].detach().numpy()
    return _inner(warped, query).astype(np.int64)


def with_convex_adam(query: np.ndarray, image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Transfer a label with ConvexAdam."""
    from convexAdam.convex_adam_MIND import convex_adam_pt
    from scipy.ndimage import map_coordinates

    # It knows no grids: both arrays must be of one shape, and are laid centre on centre.
    shape = np.maximum(query.shape, image.shape)
    query_padded, image_padded, label_padded = (
        np.pad(a, _margins(a, shape), mode="edge") for a in (query, image, label)
    )
    field = np.asarray(convex_adam_pt(query_padded, image_padded))
    points = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")) + np.moveaxis(field, -1, 0)
    warped = map_coordinates(label_padded, points, order=0, mode="nearest")
    return _inner(warped, query).astype(np.int64)


def _inner(padded: np.ndarray, original: np.ndarray) -> np.ndarray:
    margins = _margins(original, np.array(padded.shape))
    return padded[tuple(slice(low, n - high) for n, (low, high) in zip(padded.shape, margins, strict=True))]


def _margins(array: np.ndarray, shape: np.ndarray) -> list[tuple[int, int]]:
    missing = [int(n - m) for n, m in zip(shape, array.shape, strict=True)]
    return [(n // 2, n - n // 2) for n in missing]


METHODS: dict[str, tuple[str, Transfer]] = {
    "medfewshot": ("torch", ours),
    "antspyx SyN": ("antspyx", with_ants("SyN")),
    "antspyx SyNCC": ("antspyx", with_ants("SyNCC")),
    "itk-elastix affine, bspline": ("itk-elastix", with_elastix),
    "fireants affine, greedy": ("fireants", with_fireants),
    "convexAdam MIND": ("convexAdam", with_convex_adam),
}
"""Name -> package and transfer."""


def prepare(data: Path, runs: Path) -> None:
    """Write pairs of scans on the planned grid to ``pairs.npz`` in ``runs``."""
    from lab.studies.pool import draw_from_pool

    draw = draw_from_pool(data, "abd-mr-chaos", SHOTS, DRAW, SHOTS)
    arrays: dict[str, np.ndarray] = {"spacing": np.array(draw.plan.spacing_mm)}
    for pair in range(PAIRS):
        support, query = pair % SHOTS, (pair + pair // SHOTS) % len(draw.images)
        arrays |= {
            f"query.{pair}": draw.images[query][0].numpy(),
            f"truth.{pair}": draw.labels[query].numpy(),
            f"image.{pair}": draw.support.images[support][0].numpy(),
            f"label.{pair}": draw.support.labels[support].numpy(),
        }
    runs.mkdir(parents=True, exist_ok=True)
    np.savez(runs / "pairs.npz", **arrays)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the structures of ``truth``."""
    scores = [
        2 * np.sum((found == i) & (truth == i)) / (np.sum(found == i) + np.sum(truth == i))
        for i in np.unique(truth)
        if i
    ]
    return float(np.mean(scores))


def measure(runs: Path, only: str | None, pairs: int) -> None:
    """Print mean Dice and seconds of each package."""
    arrays = np.load(runs / "pairs.npz")
    spacing = tuple(float(s) for s in arrays["spacing"])
    before = [dice(centred(arrays, pair), arrays[f"truth.{pair}"]) for pair in range(pairs)]
    print(f"| laid centre on centre | | {np.mean(before):.3f} | {min(before):.3f} | |", flush=True)
    for name, (package, transfer) in METHODS.items():
        if only is not None and not name.startswith(only):
            continue
        try:
            number = version(package)
        except PackageNotFoundError:
            continue
        scores, seconds = [], []
        for pair in range(pairs):
            inputs = [arrays[f"{part}.{pair}"] for part in ("query", "image", "label")]
            if pair == 0:  # loading and compiling are not timed
                transfer(*[part[::3, ::3] for part in inputs], (3 * spacing[0], 3 * spacing[1], spacing[2]))
            begun = time.perf_counter(), time.process_time()
            found = transfer(*inputs, spacing)
            seconds.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
            scores.append(dice(found, arrays[f"truth.{pair}"]))
            print(f"  {name} {pair}: {scores[-1]:.3f} {seconds[-1][1]:.1f} s", file=sys.stderr, flush=True)
        wall, core = np.mean(seconds, 0)
        print(f"| {name} | {number} | {np.mean(scores):.3f} | {min(scores):.3f} | {core:.1f} |", flush=True)
        record = {"version": number, "dice": scores, "seconds": seconds, "mean_wall": wall}
        (runs / f"{name.replace(' ', '-').replace(',', '')}.json").write_text(json.dumps(record, indent=1) + "\n")


def centred(arrays: dict[str, np.ndarray], pair: int) -> np.ndarray:
    """Return the support's label where it lies if nothing is registered: centre on centre."""
    label, shape = arrays[f"label.{pair}"], arrays[f"truth.{pair}"].shape
    found = np.zeros(shape, label.dtype)
    cut = [min(a, b) for a, b in zip(label.shape, shape, strict=True)]
    here, there = (
        tuple(slice((n - c) // 2, (n - c) // 2 + c) for n, c in zip(s, cut, strict=True)) for s in (shape, label.shape)
    )
    found[here] = label[there]
    return found


def main() -> None:
    """Prepare the pairs or measure the packages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "measure"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/registration"))
    parser.add_argument("--only", help="methods whose name begins so")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="the first so many; some packages take minutes")
    arguments = parser.parse_args()
    if arguments.what == "prepare":
        prepare(arguments.data, arguments.runs)
    else:
        measure(arguments.runs, arguments.only, arguments.pairs)


if __name__ == "__main__":
    main()
