"""A structure lies at the same world coordinates whatever the axes, and nibabel and SimpleITK agree on where.

The phantom is three balls that no flip or turn maps onto themselves, drawn from an analytic function of millimetres.
The segmenter is a threshold: what is tested is the way there and back.
"""

from __future__ import annotations

import csv
from pathlib import Path

import corpus_dicom
import grids
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from medfewshot.inference import segment_volume
from medfewshot.io import as_2d, read_image, write_label
from medfewshot.learners.base import FunctionSegmenter
from medfewshot.planning import to_plan
from medfewshot.settings import InferenceSettings
from medfewshot.types import Normalization, Plan

CENTRES_MM = np.array([[12.0, -6, 4], [-14, 5, -9], [3, 13, 10]])
RADII_MM = np.array([9.0, 7, 5])
EXTENT_MM = np.array([52.0, 46, 40])
VALUE = 205

GRIDS = {
    "axis-aligned": ((2.0, 2, 2), (0, 0, 0)),
    "oblique": ((2.0, 2, 2), (17, -23, 38)),
    "anisotropic": ((1.3, 1.7, 4.6), (0, 0, 0)),
    "oblique anisotropic": ((1.3, 1.7, 4.6), (-9, 14, 44)),
}


def depth_mm(points: np.ndarray) -> np.ndarray:
    """How deep inside the phantom points ``(..., 3)`` (RAS mm) lie; negative outside."""
    distance = np.linalg.norm(points[..., None, :] - CENTRES_MM, axis=-1)
    return (RADII_MM - distance).max(-1)


