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
# Every run writes `report.html`, a page that shows which results need your attention. It opens without a network. In this
# tutorial, two of the scans are damaged on purpose, and we look at what the report says about them.

# %% tags=["parameters"]
STEPS = 150

# %%
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scans import WORK, copy_cases, draw_scans, find_scans, show

os.environ |= {"COLUMNS": "100", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
BEGUN = time.perf_counter()
cases, names, what = find_scans(11)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## Two damaged scans
#
# The first one is cut: half of its structure is gone, as if the field of view were too small. The second one is noisy.

# %%
copy_cases(cases[:3], WORK / "annotated/images", WORK / "annotated/labels")
copy_cases(cases[3:], WORK / "mixed", WORK / "mixed_reference")
cut, noisy, good = sorted((WORK / "mixed").iterdir())[:3]

image = nib.load(cut)
data = np.asarray(image.dataobj, np.float32)
data[data.shape[0] // 2 :] = data.min()
nib.save(nib.Nifti1Image(data, image.affine), cut)

image = nib.load(noisy)
data = np.asarray(image.dataobj, np.float32)
data += np.random.default_rng(0).normal(0, 1.5 * data.std(), data.shape).astype(np.float32)
nib.save(nib.Nifti1Image(data, image.affine), noisy)

damaged = [(path, WORK / "mixed_reference" / path.name) for path in (cut, noisy, good)]
draw_scans(damaged, names, titles=["cut", "noisy", "not changed"])

# %% [markdown]
# ## Segment all scans

# %%
# !python -m medfewshot adapt --support-dir work/annotated --learner finetune --steps {STEPS} --budget 900 -o work/segmenter --overwrite

# %%
# !python -m medfewshot segment work/mixed --segmenter work/segmenter -o work/mixed_out --overwrite

# %% [markdown]
# ## The page
#
# Open `work/mixed_out/report.html` in a browser. It begins with pictures of the scans to look at first, with the reasons.
# You can sort its table by every column, and filter it by words, by structure or by review. This is a report of other
# scans that have reference labels.

# %%
show(Path("pictures/report.png"), 800)

# %% [markdown]
# *Open in the viewer* shows one scan in three planes and in 3D. These keys work:
#
# | key | does |
# |---|---|
# | Up, Down | next or previous slice |
# | A, C, S | axial, coronal or sagittal plane |
# | M | show or hide the labels |
# | O | outlines or filled labels |
# | +, - | opacity of the labels |
# | Escape | close |

# %%
show(Path("pictures/viewer.png"), 800)

# %% [markdown]
# ## Cases to review
#
# Python can list the same warnings. They need no reference labels: medfewshot compares each scan with the labelled scans,
# and each result with the other results. A warning is a reason to look. It does not prove that the result is wrong.

# %%
from medfewshot.workflow.report import run_page

page = run_page(Path("work/mixed_out"))
for case in page.cases:
    sizes = ", ".join(f"{row.name} {row.size:.2f} {page.unit}" for row in case.structures)
    print(f"{case.name:20} {sizes:50} {'; '.join(case.reasons) or '-'}")

# %% [markdown]
# Compare this list with the pictures above: `cut` and `noisy` are the first two names. A damaged scan may have no warning,
# because its intensities, its sizes and its confidence may all look usual. Therefore look at every picture, not only at
# the cases with a warning.
#
# ## With reference labels
#
# `report --reference` adds Dice, HD95 and their plots. In the viewer, R switches between the result, the reference and both.
# Sort by Dice and look at the worst case first.

# %%
# !python -m medfewshot report work/mixed_out --reference work/mixed_reference -o work/scored.html

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# The page contains the scans themselves. Share it as carefully as the scans.
