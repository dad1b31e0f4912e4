"""Inference: a volume and a segmenter -> labels on the volume's own grid, in bounded memory.

Probabilities, not labels, are brought back to the original grid, and compared only there: the arg max of interpolated
probabilities keeps edges smooth and values whole. That happens slab by slab along the longest planned axis, so the
largest array that grows with the number of classes is one slab, whatever the size of the scan.
"""

from medfewshot.inference.segment import Segmentation, segment_volume
from medfewshot.inference.windows import MemoryLimits

__all__ = ["MemoryLimits", "Segmentation", "segment_volume"]
