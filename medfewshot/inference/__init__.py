"""Inference: segment a volume on its own grid, in bounded memory.

Probabilities, not labels, are interpolated to the original grid; the class is chosen there. That keeps edges smooth and
label values intact. It happens slab by slab along the longest planned axis, so the largest array that grows with the
number of classes is one slab, for any size of the scan.
"""

from medfewshot.inference.segment import Segmentation, segment_volume
from medfewshot.inference.tracking import LabelTracker, frames_around
from medfewshot.inference.windows import MemoryLimits

__all__ = ["LabelTracker", "MemoryLimits", "Segmentation", "frames_around", "segment_volume"]
