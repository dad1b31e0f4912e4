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
# # Your own data: is it correct, and how many labels do you need?
#
# First we let medfewshot find the mistakes in a folder. Then we measure how the result improves with the number of
# labelled scans.
#
# This tutorial trains for only 40 steps each time. With the defaults, every value below would be higher.

# %% tags=["parameters"]
STEPS, SHOTS, DRAWS = 40, (1, 2, 5), 2

# %%
import os
import time

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from IPython.display import Markdown, display
from scans import WORK, copy_cases, draw_scans, find_scans

import medfewshot
from medfewshot.io import read_label

os.environ |= {"COLUMNS": "100", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
BEGUN = time.perf_counter()
cases, names, what = find_scans(11)
print(f"{len(cases)} scans: {what}")
draw_scans(cases[:4], names)

# %% [markdown]
# ## Find mistakes
#
# Real folders contain mistakes. We make three of them on purpose:
#
# - a label that is shifted by 12 mm,
# - a label without any structure,
# - a scan that is a thousand times brighter than the others.

# %%
annotated = WORK / "own"
copy_cases(cases[:5], annotated / "images", annotated / "labels")
first, second, third = sorted((annotated / "labels").iterdir())[:3]

label = nib.load(first)
shifted = label.affine.copy()
shifted[0, 3] += 12
nib.save(nib.Nifti1Image(np.asarray(label.dataobj), shifted), first)

label = nib.load(second)
nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), second)

image = nib.load(annotated / "images" / third.name)
bright = nib.Nifti1Image(np.asarray(image.dataobj, np.float32) * 1000, image.affine)
nib.save(bright, annotated / "images" / third.name)

# %%
# !python -m medfewshot inspect work/own

# %% [markdown]
# Repair the errors, or the scan cannot be used as an example. Look at the warnings and decide. In a script, `inspect`
# ends with exit code 1 if there are errors.
#
# ## How many labelled scans?
#
# The best way to find out is to measure it. We make a model from 1, 2 and 5 labelled scans and compare its results with
# the labels of four other scans. We do this twice for each number, with other scans each time. Take more repetitions
# before you plan real work.
#
# We use `finetune`, which trains a network. The default is slower, because it also registers every scan to the
# labelled scans.

# %%
pool, queries = cases[:7], cases[7:]
rng = np.random.default_rng(0)


def mean_dice(segmenter) -> float:
    """Mean Dice over the scans to segment and their structures."""
    values = []
    for case in queries:
        found = medfewshot.segment(case.image_path, segmenter).labels
        reference = read_label(case.label_path)
        scores = medfewshot.evaluate(found, reference.data[0], labels=names, spacing_mm=reference.spacing_mm)
        values.append(scores.summary_rows()[-1]["dice_mean"])
    return float(np.mean(values))


results = {}
for shots in SHOTS:
    for draw in range(DRAWS):
        chosen = rng.choice(len(pool), shots, replace=False)
        support = [(pool[i].image_path, pool[i].label_path) for i in chosen]
        settings = {"learner": "finetune", "steps": STEPS, "budget_seconds": None, "seed": draw}
        segmenter = medfewshot.adapt(support, labels=names, **settings)
        results.setdefault(shots, []).append(mean_dice(segmenter))
        print(f"{shots} labelled scans, repetition {draw + 1}: mean Dice {results[shots][-1]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.2))
for shots, values in results.items():
    axes.scatter([shots] * len(values), values, color="#0072b2", alpha=0.7)
means = {shots: float(np.mean(values)) for shots, values in results.items()}
axes.plot(list(means), list(means.values()), color="#22272b", linewidth=1.2)
axes.set(xlabel="labelled scans", ylabel="mean Dice on the other scans", xticks=list(means))
axes.grid(axis="y", color="#e3e6e8")
plt.show()

# %%
few, many = min(means), max(means)
spread = max(results[few]) - min(results[few])
display(
    Markdown(
        f"From {few} to {many} labelled scans, the mean Dice changes by **{means[many] - means[few]:+.2f}** "
        f"({means[few]:.2f} to {means[many]:.2f}). With {few}, the choice of the scan alone changes it by {spread:.2f}."
    )
)
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# If the curve is still steep at its right end, another labelled scan helps more than any setting. If it is flat, more
# labels of the same kind will not help much: try more steps or a finer grid instead.
