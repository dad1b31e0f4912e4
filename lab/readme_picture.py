"""Draw the picture of README and home page: labelled scans, a new scan, and its segmentation.

    medfewshot adapt --support-dir supports.csv --labels 1,2,3,6 --modality CT --weights novel -o sabs/
    medfewshot segment DATA/abd-ct-sabs/imagesTr/sabs_24.nii.gz --segmenter sabs/ -o out/
    python lab/readme_picture.py --data DATA --supports sabs_03 sabs_04 sabs_06 sabs_07 sabs_09 \
        --scan sabs_24 --result out/sabs_24.nii.gz -o docs/images/example.jpg

The scans are abdominal CT of BTCV/Synapse (Landman et al. 2015), CC BY 4.0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from scipy import ndimage

COLOURS = {6: "#ffb454", 1: "#b794ff", 2: "#35d0ba", 3: "#ff6f91"}
NAMES = {6: "liver", 1: "spleen", 2: "right kidney", 3: "left kidney"}
WINDOW = (-125.0, 225.0)
"""Hounsfield units that are black and white."""
CARD, TEXT, FAINT = "#0e141b", "#f2f5f8", "#93a1b0"


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in RAS order and the edge of a voxel in mm."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), np.array(image.header.get_zooms()[:3])


def best_slice(labels: np.ndarray, axis: int) -> int:
    """Index of the slice that shows the smallest of the structures largest, as a product over structures."""
    others = tuple(a for a in range(3) if a != axis)
    areas = [(labels == value).sum(axis=others) for value in COLOURS]
    return int(np.argmax(np.prod([np.sqrt(area) + 1 for area in areas], axis=0)))


def plane(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Return a slice as a radiologist looks at it: the patient's right is on the left."""
    return np.take(volume, index, axis=axis).T[::-1, ::-1]


def body(image: np.ndarray) -> np.ndarray:
    """Return the patient without the table: the largest piece of a slice, holes filled."""
    pieces, _ = ndimage.label(ndimage.binary_opening(image > WINDOW[0] + 3, iterations=3))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(ndimage.binary_dilation(pieces == sizes.argmax(), iterations=3))


def box_of(mask: np.ndarray, margin: int = 2) -> tuple[slice, slice]:
    """Return the box around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + margin),
    )


def show(axes: Axes, image: np.ndarray, labels: np.ndarray | None, mm: tuple[float, float], *, fill: float) -> None:
    """Draw a slice; with labels, their fill and contours."""
    grey = np.clip((image - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1) * body(image)
    card = np.array(to_rgb(CARD))
    picture = card + grey[..., None] * (1 - card)
    extent = (0, image.shape[1] * mm[0], 0, image.shape[0] * mm[1])
    if labels is not None:
        for value, colour in COLOURS.items():
            inside = labels == value
            picture[inside] = (1 - fill) * picture[inside] + fill * np.array(to_rgb(colour))
    axes.imshow(picture, extent=extent, interpolation="bicubic", aspect="equal")
    if labels is not None:
        for value, colour in COLOURS.items():
            edge = ndimage.gaussian_filter((labels == value).astype(float), 0.6)
            if edge.max() > 0.5:
                axes.contour(edge[::-1], [0.5], colors=[colour], linewidths=1.6, extent=extent)
    axes.set_axis_off()


def main() -> None:
    """Draw the picture of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--supports", nargs=5, required=True)
    parser.add_argument("--scan", required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    folder = given.data / "abd-ct-sabs"

    figure = plt.figure(figsize=(13, 6.1), facecolor=CARD)
    for left, title in ((0.025, "5 labelled scans"), (0.36, "a new scan"), (0.69, "its segmentation")):
        figure.text(left, 0.925, title, color=TEXT, fontsize=18, weight="bold")
    places = [(0.02, 0.625), (0.17, 0.625), (0.02, 0.345), (0.17, 0.345), (0.02, 0.065)]
    for name, (left, bottom) in zip(given.supports, places, strict=True):
        image, mm = read(folder / "imagesTr" / f"{name}.nii.gz")
        labels, _ = read(folder / "labelsTr" / f"{name}.nii.gz")
        index = best_slice(labels, 2)
        flat, drawn = plane(image, 2, index), plane(labels, 2, index)
        box = box_of(body(flat))
        show(figure.add_axes((left, bottom, 0.14, 0.25)), flat[box], drawn[box], (mm[0], mm[1]), fill=0.45)

    image, mm = read(folder / "imagesTr" / f"{given.scan}.nii.gz")
    result, _ = read(given.result)
    for axis, bottom, height in ((2, 0.475, 0.425), (1, 0.03, 0.425)):
        index = best_slice(result, axis)
        flat, drawn = plane(image, axis, index), plane(result, axis, index)
        rows, columns = box_of(body(flat))
        if axis == 1:  # without the pelvis
            rows = box_of(drawn > 0, margin=14)[0]
        edges = (mm[0], mm[1]) if axis == 2 else (mm[0], mm[2])
        for left, shown in ((0.35, None), (0.68, drawn[rows, columns])):
            show(figure.add_axes((left, bottom, 0.31, height)), flat[rows, columns], shown, edges, fill=0.28)
    for y, (value, name) in zip((0.265, 0.21, 0.155, 0.1), NAMES.items(), strict=True):
        figure.text(0.183, y, "\u25cf", color=COLOURS[value], fontsize=15, va="center")
        figure.text(0.201, y, name, color=TEXT, fontsize=13, va="center")
    for x in (0.334, 0.672):
        figure.text(x, 0.5, "\u2192", color=FAINT, fontsize=30, ha="center", va="center")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.output, dpi=110, facecolor=CARD, pil_kwargs={"quality": 90, "subsampling": 0})


if __name__ == "__main__":
    main()
