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
# # Meta-training on your own archive
#
# A department's archive holds labels of yesterday's projects. Meta-training makes a *start* out of them: weights from
# which a few scans of tomorrow's project go further. It takes about four minutes on two CPU cores.
#
# **At this size it teaches little.** The run below has 60 small steps, where the weights in the package had hundreds of
# large ones on a GPU. The tutorial shows each part of the work, and measures what came of it.

# %% tags=["parameters"]
STEPS, VALIDATION, ADAPTATION = 60, 8, (0, 20, 60)

# %%
import os
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from scans import WORK, copy_cases, find_scans

import medfewshot
from medfewshot.episodes import EpisodeSampler
from medfewshot.io import read_label
from medfewshot.settings import load_settings
from medfewshot.synthetic import Populations
from medfewshot.training import TrainSettings
from medfewshot.training.logs import read_log
from medfewshot.training.packing import read_pack

os.environ |= {"COLUMNS": "110", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
cases, names, what = find_scans(20)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## The archive, and what is held out
#
# Twelve scans are the archive; three others the supports of the new project, and five its queries. The new project's
# structure must be new as well, or the comparison says nothing: the last label is *novel*, all others are *base*.

# %%
copy_cases(cases[:12], WORK / "archive/images", WORK / "archive/labels")
support = [(case.image_path, case.label_path) for case in cases[12:15]]
queries = cases[15:]
*base, novel = names
print("base:", ", ".join(names[value] for value in base), "  novel:", names[novel])

# %% [markdown]
# ## The settings
#
# One YAML file says everything; `configs/train/cpu.yaml` explains each key. Two kinds of tasks are mixed: *real* ones,
# whose classes are the base labels of the archive, and *procedural* ones, anatomies that are made up anew for every
# episode. `validation_labels` become classes in validation alone, and every other label is background. Nothing is
# chosen by the validation below; where you do choose by it, hold out a third label for the comparison.

# %%
SETTINGS = f"""
learner: finetune
backbone: {{dims: 3, width: 16, levels: 4}}
steps: {STEPS}
episodes_per_step: 2
learning_rate: 0.002
ema: 0.9                    # a short run: the average must not remember its first steps
validate_every: {STEPS // 4}
validation_episodes: {VALIDATION}
checkpoint_every: {STEPS // 6}
log_every: {STEPS // 12}
tasks:
  synthetic_weight: 1
  synthetic:
    patches: [[32, 32, 32], [40, 40, 16]]
    shots: [1, 2]
    ways: [1, 2]
  real_weight: 1
  real:
    patches: [[32, 40, 32]]
    shots: [1, 2]
    ways: [1, 1]
    repaint: 0.3            # structures brighter or darker: contrasts that the archive does not have
    mirror: 0.15
    datasets:
      archive: {{labels: {base}, validation_labels: [{novel}]}}
"""
_ = (WORK / "own.yaml").write_text(SETTINGS)

# %% [markdown]
# ## A run that is cut off
#
# `--data` is the folder in which `archive` lies. `--pack` writes the planned volumes into one file first; later runs,
# on another machine too, need that file and no raw data. The run is killed after some twenty steps, as a reboot or a
# queue's time limit would do it.

# %%
RUN, PACK = WORK / "run", WORK / "archive.safetensors"
words = f"-m medfewshot train work/own.yaml -o {RUN} --data work --pack {PACK} --device cpu --quiet --overwrite".split()
PACK.unlink(missing_ok=True)
(RUN / "training.csv").unlink(missing_ok=True)
process = subprocess.Popen([sys.executable, *words])
while process.poll() is None and len(read_log(RUN / "training.csv")) < 5:
    time.sleep(0.2)
process.kill()
process.wait()

packed = sum(path.stat().st_size for path in (WORK / "archive").rglob("*.nii.gz")) / 1e6
print(f"archive: {packed:.1f} MB in files, {PACK.stat().st_size / 1e6:.1f} MB packed")
print("last row before the cut: step", int(read_log(RUN / "training.csv")[-1]["step"]))

# %% [markdown]
# ## What an episode looks like
#
# Supports and queries of each kind. The label in them is the whole task: *this, again, over there*. Procedural
# anatomies need no archive, and none occurs twice; real ones have the texture and the ambiguity that no program makes
# up.

# %%
settings = load_settings(TrainSettings, WORK / "own.yaml")
sources = {
    "procedural": Populations(settings.tasks.synthetic),
    "real": EpisodeSampler(read_pack(PACK, settings.tasks.real.datasets), settings.tasks.real),
}
figure, axes = plt.subplots(2, 6, figsize=(10, 3.7), layout="constrained")
for row, (kind, source) in zip(axes, sources.items(), strict=True):
    for number in range(3):
        episode = source.sample(number, progress=0.5)
        pairs = (episode.support.images[0], episode.support.labels[0]), (episode.query.image[0], episode.query.label[0])
        for panel, (image, label), part in zip(row[2 * number :], pairs, ("support", "query"), strict=False):
            middle = int((label > 0).sum((0, 1)).argmax())
            panel.imshow(np.rot90(image[0, ..., middle]), cmap="gray")
            panel.imshow(np.ma.masked_equal(np.rot90(label[..., middle]), 0), cmap="autumn", vmin=1, vmax=3, alpha=0.6)
            panel.set_title(f"{kind}, {part}", fontsize=8)
            panel.axis("off")
plt.show()

# %% [markdown]
# ## Going on
#
# The same command with `--resume` goes on from the last checkpoint, and ends with the same weights, bit for bit, as a
# run that was never cut off. (With `minutes:` in the settings the clock decides how many steps there are, and that
# promise is off.)

# %%
# !python -m medfewshot train work/own.yaml -o work/run --pack work/archive.safetensors --device cpu --resume

# %% [markdown]
# ## The curves
#
# Both logs are CSV files; TensorBoard shows the same where it is installed, and `--mlflow URI_OR_FOLDER` sends it to
# MLflow too (`pip install medfewshot[mlflow]`). Training loss is a mean over a few tasks that are never the same, so it
# is ragged, and classes get smaller towards the end of a run, so it need not fall. Judge by validation: always the same
# held-out tasks, with the averaged weights that are kept.

# %%
training, validation = (read_log(RUN / name) for name in ("training.csv", "validation.csv"))
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for rows, name, style in ((training, "training", "-"), (validation, "validation", "o-")):
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], style, label=name)
axes.set(xlabel="step", ylabel="loss: Dice and cross entropy")
axes.grid(axis="y", color="#e3e6e8")
axes.legend(frameon=False)
plt.show()
last = training[-1]
print(f"{last['episodes_per_second']:.1f} episodes a second; {last['skipped']:.0f} steps were skipped")

