"""A segmenter on disk, which is also a MONAI bundle.

``segmenter.json`` (plan, learner, supports; plain data) and ``weights.safetensors`` are all that this package reads.
``configs/metadata.json``, ``configs/inference.json``, ``docs/README.md`` and ``LICENSE`` make the folder a bundle that
``python -m monai.bundle run`` can run: see :mod:`medfewshot.bundle.monai_files`.
"""

from medfewshot.bundle.segmenter import (
    DESCRIPTION,
    FORMAT_VERSION,
    WEIGHTS,
    VolumeSegmenter,
    check_free,
    load_segmenter,
)

__all__ = ["DESCRIPTION", "FORMAT_VERSION", "WEIGHTS", "VolumeSegmenter", "check_free", "load_segmenter"]
