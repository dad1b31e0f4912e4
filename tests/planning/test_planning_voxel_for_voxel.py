"""If only one side states millimetres, scan and supports are compared voxel for voxel."""

from __future__ import annotations

import numpy as np
import pytest

from medfewshot.planning import make_plan, to_plan, voxel_for_voxel
from medfewshot.quality import support_profile
from medfewshot.types import Volume

RNG = np.random.default_rng(0)
LABEL = np.zeros((1, 40, 30), np.int16)
LABEL[0, 10:25, 8:20] = 1


def volume(spacing: float, *, has_spacing: bool, shape: tuple[int, ...] = (40, 30)) -> Volume:
    affine = np.diag([-spacing, -spacing, 1.0 if len(shape) == 2 else spacing, 1.0])
    return Volume(RNG.normal(100, 9, (1, *shape)).astype(np.float32), affine, has_spacing=has_spacing)


def planned_shape(support: Volume, query: Volume) -> tuple[tuple[int, ...], tuple[str, ...]]:
    label = Volume(LABEL, support.affine, has_spacing=support.has_spacing)
    plan = make_plan([support], [label])
    profile = support_profile([support], [label], plan)
    placed, warnings = voxel_for_voxel(query, plan, profile)
    return tuple(to_plan(placed, plan).image.shape[1:]), warnings


@pytest.mark.parametrize(("of_support", "of_query"), [(1.0, 0.2), (0.2, 1.0), (0.00025, 1.0)])
def test_a_picture_and_a_scan_in_mm_have_one_size(of_support: float, of_query: float) -> None:
    """Without this, a query of 0.2 mm was shrunk five times to fit supports drawn as PNG."""
    support = volume(of_support, has_spacing=of_support != 1)
    query = volume(of_query, has_spacing=of_query != 1)
    itself, _ = planned_shape(support, support)
    shape, (warning,) = planned_shape(support, query)
    assert shape == itself
    assert "no spacing" in warning


def test_where_both_or_none_state_mm_nothing_changes() -> None:
    for known in (True, False):
        assert planned_shape(volume(0.5, has_spacing=known), volume(0.5, has_spacing=known))[1] == ()
