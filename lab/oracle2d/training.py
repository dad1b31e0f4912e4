"""What a learner may be trained on before it is tested by this protocol."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch

from lab.oracle2d.protocol import Fold, Setting, training_slices
from lab.oracle2d.scans import Stack, normalise, statistics_of
from medfewshot.episodes import Example


def training_examples(
    stacks: Sequence[Stack], fold: Fold, setting: Setting, test_labels: Collection[int], modality: str
) -> list[Example]:
    """Slices for :class:`~medfewshot.episodes.EpisodeSampler`: training scans of ``fold`` only, test classes erased.

    ``stacks``: all scans of the dataset, in file-name order. Labels keep their file values; those of ``test_labels``
    become background (which in setting 2 no slice shows anyway). Image ``(1, X, Y)``, label ``(X, Y)``.
    """
    chosen = [stacks[index] for index in fold.training]
    statistics = statistics_of([stack.image for stack in chosen]) if modality == "CT" else None
    examples = []
    for stack in chosen:
        image = normalise(stack, statistics)
        for index in training_slices(stack.label, setting, test_labels):
            label = np.where(np.isin(stack.label[index], list(test_labels)), 0, stack.label[index])
            examples.append(
                Example(
                    stack.subject_id,
                    torch.from_numpy(image[index].copy())[None],
                    torch.from_numpy(label.astype(np.int64)),
                    stack.spacing_mm,
                )
            )
    return examples
