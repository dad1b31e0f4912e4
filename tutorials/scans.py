"""Scans for the tutorials: MSD hippocampus where it is at hand, made-up abdominal CT everywhere else."""

from __future__ import annotations

import os
import shutil
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

    ``MEDFEWSHOT_DATA/Task04_Hippocampus`` (a folder of the Medical Segmentation Decathlon) is taken where it exists.
    ``MEDFEWSHOT_SMALL`` is for a test that the notebooks run: the made-up ones are coarse, and only so many.
    """
    folder = data_root() / TASK
    if folder.is_dir():
        what = "MR of the hippocampus: Medical Segmentation Decathlon, Task04, CC BY-SA 4.0"
    else:
        shape, spacing_mm = (72, 60, 40), 5.0
        if "MEDFEWSHOT_SMALL" in os.environ:
            number, shape, spacing_mm = int(os.environ["MEDFEWSHOT_SMALL"]), (30, 26, 18), 12.0
        folder = make_ct_cohort(WORK / "made_up", number, seed=0, shape=shape, spacing_mm=spacing_mm)
        what = "made-up CT of the abdomen"
    dataset = read_dataset(folder)
    cases = list(dataset.labelled)
    # The last ones: those of a benchmark's support pool stay untouched.
    return cases[-number:], dict(dataset.labels), what


def copy_cases(cases: list[Case], images: Path, labels: Path | None = None) -> None:
    """Lay the cases out as a folder of images and, if wanted, one of labels."""
    for folder in (images, labels):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
    for case in cases:
        shutil.copy(case.image_path, images / f"{case.case_id}.nii.gz")
        if labels is not None and case.label_path is not None:
            shutil.copy(case.label_path, labels / f"{case.case_id}.nii.gz")


def show(path: Path, width: int = 800) -> None:
    """A picture in the notebook, small enough to be kept in it."""
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