# %% [markdown]
# ## Using the start
#
# `work/run/start` is a pair of files, the weights and `start.json`, which tells the settings and every subject and
# label that was seen. `adapt` and `segment` take it with `--weights work/run/start`, Python with `weights=`. From
# weights, 0 steps are allowed: a head is solved for on the supports, and no gradient is taken.
#
# The test is the novel label, in scans that neither this run nor the package's weights have seen.


# %%
def mean_dice(weights: str | None, steps: int) -> float:
    """Mean Dice of the novel label over the queries, by the network alone: the default would match scans besides."""
    settings = {"learner": "finetune", "weights": weights, "steps": steps, "budget_seconds": None}
    segmenter = medfewshot.adapt(support, labels={novel: names[novel]}, **settings)
    values = []
    for case in queries:
        found = medfewshot.segment(case.image_path, segmenter).labels == novel
        reference = read_label(case.label_path).data[0] == novel
        values.append(2 * (found & reference).sum() / max(1, found.sum() + reference.sum()))
    return float(np.mean(values))


results = {}
for name, weights in (("random", None), ("own archive", str(RUN / "start")), ("shipped", "default")):
    for steps in ADAPTATION:
        if weights is not None or steps:
            results[name, steps] = mean_dice(weights, steps)
            print(f"{name:12} {steps:3} steps: Dice {results[name, steps]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name, colour in (("random", "#6b747b"), ("own archive", "#e69f00"), ("shipped", "#0072b2")):
    points = [(steps, dice) for (start, steps), dice in results.items() if start == name]
    axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
axes.set(xlabel="steps of adaptation", ylabel=f"Dice of {names[novel]}, K = 3", ylim=(0, 1))
axes.grid(axis="y", color="#e3e6e8")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# Without a step the package's weights find some of the structure (0.39) and the ones just made nothing (0.01): a
# minute of training makes no features that a head could be solved for on. After 20 steps the start from this archive
# is ahead (0.74; random 0.71, the package's 0.68), and after 60 nothing is left of it: 0.79, 0.80 and 0.79. A start
# saves steps; where there is time for many, it need not give a better segmenter. One draw of three supports, five scans, one seed:
# read no more into it. The networks differ in size too, and this archive is kind: the same sort of scan, and
# the novel structure next to the base one. (These results were made on a machine that was busy with other work, so that
# the training's speed above says little.)
#
# ## What a real run needs
#
# - **Many tasks.** One data set with one base label teaches that label. Name every data set you may use under
#   `datasets:`, all labels of each but those held out, and keep procedural tasks in the mixture.
# - **Many episodes, of large patches.** The weights in the package saw 12,528 episodes of seven to nine volumes with up to
#   512,000 voxels, in 1,044 steps; this run saw 120 of two or three with 41,000 at most. `configs/train/cpu.yaml` is
#   for hours on two cores; `novel.yaml` and `default.yaml` took some minutes each on one large GPU that twelve processes
#   shared: `torchrun --nproc-per-node 12 -m medfewshot train ... --pack FILE`.
# - **A slower average**: `ema: 0.99` or more, once there are hundreds of steps.
# - **Labels and subjects held out twice**, for choices along the way and for the figure at the end. Beside the figure,
#   say what the weights have seen; it is in `start.json`.
# - **Permission** to train on the scans and to pass the weights on.
#
# `docs/training.md` has the details.
