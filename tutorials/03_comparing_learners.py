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
# # Prototypes, MAML and transfer learning on the same scans
#
# Four learners adapt to the same five labelled scans. Each one starts from random weights and from the weights that the
# package contains. How good is each, and after how many steps and seconds? No GPU is needed.
#
# The comparison is small: at most 40 steps, one choice of the labelled scans, five scans to score. It shows how the
# learners behave. It does not decide between learners that are close to each other.

# %% tags=["parameters"]
SHOTS, QUERIES, STEPS = 5, 5, (0, 10, 40)

# %%
import os
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from scans import draw_scans, find_scans

from medfewshot.bundle import VolumeSegmenter
from medfewshot.learners import LEARNERS, load_start
from medfewshot.workflow import as_volume, prepare, read_supports

BEGUN = time.perf_counter()
cases, names, what = find_scans(SHOTS + QUERIES)
print(f"{len(cases)} scans: {what}")
draw_scans(cases[:SHOTS], names)

# %% [markdown]
# ## The learners
#
# | learner | family | what it does with the labelled scans (the *support set*) |
# |---|---|---|
# | `prototype` | metric-based | compares every voxel with the mean features of each structure |
# | `finetune` | transfer learning | trains a network that starts from given weights |
# | `maml` | optimizer-based | starts from weights that were trained to become good after a few steps |
# | `protomaml` | both | starts with a head made of prototypes, then takes gradient steps |
#
# ## The same support set for each learner
#
# `medfewshot.adapt(pairs, learner=...)` does everything below in one line. Here we call the parts one by one, so that all
# learners get the same plan and the same support set, and MAML can start from weights made for another learner.

# %%
scans = replace(read_supports(cases[:SHOTS]), names=names)
prepared = prepare(scans)
plan, support = prepared.plan, prepared.support
queries = [(as_volume(case.image_path), as_volume(case.label_path, label=True).data[0]) for case in cases[SHOTS:]]
print(f"patches of {plan.patch_size} voxels at {plan.spacing_mm} mm; structures: {', '.join(names.values())}")


def start_for(learner: str, weights: str | None):
    """The package's weights, or only their feature network if the learner needs another head; None: random weights."""
    if weights is None:
        return None
    start = load_start(weights)
    return start.module if start.learner == learner else start.backbone


def mean_dice(found: np.ndarray, reference: np.ndarray) -> float:
    """Mean Dice over the structures."""
    pairs = [(found == value, reference == value) for value in plan.label_values]
    return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in pairs]))


# %% [markdown]
# Two combinations are skipped. Without steps and without weights, `prototype` would compare random features and
# `finetune` would have a random head. `maml` and `protomaml` always take at least the 5 steps of their inner loop.
# The seconds are processor time, which does not depend on other programs as much as the time on the clock.

# %%
rows, pictures = [], {}
for learner in ("prototype", "finetune", "maml", "protomaml"):
    for weights in (None, "default"):
        for steps in STEPS:
            if steps == 0 and weights is None and learner in ("prototype", "finetune"):
                continue
            begun = time.process_time()
            adapted = LEARNERS[learner].learner(start=start_for(learner, weights), steps=steps, seed=0).adapt(support)
            seconds = time.process_time() - begun
            segmenter = VolumeSegmenter(plan, adapted, {})
            found = [segmenter.segment(image).labels for image, _ in queries]
            dice = [mean_dice(one, reference) for one, (_, reference) in zip(found, queries, strict=True)]
            rows.append((learner, weights or "random", adapted.record.get("steps", steps), seconds, np.mean(dice)))
            pictures[learner, weights or "random"] = found[0]

# %%
lines = ["| learner | weights | steps | processor seconds | mean Dice |", "|---|---|---|---|---|"]
lines += [f"| {name} | {weights} | {steps} | {s:.1f} | {dice:.3f} |" for name, weights, steps, s, dice in rows]
display(Markdown("\n".join(lines)))

