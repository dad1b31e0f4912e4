"""The names that users may rely on. Adding one is a decision; removing one breaks somebody's script."""

from __future__ import annotations

import pytest

import medfewshot
from medfewshot import types

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


@pytest.mark.parametrize(("old", "new"), [("Doubt", "UncertainStructure"), ("WHOLE_VALUES", "MAX_WHOLE_VALUES")])
def test_old_names_warn(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(types, old) is getattr(types, new)
    with pytest.raises(AttributeError):
        _ = types.nonsense
