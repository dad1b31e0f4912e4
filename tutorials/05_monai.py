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
# # medfewshot in MONAI
#
# A model of medfewshot can be used as a MONAI transform, with a MONAI-style inferer, and as a MONAI bundle. This tutorial
# shows all three.

# %% tags=["parameters"]
STEPS = 150

# %%
import os
import shutil
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai import bundle
from monai.data import DataLoader, Dataset
from monai.networks.utils import one_hot
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd, Spacingd
from scans import WORK, copy_cases, draw_scans, find_scans

import medfewshot
from medfewshot.integrations import FewShotInferer, FewShotSegmentd, SegmentationMetric, load_network
from medfewshot.io import read_label

warnings.simplefilter("ignore")
BEGUN = time.perf_counter()
cases, names, what = find_scans(6)
print(f"{len(cases)} scans: {what}")
draw_scans(cases[:3], names)
support = [(case.image_path, case.label_path) for case in cases[:3]]
queries = [{"image": str(case.image_path), "label": str(case.label_path)} for case in cases[3:]]

# %% [markdown]
# ## A transform
#
# Adapt once and give the segmenter to `FewShotSegmentd`. Any transforms may come before it. Here the pipeline changes the
# orientation and the spacing, and `Invertd` brings the segmentation back to the grid of the file.
#
# We use the learner `finetune`, which trains a network only. Its segmenter contains no scan, so you may share it. The
# default also registers the support scans to each query; its segmenter contains them.

# %%
segmenter = medfewshot.adapt(support, learner="finetune", steps=STEPS, budget_seconds=None, labels=names)
pipeline = Compose(
    [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="LPS", labels=None),
        Spacingd("image", pixdim=(1.2, 1.2, 1.5)),
        FewShotSegmentd("image", segmenter=segmenter),
    ]
)
back = Invertd("pred", transform=pipeline, orig_keys="image", nearest_interp=True)
done = pipeline({"image": queries[0]["image"]})
original = back(dict(done))["pred"]
print("on the pipeline's grid:", tuple(done["pred"].shape), "  on the file's:", tuple(original.shape))

# %%
image = LoadImaged("image")({"image": queries[0]["image"]})["image"]
middle = int(np.asarray(original[0] > 0).sum((0, 1)).argmax())
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for panel in axes:
    panel.imshow(np.rot90(image[..., middle]), cmap="gray")
    panel.axis("off")
axes[1].imshow(np.ma.masked_equal(np.rot90(original[0, ..., middle]), 0), cmap="autumn", alpha=0.6)
axes[0].set_title("scan")
axes[1].set_title("segmentation on the grid of the file")
plt.show()

# %% [markdown]
# ## An inferer and a metric
#
# `FewShotInferer` accepts images as they are in the file. `SegmentationMetric` accumulates values like every MONAI metric.
# A false alarm counts as Dice 0. The number of cases is printed beside each mean.

# %%
segmenter.save(WORK / "bundle")
network = load_network(WORK / "bundle", "cpu")
inferer = FewShotInferer(network.plan)
load = Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])
dice, hd95 = (SegmentationMetric(name, get_not_nans=True) for name in ("dice", "hd95_mm"))
for batch in DataLoader(Dataset(queries, load), batch_size=1):
    labels = inferer(batch["image"], network)
    values = torch.tensor([0, *network.plan.label_values])
    ranks = [torch.bucketize(volume.as_tensor().long(), values)[0] for volume in (labels, batch["label"])]
    found, truth = (one_hot(r[None, None] if r.ndim == 3 else r[None], len(values)) for r in ranks)
    dice(found, truth)
    hd95(found, truth, spacing_mm=batch["image"].pixdim[0].tolist())
for name, metric in {"Dice": dice, "HD95 in mm": hd95}.items():
    mean, counted = metric.aggregate("mean_batch")
    per_class = ", ".join(
        f"{n}: {m:.3f} ({int(c)} cases)" for n, m, c in zip(names.values(), mean, counted, strict=True)
    )
    print(f"{name}: {per_class}")

# %% [markdown]
# ## A bundle
#
# `save` writes a MONAI bundle. MONAI runs it on every NIfTI file of a folder. Here we call it from Python; this is the
# command line:
#
# ```
# python -m monai.bundle run --config_file BUNDLE/configs/inference.json --bundle_root BUNDLE \
#     --dataset_dir SCANS --output_dir RESULTS
# ```

# %%
print("\n".join(sorted(str(path.relative_to(WORK)) for path in (WORK / "bundle").rglob("*") if path.is_file())))

# %%
copy_cases(cases[3:], WORK / "monai_in")
shutil.rmtree(WORK / "monai_out", ignore_errors=True)  # a bundle replaces no file
bundle.run(
    config_file=str(WORK / "bundle/configs/inference.json"),
    bundle_root=str(WORK / "bundle"),
    dataset_dir=str(WORK / "monai_in"),
    output_dir=str(WORK / "monai_out"),
)
for path in sorted((WORK / "monai_out").iterdir()):
    ours = medfewshot.segment(WORK / "monai_in" / path.name, segmenter).labels
    print(path.name, "identical to the result of medfewshot:", np.array_equal(read_label(path).data[0], ours))

# %%
print(f"This tutorial took {time.perf_counter() - BEGUN:.0f} seconds on {os.cpu_count()} CPU cores.")
