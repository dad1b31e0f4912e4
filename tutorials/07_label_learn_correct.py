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
# # Draw, learn, correct, repeat
#
# You have scans and no labels. In the workbench you draw in one scan, press *Learn*, correct the worst draft, and repeat.
#
# Everything that you do in the page can be done from Python as well. This tutorial does it with a simulated reader, who
# draws what the reference labels show. It learns for a few steps only, so that it ends quickly.

# %% tags=["parameters"]
STEPS, ROUNDS = 20, 2

# %%
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scans import WORK, copy_cases, find_scans, show

from medfewshot.io import read_label
from medfewshot.structures import dice
from medfewshot.workbench import Jobs, Project, Structure
from medfewshot.workbench.curve import curve
from medfewshot.workbench.export import export

BEGUN = time.perf_counter()
cases, names, what = find_scans(4)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## 1. The page
#
# `medfewshot annotate scans/` opens it in your browser. On the left are the scans, the one to label next first. Drawing
# tools and *Learn* are on the right. The second picture shows a draft, and in yellow where it is uncertain.

# %%
show(Path("pictures/workbench_drawn.jpg"), 900)
show(Path("pictures/workbench_draft.jpg"), 900)

# %% [markdown]
# ## 2. A project
#
# A project is a folder of plain files beside the scans. `medfewshot annotate` makes the same one.

# %%
import shutil

copy_cases(cases, WORK / "unlabelled")
shutil.rmtree(WORK / "workbench", ignore_errors=True)
colours = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7")
structures = [Structure(name, value, colours[i % 4]) for i, (value, name) in enumerate(names.items())]
project = Project.create(WORK / "workbench", [WORK / "unlabelled"], structures=structures)
project.change_settings({"steps": STEPS})
jobs = Jobs(project)
reference = {case.case_id: read_label(case.label_path).data[0].astype(np.uint8) for case in cases}
print([(case.name, case.status) for case in project.cases()])

# %% [markdown]
# ## 3. Draw three slices of one scan
#
# The slices that you draw count, all others are ignored. Draw every structure in them.

# %%
first = project.cases()[0].name
shown = np.flatnonzero(reference[first].any((0, 2)))
slices = [int(shown[int(len(shown) * place)]) for place in (0.25, 0.5, 0.75)]
drawn = np.zeros_like(reference[first])
drawn[:, slices] = reference[first][:, slices]
project.save_mask(first, drawn, version=0, drawn=slices, axis=1)
print(f"{first}: slices {slices} of {len(shown)} that show a structure")

# %% [markdown]
# ## 4. Learn, correct the scan to look at next, repeat
#
# *Learn* adapts to everything drawn so far and writes a draft of every scan. `project.cases()` begins with the scan whose
# draft is expected to be worst and whose intensities are least like the examples: `medfewshot suggest` uses the same
# order. The reader corrects that scan, and it becomes an example.


# %%
def drafts() -> list[float]:
    """Mean Dice of the drafts that nobody corrected yet."""
    waiting = [case.name for case in project.cases() if case.status in ("draft", "needs review")]
    found = {name: project.read_draft(name) for name in waiting}
    return [np.nanmean([dice(found[n] == v, reference[n] == v) for v in names]) for n in waiting]


means = []
for _ in range(ROUNDS):
    jobs.start_learn()
    jobs.wait()
    print(jobs.state()["status"], *(line for line in jobs.state()["warnings"] if "time limit" in line))
    means.append(drafts())
    worst = project.cases()[0]
    print(f"next: {worst.name}, expected Dice {worst.confidence:.2f}")
    project.save_mask(worst.name, reference[worst.name], version=project.facts(worst.name).version)
    project.review(worst.name, status="accepted", note="corrected")

# %%
figure, panel = plt.subplots(figsize=(4, 3), layout="constrained")
for number, values in enumerate(means, start=1):
    panel.plot([number] * len(values), values, "o", color="#56b4e9")
panel.plot(range(1, len(means) + 1), [np.mean(values) for values in means], color="#e69f00", label="mean")
panel.set(xlabel="times learned", ylabel="Dice of the drafts", ylim=(0, 1), xticks=range(1, len(means) + 1))
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# The page draws a similar curve. It knows no reference: it compares each draft with the mask that you made of it, and
# says when further labels stop helping.

# %%
for point in curve(project):
    print(f"{point['case']}: the draft had Dice {point['dice']:.2f} with the corrected mask")

# %% [markdown]
# ## 5. Export
#
# The masks become NIfTI files. The page also writes an nnU-Net data set, surfaces, tables and other formats.

# %%
written = export(project, ["nifti"], WORK / "exported")
print(*sorted(path.name for path in written.files), sep="\n")

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# ## Your own scans
#
# Run `medfewshot annotate scans/`, or `medfewshot annotate --demo` if you have none at hand.
# The workbench page of the documentation lists the tools and shortcuts.
