# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From one labelled frame to an ejection fraction
#
# You have a film of the heart, and you labelled end-diastole. medfewshot segments the other frames, and measures volumes
# over time and the ejection fraction.
#
# The film is synthetic, so the true volumes are known. It shows a left ventricle, its wall and a right ventricle.

# %% tags=["parameters"]
STEPS, FRAMES = 60, 12

# %%
import csv
import os
import shutil
import time

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from scans import WORK, show

os.environ |= {"COLUMNS": "100", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
BEGUN = time.perf_counter()
FOLDER = WORK / "cine"
shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir(parents=True)
NAMES = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
SPACING = np.array([2.0, 2.0, 8.0])


def heart(frame: int) -> np.ndarray:
    """Labels (48, 48, 6) of one frame. The cavities shrink until the middle of the film, the wall keeps its volume."""
    x, y, z = (np.stack(np.meshgrid(*map(np.arange, (48, 48, 6)), indexing="ij"), -1) * SPACING - [48, 48, 20]).T
    x, y, z = x.T, y.T, z.T
    share = 0.5 - 0.5 * np.cos(2 * np.pi * frame / FRAMES)  # 0 at end-diastole, 1 at end-systole
    inner, slope = 21 - 7 * share, 1 - 0.004 * z**2 / 4
    outer = np.sqrt(31.0**2 - 21.0**2 + inner**2)
    distance, right = np.hypot(x, y), np.hypot(x + 22 + 3 * share, (y + 2) * 0.8)
    labels = np.where(right < (27 - 8 * share) * slope, 1, 0)
    labels[distance < outer * slope] = 2
    labels[distance < inner * slope] = 3
    return labels.astype(np.uint8)


random = np.random.default_rng(0)
truth = np.stack([heart(frame) for frame in range(FRAMES)], -1)
tissue = np.array([60, 190, 90, 200])[truth] + 25 * np.sin(np.arange(48) / 4)[:, None, None, None]
header = nib.Nifti1Image(np.zeros((1, 1, 1, 1)), np.diag([*SPACING, 1])).header
header.set_xyzt_units("mm", "sec")
header.set_zooms((*SPACING, 0.8 / FRAMES))
film = nib.Nifti1Image((tissue + random.normal(0, 15, truth.shape)).astype(np.int16), np.diag([*SPACING, 1]), header)
nib.save(film, FOLDER / "film.nii.gz")
print(f"a synthetic film of {FRAMES} frames, {film.shape[:3]} voxels each")

# %% [markdown]
# ## 1. Label one frame
#
# A 3D label map is enough; `--frame` says which frame it belongs to. A 4D label map would do as well: frames that are 0
# or 255 everywhere count as not labelled.

# %%
nib.save(nib.Nifti1Image(truth[..., 0], film.affine), FOLDER / "first.nii.gz")
figure, panels = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
for panel, frame in zip(panels, np.linspace(0, FRAMES // 2, 4).astype(int), strict=True):
    panel.imshow(film.dataobj[..., 2, frame].T, cmap="gray")
    if frame == 0:
        panel.contour(truth[..., 2, 0].T, [0.5, 1.5, 2.5], colors=["#e69f00", "#56b4e9", "#009e73"], linewidths=1)
    panel.set_title(f"frame {frame}" + (", labelled" if frame == 0 else ""), fontsize=9)
    panel.axis("off")
plt.show()

# %% [markdown]
# ## 2. Segment the film
#
# Registration carries the labels from frame to frame. The network learns from the labelled frame and from six others that
# got their labels in this way. In each frame, both vote.

# %%
# !python -m medfewshot segment {FOLDER}/film.nii.gz --support {FOLDER}/film.nii.gz={FOLDER}/first.nii.gz --frame 0 --labels "1=right ventricle,2=myocardium,3=left ventricle" --steps {STEPS} --overwrite -o {FOLDER}/result

# %% [markdown]
# ## 3. Volumes over time
#
# `films/film.csv` has the size of each structure in each frame, `films/film.png` is its plot, and `ejection.csv` has the
# ejection fractions. End-diastole and end-systole are the frames in which the left ventricle is largest and smallest.

# %%
show(FOLDER / "result/films/film.png", 700)

# %%
voxel_ml = SPACING.prod() / 1000
for row in csv.DictReader((FOLDER / "result/ejection.csv").open()):
    value = next(value for value, name in NAMES.items() if name == row["name"])
    sizes = (truth == value).sum((0, 1, 2)) * voxel_ml
    true = 100 * (1 - sizes.min() / sizes.max())
    found = float(row["ejection_fraction_percent"] or "nan")
    print(
        f"{row['name']}: ejection fraction {found:.1f} %, true {true:.1f} %; frames {row['ed_frame']}, {row['es_frame']}"
    )

# %% [markdown]
# ## 4. How good is it?
#
# `evaluate` scores labelled frames, and writes how structures change over time to `films.csv`. `motion_consistency` is the
# mean Dice between neighbouring frames after registration of one to the other. `curve_error_percent` is the mean error of
# the sizes.

# %%
(FOLDER / "truth").mkdir(exist_ok=True)
nib.save(nib.Nifti1Image(truth, film.affine), FOLDER / "truth/film.nii.gz")
# !python -m medfewshot evaluate {FOLDER}/result -r {FOLDER}/truth -o {FOLDER}/scores

# %%
for row in csv.DictReader((FOLDER / "scores/films.csv").open()):
    name = NAMES[int(row["label"])]
    print(f"{name}: motion consistency {float(row['motion_consistency']):.3f}, "
          f"volume error {float(row['curve_error_percent']):.1f} %")  # fmt: skip

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# ## Your own films
#
# `report.html` plays the film: press Space in the viewer. Look at end-systole first: it is least like the labelled frame.
# Real hearts also move through the slices, which registration of thick slices cannot follow. There, label end-systole too.
