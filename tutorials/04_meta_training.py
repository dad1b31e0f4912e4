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
# The archive of a department contains labels of earlier projects. Meta-training turns them into *weights*: a better start
# for the next project, which has only a few labelled scans.
#
# **This run is far too short to be useful.** It has 60 small steps. The weights of the package had 1,044 large steps on a
# GPU. The tutorial shows each part of the work and measures the result.

# %% tags=["parameters"]
STEPS, VALIDATION, ADAPTATION = 60, 8, (0, 20, 60)

# %%
import csv
import os
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from scans import WORK, copy_cases, draw_scans, find_scans

import medfewshot
from medfewshot.episodes import EpisodeSampler
from medfewshot.io import read_label
from medfewshot.settings import load_settings
from medfewshot.synthetic import Populations
from medfewshot.training import TrainSettings
from medfewshot.training.packing import read_pack

os.environ |= {"COLUMNS": "110", "TTY_COMPATIBLE": "0", "TERM": "dumb"}  # no progress bars in the notebook
BEGUN = time.perf_counter()
cases, names, what = find_scans(20)
print(f"{len(cases)} scans: {what}")

# %% [markdown]
# ## The archive and the new project
#
# Twelve scans are the archive. The new project has three labelled scans (its support set) and five scans to segment (its
# queries). Its structure must be new as well, or the comparison says nothing. Therefore the last label is *novel*: the
# meta-training never sees it. All other labels are *base* classes.

# %%
copy_cases(cases[:12], WORK / "archive/images", WORK / "archive/labels")
support = [(case.image_path, case.label_path) for case in cases[12:15]]
queries = cases[15:]
*base, novel = names
draw_scans(cases[12:15], names)
print("base:", ", ".join(names[value] for value in base), "  novel:", names[novel])

# %% [markdown]
# ## The settings
#
# One YAML file contains all settings; `configs/train/cpu.yaml` explains each of them. The training mixes two kinds of
# tasks. *Real* tasks use the base labels of the archive. *Procedural* tasks use synthetic anatomies, new ones in every
# episode.
#
# `validation_labels` are used for validation only. This tutorial chooses nothing by the validation. If you choose settings
# by it, keep a third label for the final comparison.

# %%
SETTINGS = f"""
learner: finetune
backbone: {{dims: 3, width: 16, levels: 4}}
steps: {STEPS}
episodes_per_step: 2
learning_rate: 0.002
ema: 0.9                    # a short run: the average must forget its first steps
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
    repaint: 0.3            # brighter or darker structures: contrasts that the archive lacks
    mirror: 0.15
    datasets:
      archive: {{labels: {base}, validation_labels: [{novel}]}}
"""
_ = (WORK / "own.yaml").write_text(SETTINGS)

# %% [markdown]
# ## A run that is interrupted
#
# `--data` is the folder that contains `archive`. `--pack` first writes all prepared volumes into one file. Later runs need
# only this file, also on another machine. We kill the run after about twenty steps, like a reboot would.

# %%
RUN, PACK = WORK / "run", WORK / "archive.safetensors"
words = f"-m medfewshot train work/own.yaml -o {RUN} --data work --pack {PACK} --device cpu --quiet --overwrite".split()
PACK.unlink(missing_ok=True)
(RUN / "training.csv").unlink(missing_ok=True)


def read_log(name: str) -> list[dict[str, float]]:
    """Rows of a log so far; the last one is left out while it is being written."""
    lines = (RUN / name).read_text().splitlines(keepends=True) if (RUN / name).exists() else []
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [{column: float(value) for column, value in row.items()} for row in rows]


process = subprocess.Popen([sys.executable, *words])
while process.poll() is None and len(read_log("training.csv")) < 5:
    time.sleep(0.2)
process.kill()
process.wait()

packed = sum(path.stat().st_size for path in (WORK / "archive").rglob("*.nii.gz")) / 1e6
print(f"archive: {packed:.1f} MB in files, {PACK.stat().st_size / 1e6:.1f} MB packed")
print("last step in the log before the interruption:", int(read_log("training.csv")[-1]["step"]))

# %% [markdown]
# ## Episodes
#
# An episode is one small exercise: a labelled support scan and a query in which the same structure must be found.
# Procedural episodes need no archive and never repeat. Real episodes have textures and ambiguities that no generator
# produces.

