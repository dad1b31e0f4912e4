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
STEPS, SHOTS, DRAWS = 40, "1,2,5", 2

# %%
import os
import time

import nibabel as nib
import numpy as np
from IPython.display import Image
from scans import WORK, copy_cases, draw_scans, find_scans

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
# The best way to find out is to measure it. `curve` makes a model from 1, 2 and 5 of the labelled scans and compares its
# results with the labels of four others. It does this twice for each number, with other scans each time. Take more
# choices before you plan real work.
#
# We use `finetune`, which trains a network. The default is slower, because it also registers every scan to the
# labelled scans.

# %%
copy_cases(cases, WORK / "labelled/images", WORK / "labelled/labels")
labels = ",".join(f"{value}={name}" for value, name in names.items())

# %%
# !python -m medfewshot curve work/labelled -o work/curve --labels "{labels}" --learner finetune --steps {STEPS} --shots {SHOTS} --draws {DRAWS} --tests 4 --overwrite

# %%
Image(WORK / "curve/curve.png", width=600)

# %% [markdown]
# The band is the 95 % interval over the scans that were segmented. If the curve is still steep at its right end, another
# labelled scan helps more than any setting. If it is flat, more labels of the same kind will not help much: try more
# steps or a finer grid instead. The tables in `work/curve` have every test.

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")