# %%
COLOURS = {"prototype": "#009e73", "finetune": "#0072b2", "maml": "#d55e00", "protomaml": "#cc79a7"}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for learner, colour in COLOURS.items():
    for weights, style in (("default", "-"), ("random", ":")):
        mine = np.array([row[2:] for row in rows if row[:2] == (learner, weights)])
        for panel, column in zip(axes, (0, 1), strict=True):
            panel.plot(mine[:, column], mine[:, 2], style, marker="o", markersize=4, color=colour)
axes[0].set(xlabel="gradient steps", ylabel="mean Dice on unseen scans", ylim=(0, 1))
axes[1].set(xlabel="processor seconds of adaptation")
for panel in axes:
    panel.grid(color="#e3e6e8")
lines = [plt.Line2D([], [], color=colour) for colour in COLOURS.values()]
lines += [plt.Line2D([], [], color="#22272b", linestyle=style) for style in ("-", ":")]
figure.legend(lines, [*COLOURS, "the package's weights", "random weights"], loc="outside right center", frameon=False)
plt.show()

# %% [markdown]
# ## Pictures
#
# The first scan to score, after the largest number of steps, in the slice that contains most of the structures.

# %%
image, reference = queries[0]
middle = int((reference > 0).sum((0, 1)).argmax())
overlay = plt.matplotlib.colors.ListedColormap(["#e69f00", "#56b4e9", "#009e73", "#cc79a7"][: max(1, len(names))])


def draw(panel, labels: np.ndarray | None, title: str) -> None:
    panel.imshow(np.rot90(image.data[0, :, :, middle]), cmap="gray")
    if labels is not None:
        ranks = np.searchsorted((0, *plan.label_values), labels[:, :, middle])
        panel.imshow(np.ma.masked_equal(np.rot90(ranks), 0), cmap=overlay, vmin=1, vmax=len(names), alpha=0.6)
    panel.set_title(title, fontsize=9)
    panel.axis("off")


figure, axes = plt.subplots(2, 1 + len(COLOURS), figsize=(10, 5.4), layout="constrained")
draw(axes[0, 0], None, "scan")
draw(axes[1, 0], reference, "reference")
for panels, weights in zip(axes, ("random", "default"), strict=True):
    for panel, learner in zip(panels[1:], COLOURS, strict=True):
        labels = pictures[learner, weights]
        draw(panel, labels, f"{learner}, {weights}: {mean_dice(labels, reference):.2f}")
plt.show()

# %% [markdown]
# ## What the figures show

# %%
dice_of = {(*row[:2], row[2]): row[4] for row in rows}
last = {(name, weights): dice for name, weights, _, _, dice in rows}
zero = dice_of.get(("finetune", "default", 0), float("nan"))
gain = {name: last[name, "default"] - last[name, "random"] for name in COLOURS}
display(
    Markdown(
        f"- `finetune` with the package's weights reaches Dice {zero:.2f} **without any gradient step**: it computes "
        "the last layer directly.\n"
        f"- After the most steps, the package's weights change the Dice by "
        + ", ".join(f"{difference:+.2f} (`{name}`)" for name, difference in gain.items())
        + "."
    )
)