def grid_of(name: str, orientation: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of a grid centred on the phantom, its axes reordered and flipped as ``orientation`` says."""
    spacing, degrees = (np.array(v, dtype=float) for v in GRIDS[name])
    shape = np.ceil(EXTENT_MM / spacing).astype(int)
    affine = grids.affine_of(spacing, degrees)
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    blank = nib.Nifti1Image(np.zeros(shape, np.uint8), affine).as_reoriented(orientation)
    return blank.affine, blank.shape


def draw(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Intensities of the phantom, float32: 100 outside, 300 inside, an edge of 2 mm."""
    points = np.moveaxis(grids.points_mm(affine, shape), 0, -1)
    return (100 + 200 * np.clip(0.5 + depth_mm(points) / 2, 0, 1)).astype(np.float32)


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """By nibabel or by SimpleITK, never by the package."""
    if path.name.endswith(".nii.gz"):
        return toys.save_nifti(path, data, affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def seen_by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(labels, RAS mm of every voxel)."""
    image = nib.load(path)
    index = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    return np.asanyarray(image.dataobj), nib.affines.apply_affine(image.affine, index)


def seen_by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    size = image.GetSize()
    corner, ends = (image.TransformIndexToPhysicalPoint(p) for p in ((0, 0, 0), tuple(n - 1 for n in size)))
    steps = []
    for axis in range(3):
        point = image.TransformIndexToPhysicalPoint(tuple(int(a == axis) for a in range(3)))
        steps.append(np.subtract(point, corner))
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    lps = index @ np.array(steps) + np.array(corner)
    assert np.allclose(lps[-1, -1, -1], ends, atol=1e-3)
    return sitk.GetArrayFromImage(image).T, lps * (-1, -1, 1)


def check_in_place(path: Path, slack_mm: float) -> None:
    """Every voxel deeper than ``slack_mm`` is marked and none farther outside than that, for every reader."""
    readers = [seen_by_itk, *([seen_by_nibabel] if path.name.endswith(".nii.gz") else [])]
    for read in readers:
        labels, points = read(path)
        depth = depth_mm(points)
        assert set(np.unique(labels)) == {0, VALUE}
        assert (labels[depth > slack_mm] == VALUE).all(), read.__name__
        assert (labels[depth < -slack_mm] == 0).all(), read.__name__


def plan_for(spacing: tuple[float, ...]) -> Plan:
    return grids.plan_of(spacing, labels={VALUE: "balls"}, normalization=(Normalization("window", 0, 1000, 200, 100),))


def threshold(image: torch.Tensor) -> torch.Tensor:
    return torch.cat([-20 * image, 20 * image], 1)


def test_the_phantom_tells_every_flip_and_turn():
    affine, shape = grid_of("axis-aligned", grids.ALL_ORIENTATIONS[0])
    points = np.moveaxis(grids.points_mm(affine, shape), 0, -1)
    right = depth_mm(points) > 0
    for orientation in grids.ALL_ORIENTATIONS:
        turned = points[..., orientation[:, 0].astype(int)] * orientation[:, 1]
        same = np.array_equal(orientation, grids.ALL_ORIENTATIONS[0])
        assert (grids.dice(right, depth_mm(turned) > 0) == 1) == same


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_all_48_axis_orders(tmp_path, grid, suffix):
    for number, orientation in enumerate(grids.ALL_ORIENTATIONS):
        affine, shape = grid_of(grid, orientation)
        path = save(tmp_path / f"{number}{suffix}", draw(affine, shape), affine)
        volume = read_image(path)
        plan = plan_for((2.0, 2.0, 2.0))
        out = tmp_path / f"out{number}{suffix}"
        write_label(out, segment_volume(volume, plan, FunctionSegmenter(threshold)).labels, volume)
        check_in_place(out, slack_mm=0.6 * max(volume.spacing_mm))
        if suffix == ".nii.gz":
            given_file, result = nib.load(path).header, nib.load(out).header
            for field in ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
                assert np.array_equal(given_file[field], result[field]), field
        else:
            before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
            assert before.GetSize() == after.GetSize()
            for one in ("GetSpacing", "GetOrigin", "GetDirection"):
                assert np.allclose(getattr(before, one)(), getattr(after, one)(), atol=1e-6)


@pytest.mark.parametrize("across", range(3), ids=["sagittal", "coronal", "axial"])
def test_volumes_of_one_slice_on_a_2d_plan(across):
    """In all 48 axis orders the planned image is the same, and the result lies on the volume's own grid."""
    spacing, degrees = (np.array(v, dtype=float) for v in GRIDS["oblique anisotropic"])
    shape = np.where(np.arange(3) == across, 1, np.ceil(EXTENT_MM / spacing).astype(int))
    affine = grids.affine_of(spacing, degrees)
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    first = grids.volume_of(draw(affine, tuple(shape)), affine)
    edges = np.delete(spacing, across)
    plan = grids.plan_of(1.5 * edges, axes=grids.axes_of(as_2d(first).affine), labels={VALUE: "balls"},
                         normalization=(Normalization("window", 0, 1000, 200, 100),))  # fmt: skip
    expected = to_plan(first, plan).image
    assert expected[0].shape == tuple(np.round((np.delete(shape, across) - 1) / 1.5 + 1))
    every = InferenceSettings(probabilities=True, uncertainty=True)
    for orientation in grids.ALL_ORIENTATIONS:
        volume = grids.reoriented(first, orientation)
        assert torch.allclose(to_plan(volume, plan).image, expected, atol=1e-4)
        found = segment_volume(volume, plan, FunctionSegmenter(threshold), every)
        depth = depth_mm(np.moveaxis(grids.points_mm(volume.affine, volume.spatial_shape), 0, -1))
        slack = 0.75 * edges.max()
        assert (found.labels[depth > slack] == VALUE).all()
        assert not found.labels[depth < -slack].any()
        assert found.probabilities.shape == (2, *volume.spatial_shape)
        assert ((found.probabilities[1] > 0.5) == (found.labels > 0)).mean() > 0.99
        assert found.uncertainty.shape == volume.spatial_shape


@settings(max_examples=40)
@given(
    spacing=st.tuples(*[st.floats(1, 6)] * 3),
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    orientation=st.sampled_from(grids.ALL_ORIENTATIONS),
    shift=st.tuples(*[st.floats(-6, 6)] * 3),
    target=st.tuples(*[st.floats(1.5, 4)] * 3),
    axes=st.tuples(*[st.floats(-180, 180)] * 3),
)
def test_any_grid_on_any_plan(tmp_path_factory, spacing, degrees, orientation, shift, target, axes):
    """Any spacing, rotation and offset, on a plan whose own frame is turned at will."""
    folder = tmp_path_factory.mktemp("any")
    spacing = np.array(spacing)
    shape = np.ceil(70 / spacing).astype(int)
    affine = grids.affine_of(spacing, degrees)
    affine[:3, 3] = shift - affine[:3, :3] @ ((shape - 1) / 2)
    turned = nib.Nifti1Image(draw(affine, tuple(shape)), affine).as_reoriented(orientation)
    volume = read_image(toys.save_nifti(folder / "a.nii.gz", np.asanyarray(turned.dataobj), turned.affine))
    plan = grids.plan_of(
        target,
        axes=grids.axes_of(grids.affine_of((1, 1, 1), axes)),
        labels={VALUE: "balls"},
        normalization=(Normalization("window", 0, 1000, 200, 100),),
        patch_size=(32, 32, 32),
    )
    write_label(folder / "out.nii.gz", segment_volume(volume, plan, FunctionSegmenter(threshold)).labels, volume)
    check_in_place(folder / "out.nii.gz", slack_mm=0.75 * max(*spacing, *target))


def make_mixed_support(root: Path) -> None:
    """Three supports, no two alike in axes, spacing or format."""
    for number, (grid, orientation, suffix) in enumerate(
        (("axis-aligned", 0, ".nii.gz"), ("anisotropic", 31, ".nrrd"), ("oblique", 44, ".mha"))
    ):
        affine, shape = grid_of(grid, grids.ALL_ORIENTATIONS[orientation])
        points = np.moveaxis(grids.points_mm(affine, shape), 0, -1)
        save(root / "images" / f"s{number}{suffix}", draw(affine, shape), affine)
        save(root / "labels" / f"s{number}.nii.gz", (depth_mm(points) > 0).astype(np.uint8) * VALUE, affine)


def test_supports_and_queries_of_every_kind_in_one_call(tmp_path, monkeypatch):
    """Through the command line: mixed supports; 48 NIfTI and NRRD queries on four grids, and a DICOM series."""
    toys.install(monkeypatch)
    from medfewshot.cli import main

    make_mixed_support(tmp_path / "annotated")
    for number, orientation in enumerate(grids.ALL_ORIENTATIONS):
        affine, shape = grid_of(list(GRIDS)[number % 4], orientation)
        suffix = (".nii.gz", ".nrrd")[number // 4 % 2]
        save(tmp_path / "cohort" / f"q{number:02}{suffix}", draw(affine, shape), affine)
    make_series(tmp_path / "cohort")
    words = ["medfewshot", "segment", "cohort", "--support-dir", "annotated", "--learner", "toy", "-o", "out",
             "--no-previews", "--quiet", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    results = sorted(path for path in (tmp_path / "out").iterdir() if path.name.endswith((".nii.gz", ".nrrd")))
    assert len(results) == 49
    for path in results:
        check_in_place(path, slack_mm=3.6)
    rows = list(csv.DictReader((tmp_path / "out" / "statistics.csv").open()))
    centroids = np.array([[float(row[f"centroid_{axis}_mm"]) for axis in "xyz"] for row in rows])
    assert np.abs(centroids - np.median(centroids, 0)).max() < 1.5


def make_series(folder: Path) -> None:
    """The phantom as an axial CT series: x to the left, y to the back, z upwards."""
    spacing = np.array(corpus_dicom.SPACING)
    shape = tuple(np.ceil(EXTENT_MM / spacing).astype(int))
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    data = draw(affine, shape).astype(np.int16)
    x, y, z = np.diag([-1.0, -1, 1]) @ affine[:3, 3]
    for index in range(shape[2]):
        ds = corpus_dicom.one_slice(data[:, :, index], index, ImagePositionPatient=[x, y, z + index * spacing[2]])
        corpus_dicom.save(ds, folder / "series" / f"{index:03}.dcm")
