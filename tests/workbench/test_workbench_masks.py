"""Masks go from the page to the file and back without moving a voxel."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from workbench_toys import write_phantom

from medfewshot.errors import InputError
from medfewshot.io import read_image
from medfewshot.report.planes import grid_of
from medfewshot.types import Volume
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.masks import display_file, pack, place, unpack
from medfewshot.workbench.open_scan import OpenScan

SHAPE = (5, 6, 7)
ORDERS = [(order, flips) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def affine_of(order, flips, spacing=(0.7, 1.1, 3.0), tilt=0.0) -> np.ndarray:
    """An affine whose file axis i runs along world axis ``order[i]``, turned about two axes by ``tilt`` radians."""
    affine = np.zeros((4, 4))
    for axis, (world, flip, step) in enumerate(zip(order, flips, spacing, strict=True)):
        affine[world, axis] = flip * step
    c, s = np.cos(tilt), np.sin(tilt)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (11, -7, 3)
    affine[3, 3] = 1
    return affine


def volume(affine: np.ndarray, shape=SHAPE) -> Volume:
    return Volume(np.zeros((1, *shape), np.float32), affine)


@pytest.mark.parametrize("tilt", [0.0, 0.3], ids=["plumb", "oblique"])
def test_every_axis_order_shows_the_same_world(tilt):
    for order, flips in ORDERS:
        scan = volume(affine_of(order, flips, tilt=tilt))
        grid = grid_of(SHAPE, scan.affine)
        codes = nib.aff2axcodes(grid.affine)
        assert codes == ("R", "A", "S")
        numbers = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        turned = grid.to_ras(numbers)
        assert turned.shape == grid.shape
        for voxel in [(0, 0, 0), (1, 2, 3), tuple(n - 1 for n in grid.shape)]:
            there = np.unravel_index(int(turned[voxel]), SHAPE)
            assert np.allclose(grid.affine @ [*voxel, 1], scan.affine @ [*there, 1], atol=1e-9)


@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_a_drawn_voxel_is_the_voxel_of_the_file(order, flips, tmp_path):
    """Draw at a place in the world; nibabel and SimpleITK find the label there, in all 48 axis orders."""
    affine = affine_of(order, flips, tilt=0.2)
    write_phantom(tmp_path / "scan.nii.gz", affine=affine, shape=SHAPE)
    project = Project.create(
        tmp_path / "project", [tmp_path / "scan.nii.gz"], structures=[Structure("a", 3, "#ff0000")]
    )
    grid = grid_of(SHAPE, read_image(tmp_path / "scan.nii.gz").affine)
    labels = np.zeros(SHAPE, np.uint8)
    at = (1, 2, 1)
    place(labels, ((1, 2), (2, 3), (1, 2)), np.full((1, 1, 1), 3, np.uint8), grid=grid)
    project.save_mask("scan", labels, version=0)
    world = grid.affine @ [*at, 1]

    written = nib.load(project.mask_path("scan"))
    assert np.allclose(written.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    there = np.rint(np.linalg.inv(written.affine) @ world)[:3].astype(int)
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(there)] = 3
    assert np.array_equal(np.asarray(written.dataobj), expected)

    image = sitk.ReadImage(str(project.mask_path("scan")))
    index = image.TransformPhysicalPointToIndex([-world[0], -world[1], world[2]])
    assert image[index] == 3
    assert sitk.GetArrayViewFromImage(image).sum() == 3


def test_2d_images_have_one_slice():
    for shape in [(8, 5), (5, 8)]:
        scan = volume(affine_of((0, 1, 2), (-1, -1, 1)), shape)
        grid = grid_of(shape, scan.affine)
        assert OpenScan(scan).facts()["flat"] == 2
        assert grid.shape == (*shape, 1)
        labels = np.zeros(shape, np.uint8)
        place(labels, ((0, 1), (0, 1), (0, 1)), np.ones((1, 1, 1), np.uint8), grid=grid)
        assert labels[-1, -1] == labels.sum() == 1


def test_slices_keep_their_number():
    grid = grid_of(SHAPE, affine_of((2, 0, 1), (-1, 1, -1)))
    marks = np.zeros(SHAPE, np.uint8)
    for plane in range(3):
        marks[:] = 0
        grid.to_ras(marks)[tuple(1 if axis == plane else slice(None) for axis in range(3))] = 1
        there = np.flatnonzero(marks.any(axis=tuple(a for a in range(3) if a != grid.file_axis(plane))))
        assert there.tolist() == [grid.file_index((plane, 1))]


@pytest.mark.parametrize("image", [np.arange(210).reshape(SHAPE) - 90, np.linspace(-0.5, 1e5, 210).reshape(SHAPE)])
def test_the_page_gets_the_intensities(image):
    """Whole numbers exactly; others to 1/65535 of their range; on RAS axes with a diagonal affine."""
    grid = grid_of(SHAPE, affine_of((1, 2, 0), (-1, 1, -1), tilt=0.2))
    data = b"".join(display_file(image.astype(np.float32), grid))
    shown = nib.Nifti1Image.from_bytes(data)
    assert nib.aff2axcodes(shown.affine) == ("R", "A", "S")
    assert np.count_nonzero(shown.affine[:3, :3]) == 3
    error = np.abs(shown.get_fdata() - grid.to_ras(image)).max()
    assert error <= (0 if image.dtype.kind == "i" else 1e5 / 65534)


@pytest.mark.parametrize(("low", "high", "ct"), [(-1000, 1200, True), (-125, 275, True), (0, 1200, False)])
def test_ct_is_known_by_its_intensities(low, high, ct):
    """Also if they were clipped; the page then opens it in the window for soft tissue."""
    ramp = np.linspace(low, high, 210, dtype=np.float32).reshape(1, *SHAPE)
    scan = Volume(ramp, np.eye(4))
    assert OpenScan(scan).facts()["ct"] == ct


def test_packing_is_exact_and_bounded():
    box = ((0, 2), (1, 4), (2, 3))
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert np.array_equal(unpack(pack(labels), box), labels)
    for body in (b"", b"no gzip", pack(labels)[:-9], pack(np.zeros((2, 3, 2), np.uint8)), pack(np.zeros(1, np.uint8))):
        with pytest.raises(InputError):
            unpack(body, box)


def test_a_region_outside_the_scan_is_refused():
    grid = grid_of(SHAPE, np.eye(4))
    for box in [((0, 6), (0, 6), (0, 7)), ((-1, 2), (0, 6), (0, 7)), ((2, 2), (0, 6), (0, 7))]:
        with pytest.raises(InputError):
            place(np.zeros(SHAPE, np.uint8), box, np.zeros((1, 1, 1), np.uint8), grid=grid)