# %%
settings = load_settings(TrainSettings, WORK / "own.yaml")
sources = {
    "procedural": Populations(settings.tasks.synthetic),
    "real": EpisodeSampler(read_pack(PACK, settings.tasks)["real"], settings.tasks.real),
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
# ## Resume
#
# The same command with `--resume` continues from the last checkpoint. The final weights are identical, bit for bit, to
# those of a run without interruption. (This does not hold if `minutes:` in the settings limits the time.)

# %%
# !python -m medfewshot train work/own.yaml -o work/run --pack work/archive.safetensors --device cpu --resume

# %% [markdown]
# ## The curves
#
# Both logs are CSV files. TensorBoard shows them if it is installed, and `--mlflow URI_OR_FOLDER` sends them to MLflow.
#
# The training loss is noisy, because every step sees other tasks. It need not fall, because the structures become smaller
# towards the end of a run. Judge the run by the validation loss: it always uses the same tasks and the averaged weights
# that are saved in the end.

# %%
training, validation = (read_log(name) for name in ("training.csv", "validation.csv"))
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for rows, name, style in ((training, "training", "-"), (validation, "validation", "o-")):
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], style, label=name)
axes.set(xlabel="step", ylabel="loss: Dice and cross entropy")
axes.grid(axis="y", color="#e3e6e8")
axes.legend(frameon=False)
plt.show()
last = training[-1]
print(f"{last['episodes_per_second']:.1f} episodes per second; {last['skipped']:.0f} steps skipped")

# %% [markdown]
# ## Use the weights
#
# `work/run/start` contains the weights and `start.json`, which lists the settings and every subject and label that the
# training has seen. Use them with `--weights work/run/start` on the command line, or with `weights=` in Python. With
# weights, 0 steps are possible: the last layer is computed from the support set without any gradient step.
#
# We test the novel label, in scans that neither this run nor the package's weights have seen.


# %%
def mean_dice(weights: str | None, steps: int) -> float:
    """Mean Dice of the novel label over the queries, with the network only (no registration)."""
    settings = {"learner": "finetune", "weights": weights, "steps": steps, "budget_seconds": None}
    segmenter = medfewshot.adapt(support, labels={novel: names[novel]}, **settings)
    values = []
    for case in queries:
        found = medfewshot.segment(case.image_path, segmenter).labels == novel
        reference = read_label(case.label_path).data[0] == novel
        values.append(2 * (found & reference).sum() / max(1, found.sum() + reference.sum()))
    return float(np.mean(values))


results = {}
for name, weights in (("random", None), ("own archive", str(RUN / "start")), ("package", "default")):
    for steps in ADAPTATION:
        if weights is not None or steps:
            results[name, steps] = mean_dice(weights, steps)
            print(f"{name:12} {steps:3} steps: Dice {results[name, steps]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name, colour in (("random", "#6b747b"), ("own archive", "#e69f00"), ("package", "#0072b2")):
    points = [(steps, dice) for (start, steps), dice in results.items() if start == name]
    axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
axes.set(xlabel="steps of adaptation", ylabel=f"Dice of {names[novel]}, K = 3", ylim=(0, 1))
axes.grid(axis="y", color="#e3e6e8")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %%
few, most = ADAPTATION[1], ADAPTATION[-1]
display(
    Markdown(
        f"Without any step, the package's weights reach Dice {results['package', 0]:.2f} and those of this short run "
        f"{results['own archive', 0]:.2f}. After {few} steps: random weights {results['random', few]:.2f}, this archive "
        f"{results['own archive', few]:.2f}, package {results['package', few]:.2f}. After {most} steps: "
        f"{results['random', most]:.2f}, {results['own archive', most]:.2f} and {results['package', most]:.2f}."
    )
)
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# Weights save steps. With enough steps, random weights often catch up. These figures come from one choice of three
# labelled scans, five queries and one seed. The archive is also a favourable one: it shows the same kind of scan, and the
# novel structure lies beside the base structure.
#
# ## What a real run needs
#
# - **Many tasks.** One data set with one base label teaches only that label. List every data set that you may use under
#   `datasets:`, with all labels except the held-out ones. Keep procedural tasks in the mixture.
# - **Many episodes with large patches.** The weights in the package saw 12,528 episodes of seven to nine volumes with up
#   to 512,000 voxels. This run saw 120 episodes of two or three volumes with at most 41,000 voxels. `configs/train/cpu.yaml` is
#   made for some hours on two cores. `novel.yaml` and `default.yaml` took some minutes each on one large GPU with twelve
#   processes: `torchrun --nproc-per-node 12 -m medfewshot train ... --pack FILE`.
# - **A slower average**: `ema: 0.99` or more if the run has hundreds of steps.
# - **Two sets of held-out labels and subjects**: one for choices during the work, one for the final figure. Beside the
#   figure, say what the weights have seen. `start.json` lists it.
# - **Permission** to train on the scans and to share the weights.
#
# The training page of the documentation has the details.
