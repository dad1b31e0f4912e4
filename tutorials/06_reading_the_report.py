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
# # Reading the report
#
# Every run leaves `report.html`: one page to judge it by, which opens without a network. This tutorial makes a cohort
# with two bad scans in it and shows what comes to light. It takes about two minutes on two CPU cores. (The seconds
# printed below are longer: the core was shared with other work.)

# %% tags=["parameters"]
STEPS = 150

# %%
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from scans import WORK, copy_cases, find_scans, show

os.environ |= {"COLUMNS": "110", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
cases, names, what = find_scans(11)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## A cohort with two bad scans
#
# One scan loses most of its structure (it was cut off at the edge of the field of view); one is drowned in noise.

# %%
copy_cases(cases[:3], WORK / "annotated/images", WORK / "annotated/labels")
copy_cases(cases[3:], WORK / "mixed", WORK / "mixed_reference")
cut, noisy = sorted((WORK / "mixed").iterdir())[:2]

image = nib.load(cut)
data = np.asarray(image.dataobj, np.float32)
data[data.shape[0] // 2 :] = data.min()
nib.save(nib.Nifti1Image(data, image.affine), cut)

image = nib.load(noisy)
data = np.asarray(image.dataobj, np.float32)
data += np.random.default_rng(0).normal(0, 1.5 * data.std(), data.shape).astype(np.float32)
nib.save(nib.Nifti1Image(data, image.affine), noisy)
print("cut:", cut.name, "  noisy:", noisy.name)

# %%
# !python -m medfewshot adapt --support-dir work/annotated --learner finetune --steps {STEPS} --budget 900 -o work/segmenter --overwrite

# %%
# !python -m medfewshot segment work/mixed --segmenter work/segmenter -o work/mixed_out --overwrite

# %% [markdown]
# ## The page
#
# Open `work/mixed_out/report.html` in a browser. Its table sorts by every column (click a heading, or Tab to it and
# press Enter) and filters by words and flags. This is how a report looks, here one with references:

# %%
show(Path("pictures/report.png"), 800)

# %% [markdown]
# *Open in the viewer* shows the scan in three planes and in 3D. Up and Down move through the slices, A, C and S choose the
# plane, M hides the labels, O shows them as outlines, + and - change their opacity, Escape closes; the mouse works as well.

# %%
show(Path("pictures/viewer.png"), 800)

# %% [markdown]
# ## Flags
#
# What the page flags can be had in Python too. No reference is needed for these: the scan is compared with the
# supports, sizes and predicted Dice with those of the other cases. A flag is a reason to look, not a verdict.

# %%
from medfewshot.workflow.report import run_page

page = run_page(Path("work/mixed_out"), viewer=False)
for case in page.cases:
    sizes = ", ".join(f"{row.name} {row.size:.2f} {page.unit}" for row in case.structures)
    print(f"{case.name:20} {sizes:50} {'; '.join(case.reasons) or '-'}")

# %% [markdown]
# The cut scan is flagged, four times over. The noisy one is not: its noise leaves the intensities distributed as usual,
# and what was found in it has an ordinary size and an ordinary predicted Dice. That is why every picture deserves a look:
# a case without a flag may be wrong too.
#
# ## With references
#
# If there are labels, `report --reference` adds Dice, HD95 and their plots, and R in the viewer goes from the
# segmentation to the reference to both together. Sort by Dice, take the worst case, and look.

# %%
# !python -m medfewshot report work/mixed_out --reference work/mixed_reference -o work/scored.html

# %% [markdown]
# The page holds the scans themselves (in 8 bits, coarser where they are large): pass it on as carefully as them.