# %% [markdown]
# - **Without a step, weights decide, and they suit the learner that they were trained for.** The package's weights were
#   trained for `finetune`. `prototype` compares features by their angle, and these features were not trained for that.
# - **After 40 steps, random weights are as good on these scans**: small pictures of one easy structure. Structures that
#   are hard to find take longer.
# - **This is not MAML at its best.** MAML needs weights that were trained through its inner loop, and the package has none.
#   From random weights, `maml` is little more than `finetune`.
# - One choice of the labelled scans, one seed, five scans and 40 steps: ignore differences of a few hundredths.
#
# `medfewshot benchmark` compares learners over many choices, data sets and whole query sets. The results page of the
# documentation has those figures.
#
# ## The mathematics
#
# A network $f_\theta$ computes a feature vector $f_\theta(x) \in \mathbb{R}^D$ for every voxel $x$. The support set
# consists of labelled voxels $(x_i, y_i)$.
#
# **Metric-based learners** compare features with a distance $d(x_i, x_j) = \lVert L\,(f_\theta(x_i) - f_\theta(x_j))
# \rVert^2$. With $L = I$ this is the squared Euclidean distance. A learned $L$ gives a Mahalanobis distance with the
# matrix $L^\top L$. `prototype` compares each voxel with the mean of each class $c$, its *prototype*
# (Snell et al. 2017):
#
# $$p_c = \frac{\sum_j [y_j = c]\, f_\theta(x_j)}{\sum_j [y_j = c]}, \qquad
# P(y_i = c \mid x_i) = \frac{e^{\alpha\, s(f_\theta(x_i),\, p_c)}}{\sum_k e^{\alpha\, s(f_\theta(x_i),\, p_k)}}.$$
#
# The similarity $s$ is the negative distance to the prototype or, by default, the cosine
# $\langle f, p \rangle / (\lVert f \rVert \lVert p \rVert)$. Meta-training learns $\theta$, the temperature $\alpha$
# and, if used, $L$. A new task needs no gradient step, only means.
#
# **Optimizer-based learners** take gradient steps on the loss $\mathcal{L}_S$ of the support set:
#
# $$\theta_{t+1} = \theta_t - \alpha\, \nabla \mathcal{L}_S(\theta_t).$$
#
# *Transfer learning* (`finetune`) takes $\theta_0$ from another training and repeats this step until the network fits.
# *MAML* (Finn et al. 2017) chooses $\theta_0$ so that $T$ steps end well. It minimises the loss $\mathcal{L}_Q$ of the
# query after these steps, averaged over tasks: $\min_{\theta_0} \mathbb{E}\, [\mathcal{L}_Q(\theta_T)]$. The chain
# rule through one step gives the meta-gradient
#
# $$\frac{d\,\mathcal{L}_Q(\theta_1)}{d\,\theta_0} =
# \big(I - \alpha\, \nabla^2 \mathcal{L}_S(\theta_0)\big)\, \nabla \mathcal{L}_Q(\theta_1).$$
#
# First-order MAML ignores the Hessian $\nabla^2 \mathcal{L}_S$. *ProtoMAML* (Triantafillou et al. 2020) joins both
# families. In
#
# $$-\lVert f - p_c \rVert^2 = 2\, p_c^\top f - \lVert p_c \rVert^2 - \lVert f \rVert^2$$
#
# the last term is the same for every class. Therefore a prototype is a linear layer with weights $2 p_c$ and bias
# $-\lVert p_c \rVert^2$. ProtoMAML starts with this layer and takes gradient steps.
#
# Automatic differentiation confirms both identities: on a quadratic support loss with Hessian $A$, and on random
# features.

# %%
torch.manual_seed(0)
A = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
goal, alpha = torch.tensor([1.0, -1.0]), 0.1
theta = torch.tensor([0.3, 0.7], requires_grad=True)

(step,) = torch.autograd.grad(0.5 * theta @ A @ theta, theta, create_graph=True)
adapted = theta - alpha * step
(meta_gradient,) = torch.autograd.grad(0.5 * (adapted - goal).square().sum(), theta)
g = adapted.detach() - goal  # gradient of the query loss after the step
print("through the step:", meta_gradient.tolist(), "  (I - alpha A) g:", ((torch.eye(2) - alpha * A) @ g).tolist())
print("first order:     ", g.tolist())

features, prototypes = torch.randn(1000, 8), torch.randn(3, 8)
by_distance = (-torch.cdist(features, prototypes).square()).softmax(1)
by_head = (features @ (2 * prototypes).T - prototypes.square().sum(1)).softmax(1)
print("prototypes and linear head differ by at most", f"{float((by_distance - by_head).abs().max()):.0e}")

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")

# %% [markdown]
# To train weights for a learner of your choice, see the [next tutorial](04_meta_training.md). Set `learner: maml` in its
# settings.
