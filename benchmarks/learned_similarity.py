"""The atlas with features of the package's weights as similarity, in place of the image or beside it.

    python benchmarks/learned_similarity.py --data ../shared/data --runs runs/similarity

K = 5 supports and other subjects of the support pools, planned grid, one thread. Features are those of the finest
decoder level of ``default``, reduced to ``CHANNELS`` principal components over supports and query. Prints mean Dice and
seconds a query; a query that is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from pool import Draw, draw_from_pool, mean_dice
from torch import Tensor

from medfewshot.learners import load_start
from medfewshot.learners.atlas import Atlas, AtlasSegmenter
from medfewshot.learners.features import start_backbone, to_voxels, voxel_features

CELLS = [
    ("Task04_Hippocampus", 100, 4),
    ("abd-mr-chaos", 100, 3),
    ("Task04_Hippocampus", 101, 4),
    ("abd-mr-chaos", 101, 3),
]
"""Dataset, draw, queries."""
SHOTS, CHANNELS = 5, 4


def principal_channels(features: list[Tensor], count: int) -> list[Tensor]:
    """Maps ``(D, *S_k)`` -> ``(count, *S_k)``: the directions in which they vary most, each of unit variance."""
    values = torch.cat([one.flatten(1) for one in features], 1)
    mean = values.mean(1, keepdim=True)
    scale, directions = torch.linalg.eigh((values - mean) @ (values - mean).T / values.shape[1])
    basis = directions[:, -count:] / scale[-count:].clamp_min(1e-8).sqrt()
    return [torch.einsum("dc,d...->c...", basis, one - mean.view(-1, *[1] * (one.ndim - 1))) for one in features]


@torch.no_grad()
def feature_maps(images: list[Tensor], draw: Draw) -> list[Tensor]:
    """``(D, *S)`` of every image ``(C, *S)``, at its own voxels."""
    network = start_backbone(load_start("default").module, draw.support, "atlas").eval()
    return [to_voxels(voxel_features(network, i[None]), network.fold, i.shape[1:])[0] for i in images]


def votes(draw: Draw, query: Tensor, kind: str) -> Tensor:
    images = [*draw.support.images, query]
    channels = [i.float() for i in images]
    if kind != "image":
        reduced = principal_channels(feature_maps(images, draw), CHANNELS)
        beside = kind == "image and features"
        channels = [torch.cat([i, f]) if beside else f for i, f in zip(images, reduced, strict=True)]
    atlas: AtlasSegmenter = Atlas().adapt(draw.support)
    matched = AtlasSegmenter(
        channels[:-1], atlas.labels, classes=atlas.classes, spacing_mm=atlas.spacing_mm, options=atlas.options
    )
    return matched.votes(channels[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/similarity"))
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    for dataset, number, queries in CELLS:
        path = arguments.runs / f"{dataset}-{number}.json"
        done = json.loads(path.read_text()) if path.exists() else {}
        draw = draw_from_pool(arguments.data, dataset, SHOTS, number, queries)
        for i, (image, label) in enumerate(zip(draw.images, draw.labels, strict=True)):
            for kind in ("image", "features", "image and features"):
                if f"{kind}.{i}" in done:
                    continue
                begun = time.process_time()
                found = votes(draw, image, kind).argmax(0)
                done[f"{kind}.{i}"] = [mean_dice(found, label, draw.plan.classes), time.process_time() - begun]
                path.write_text(json.dumps(done, indent=1) + "\n")
        for kind in ("image", "features", "image and features"):
            found = torch.tensor([value for name, value in done.items() if name.rpartition(".")[0] == kind])
            print(
                f"| {dataset} | {number} | {kind} | {found[:, 0].mean():.3f} | {found[:, 1].mean():.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
