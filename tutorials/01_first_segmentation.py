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
# # First segmentation in ten minutes
#
# Three labelled scans in, the rest of the folder out. It takes about two minutes on two CPU cores; no GPU is needed.
#
# The settings here are small, so that the tutorial runs quickly: 150 steps instead of 400. Results get better with
# the defaults. (The seconds printed below are longer than yours will be: the core was shared with other work.)

# %% tags=["parameters"]
STEPS = 150

# %%
import os
from pathlib import Path

from scans import WORK, copy_cases, find_scans, show

os.environ |= {"COLUMNS": "110", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # tables without progress bars
cases, names, what = find_scans(8)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## 1. Lay out the scans
#
# A folder with `images/` and `labels/` under the same names is a support; a folder of scans is a cohort. The reference
# labels of the cohort are only for the last step.

# %%
copy_cases(cases[:3], WORK / "annotated/images", WORK / "annotated/labels")
copy_cases(cases[3:], WORK / "cohort", WORK / "reference")

# %% [markdown]
# ## 2. See what is there
#
# `inspect` lists every labelled scan, and says what is wrong with it.

# %%
# !python -m medfewshot inspect work/annotated

# %% [markdown]
# ## 3. Adapt once
#
# From the labelled scans alone it derives a *plan* (resolution, patch, intensities), trains, and writes the segmenter.
# The budget is the most seconds that this may take (240 by default); here the number of steps is to decide.

# %%
# !python -m medfewshot adapt --support-dir work/annotated -o work/segmenter --steps {STEPS} --budget 900 --overwrite

# %% [markdown]
# ## 4. Segment the cohort
#
# Each result lies on its own scan's grid. `report.html` shows them all on one page; here is one of the pictures in it.

# %%
# !python -m medfewshot segment work/cohort --segmenter work/segmenter -o work/out --overwrite

# %%
preview = sorted(Path("work/out/previews").glob("*.png"))[0]
show(preview, 800)

# %% [markdown]
# ## 5. Score, where there are labels
#
# Dice with a 95 % interval over subjects, HD95 in mm, surface Dice; missed structures and false alarms are counted.

# %%
# !python -m medfewshot evaluate work/out --reference work/reference -o work/scores

# %%
show(Path("work/scores/dice.png"), 420)

# %% [markdown]
# ## Not good enough?
#
# In this order: label two or three more scans that look unlike the first ones ([next tutorial](02_your_own_data.md));
# give adaptation more time (`--steps 2000 --budget 900`); restrict it to the structure you need (`--labels 1`, or its
# name); work at a finer resolution (`--spacing 1.0`) for small structures.
