"""Scans for the tutorials: MSD hippocampus if it is there, synthetic abdominal CT otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from medfewshot.datasets import read_dataset
from medfewshot.synthetic import make_ct_cohort
from medfewshot.types import Case

WORK = Path("work")
TASK = "Task04_Hippocampus"


def data_root() -> Path:
    return Path(os.environ.get("MEDFEWSHOT_DATA", "data"))


def download() -> None:
    """Fetch and unpack the hippocampus scans (27 MB) with MONAI's downloader; ``python scans.py`` does it."""
    from monai.apps import DecathlonDataset, download_and_extract

    root = data_root()
    archive = root / f"{TASK}.tar"
    download_and_extract(DecathlonDataset.resource[TASK], archive, root, hash_val=DecathlonDataset.md5[TASK])


def find_scans(number: int = 12) -> tuple[list[Case], dict[int, str], str]:
    """Labelled cases, the names of their structures, and what they are.

    They come from ``MEDFEWSHOT_DATA/Task04_Hippocampus`` (a folder of the Medical Segmentation Decathlon) if it exists.
    The tests set ``MEDFEWSHOT_SMALL`` to a number: that many coarse synthetic scans.
    """
    folder = data_root() / TASK
    if folder.is_dir():
        what = "MR of the hippocampus: Medical Segmentation Decathlon, Task04, CC BY-SA 4.0"
    else:
        shape, spacing_mm = (72, 60, 40), 5.0
        if "MEDFEWSHOT_SMALL" in os.environ:
            number, shape, spacing_mm = int(os.environ["MEDFEWSHOT_SMALL"]), (30, 26, 18), 12.0
        folder = make_ct_cohort(WORK / "synthetic", number, seed=0, shape=shape, spacing_mm=spacing_mm)
        what = "synthetic CT of the abdomen"
    dataset = read_dataset(folder)
    cases = list(dataset.labelled)
    # The last ones, so that no scan is in the support pool of a benchmark.
    return cases[-number:], dict(dataset.labels), what


def copy_cases(cases: list[Case], images: Path, labels: Path | None = None) -> None:
    """Copy the cases into a folder of images and, if given, a folder of labels."""
    for folder in (images, labels):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
    for case in cases:
        shutil.copy(case.image_path, images / f"{case.case_id}.nii.gz")
        if labels is not None and case.label_path is not None:
            shutil.copy(case.label_path, labels / f"{case.case_id}.nii.gz")


def draw_scans(cases: Sequence[Case | tuple[Path, Path]], names: dict[int, str], titles: Sequence[str] = ()) -> None:
    """Show the slice of each scan that contains most of the structures, with their outlines."""
    import matplotlib.pyplot as plt
    import nibabel as nib
    import numpy as np

    colours = dict(zip(names, ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442") * 9, strict=False))
    figure, panels = plt.subplots(1, len(cases), figsize=(3 * len(cases), 3.2), squeeze=False, layout="constrained")
    for number, (panel, case) in enumerate(zip(panels[0], cases, strict=True)):
        paths = (case.image_path, case.label_path) if isinstance(case, Case) else case
        image, label = (np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj) for path in paths)
        image, label = image[::-1], label[::-1]  # the patient's right on the left, as radiologists look at slices
        middle = int((label > 0).sum((0, 1)).argmax())
        panel.imshow(image[:, :, middle].T, cmap="gray", origin="lower")
        for value, colour in colours.items():
            if (label[:, :, middle] == value).any():
                panel.contour((label[:, :, middle] == value).T, levels=[0.5], colors=colour, linewidths=1.5)
        panel.set_title(titles[number] if titles else paths[0].name.split(".")[0], fontsize=9)
        panel.axis("off")
    lines = [plt.Line2D([], [], color=colours[value]) for value in names]
    figure.legend(lines, list(names.values()), loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    plt.show()


def show(path: Path, width: int = 800) -> None:
    """Show a picture in the notebook, scaled so that the notebook file stays small."""
    import io

    from IPython.display import Image, display
    from PIL import Image as Picture

    with Picture.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, 4 * width))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    display(Image(buffer.getvalue(), format="jpeg"))


if __name__ == "__main__":
    download()
