"""3D Slicer's segmentations: random layers, names and extents say the same as a plain label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from io_samples import LPS, OBLIQUE

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.evaluation import evaluate_pairs
from medfewshot.io import in_common_frame, in_frame_of, read_label
from medfewshot.types import Volume

SHAPE = (6, 7, 8)
SCAN = Volume(np.zeros((1, *SHAPE), np.float32), OBLIQUE)
NAMES = ("liver", "Spleen", "left kidney", "cyst")


def write(
    path: Path,
    layers: np.ndarray,
    segments: list[tuple[str, int, int]],
    start: tuple[int, ...] = (0, 0, 0),
    *,
    affine: np.ndarray = OBLIQUE,
) -> Path:
    """Write ``layers (L, *T)`` as Slicer does. Segments: name, layer, value. ``start``: first voxel on the scan."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(layers.T), isVector=True)
    if len(layers) == 1:
        image = sitk.GetImageFromArray(np.ascontiguousarray(layers[0].T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((lps @ [*start, 1])[:3].tolist())
    for number, (name, layer, value) in enumerate(segments):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", str(layer))
        image.SetMetaData(f"Segment{number}_Color", f"{number / 10} 0.5 1")
    sitk.WriteImage(image, str(path))
    return path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_layers_names_and_extents(tmp_path: Path, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    box = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in SHAPE]
    inside = tuple(slice(a, b) for a, b in box)
    truth = np.zeros(SHAPE, np.uint8)
    truth[inside] = rng.integers(0, len(NAMES) + 1, truth[inside].shape)
    count = data.draw(st.integers(1, 3))
    order = data.draw(st.permutations(range(len(NAMES))))
    layers = np.zeros((count, *truth[inside].shape), np.uint8)
    segments = []
    for position, number in enumerate(order):
        layer = position % count
        value = position // count + 1 if count > 1 else position + 1
        layers[layer][truth[inside] == number + 1] = value
        segments.append((NAMES[number], layer, value))
    path = write(tmp_path / "a.seg.nrrd", layers, segments, tuple(a for a, _ in box))
    label = in_frame_of(SCAN, read_label(path))
    value_of = {name: value for value, name in label.names.items()}
    assert sorted(value_of) == sorted(NAMES)
    for number, name in enumerate(NAMES, start=1):
        assert np.array_equal(label.data[0] == value_of[name], truth == number)
        colour = label.colours[value_of[name]]
        assert colour[0] == pytest.approx([one[0] for one in segments].index(name) / 10)


def test_overlapping_segments_and_values_without_a_name_are_refused(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[:, :3, :3, :3] = 1
    both = write(tmp_path / "a.seg.nrrd", layers, [("liver", 0, 1), ("cyst", 1, 1)])
    with pytest.raises(InputError, match="segments 'liver' and 'cyst' overlap in 27 voxels"):
        read_label(both)
    layers[1] = np.roll(layers[1], 3, axis=0)
    one = write(tmp_path / "b.seg.nrrd", layers, [("liver", 0, 1)])
    with pytest.raises(InputError, match="27 marked voxels belong to no segment"):
        read_label(one)
    twice = write(tmp_path / "c.seg.nrrd", layers[:1], [("liver", 0, 1), ("cyst", 0, 1)])
    with pytest.raises(InputError, match="names label 1 both 'liver' and 'cyst'"):
        read_label(twice)


def test_marks_outside_the_scan_are_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "a.seg.nrrd", np.ones((1, 3, 3, 3), np.uint8), [("liver", 0, 1)], (5, 0, 0))
    with pytest.raises(GridMismatchError, match="18 of its marked voxels lie outside"):
        in_frame_of(SCAN, read_label(outside))


def test_two_extents_are_scored_on_their_union(tmp_path: Path) -> None:
    cube = np.ones((1, 3, 3, 3), np.uint8)
    first = write(tmp_path / "a.seg.nrrd", cube, [("liver", 0, 1)], (1, 1, 1))
    second = write(tmp_path / "b.seg.nrrd", cube, [("liver", 0, 1)], (2, 1, 1))
    (score,) = evaluate_pairs([("x", first, second)]).scores
    assert score.dice == pytest.approx(2 * 18 / 54)
    one, other = in_common_frame(read_label(first), read_label(second))
    assert one.spatial_shape == other.spatial_shape == (4, 3, 3)
