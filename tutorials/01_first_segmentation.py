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
# # First segmentation
#
# You label three scans. medfewshot segments the rest of the folder. No GPU is needed.
#
# This tutorial trains for 150 steps, so that it ends quickly. The default is 600 steps and gives better results.

# %% tags=["parameters"]
STEPS = 150

# %%
import os
import time
from pathlib import Path

from scans import WORK, copy_cases, draw_scans, find_scans, show

os.environ |= {"COLUMNS": "100", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # tables without progress bars
BEGUN = time.perf_counter()
cases, names, what = find_scans(8)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## 1. Arrange the files
#
# Put the labelled scans into one folder with two subfolders, `images/` and `labels/`. A scan and its label have the same
# file name. Put the scans to segment into a second folder.
#
# The scans to segment in this tutorial have labels as well. We keep them apart and use them only in step 5.

# %%
copy_cases(cases[:3], WORK / "annotated/images", WORK / "annotated/labels")
copy_cases(cases[3:], WORK / "cohort", WORK / "reference")
draw_scans(cases[:3], names)

# %% [markdown]
# ## 2. Check the labelled scans
#
# `inspect` reads every labelled scan, shows its size and its structures, and names what is wrong.

# %%
# !python -m medfewshot inspect work/annotated

# %% [markdown]
# ## 3. Make a model
#
# `adapt` learns from the labelled scans and writes a model. It stops after `--steps`, or after `--budget` seconds if
# that comes first. (The default budget is 240 seconds. We raise it here, so that the steps decide.)

# %%
# !python -m medfewshot adapt --support-dir work/annotated -o work/segmenter --steps {STEPS} --budget 900 --overwrite

# %% [markdown]
# ## 4. Segment the other scans
#
# `segment` writes one label file for each scan, on the grid of that scan. It also writes `report.html`, a page that shows
# all results. This is one of its pictures.

# %%
# !python -m medfewshot segment work/cohort --segmenter work/segmenter -o work/out --overwrite

# %%
preview = sorted(Path("work/out/previews").glob("*.png"))[0]
show(preview, 800)

# %% [markdown]
# ## 5. Compare with reference labels
#
# If you have labels for some of these scans, `evaluate` measures how well the results agree with them. Dice is 1 for
# perfect overlap and 0 for none. HD95 is the distance between the surfaces in mm. Missed structures and false alarms are
# counted.

# %%
# !python -m medfewshot evaluate work/out --reference work/reference -o work/scores

# %%
show(Path("work/scores/dice.png"), 420)

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# ## If the result is not good enough
#
# Try these steps in this order.
#
# 1. Label two or three more scans. Choose scans that look different from the first ones
#    ([next tutorial](02_your_own_data.md)).
# 2. Give the training more time: `--steps 2000 --budget 900`.
# 3. Segment only the structure that you need: `--labels 1`, or its name.
# 4. Use a finer grid for small structures: `--spacing 1.0`.
