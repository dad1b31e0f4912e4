"""The names that users may rely on. Adding one is a decision; removing one breaks somebody's script."""

from __future__ import annotations

import medfewshot

NAMES = {
    "__version__", "adapt", "segment_film",
    "segment", "evaluate", "load_segmenter", "VolumeSegmenter", "Segmentation", "LEARNERS",
    "METRICS", "InputError", "GridMismatchError", "Case", "Episode", "Learner", "Plan", "Query", "Segmenter", "Support",
    "Volume",
}  # fmt: skip


def test_public_names():
    assert set(medfewshot.__all__) == NAMES
    assert len(medfewshot.__all__) == len(NAMES)
    assert dir(medfewshot) == sorted(NAMES)


def test_every_public_name_is_there():
    for name in NAMES:
        assert getattr(medfewshot, name) is not None
    assert not hasattr(medfewshot, "nonsense")
