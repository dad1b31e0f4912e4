"""Previews, plots and tables: orientation against a phantom, numbers of boxes that are known on paper."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.inference import Segmentation
from medfewshot.io import write_csv
from medfewshot.report import paint, planes, save_dice_plot, save_preview, structure_statistics
from medfewshot.structures import renumber
from medfewshot.types import Volume
from medfewshot.workflow.measures import SIZES, measure, unit_of

NAMES = {1: "liver", 2: "spleen"}


def read_png(path) -> np.ndarray:
    """``(rows, columns, 3)`` in 0..1; a file that is no PNG raises."""
    from matplotlib.image import imread

    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return imread(path, format="png")[..., :3]


def near_colour(picture: np.ndarray, colour: str, tolerance: float = 0.12) -> int:
    from matplotlib.colors import to_rgb

    return int((np.abs(picture - to_rgb(colour)).max(axis=-1) < tolerance).sum())


def ras_phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey body with one bright box in the patient's right, anterior, superior corner; RAS+, 24 x 20 x 16 voxels."""
    image = np.full((24, 20, 16), 100.0, dtype=np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    box = (slice(18, 22), slice(14, 18), slice(11, 15))
    image[box] = 1000
    labels[box] = 1
    return image, labels, np.diag([2.0, 2.5, 3.0, 1.0])


def in_other_order(array, affine, order, signs):
    """The same scan, stored with other axis orders and directions."""
    import nibabel.orientations as orientations

    ornt = np.array([[order.index(i), signs[i]] for i in range(3)])  # RAS axis i -> new axis, direction
    moved = orientations.apply_orientation(array, ornt)
    return moved, affine @ orientations.inv_ornt_aff(ornt, array.shape)


ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_all_48_axis_orders_look_the_same(order, signs):
    image, _, affine = ras_phantom()
    stored, stored_affine = in_other_order(image, affine, list(order), signs)
    grid = planes.grid_of(stored.shape, stored_affine)
    assert grid.shape == image.shape
    assert grid.spacing_mm == pytest.approx((2.0, 2.5, 3.0))
    assert np.array_equal(grid.to_ras(stored), image)
    for normal, index in ((0, 20), (1, 16), (2, 13)):
        file_index = grid.file_index((normal, index))
        axis = list(grid.orientation[:, 0]).index(normal)
        assert np.take(stored, file_index, axis=axis).max() == 1000
        assert (
            grid.side_letters(normal)
            == {
                2: ("R", "L", "P", "A"),
                1: ("R", "L", "I", "S"),
                0: ("A", "P", "I", "S"),
            }[normal]
        )


def test_pictures_follow_the_radiological_convention():
    image, _, affine = ras_phantom()
    grid = planes.grid_of(image.shape, affine)
    volume = grid.to_ras(image)
    for normal, index in ((0, 20), (1, 16), (2, 13)):  # right, anterior and superior: left and up in all three planes
        rows, columns = np.nonzero(planes.picture(volume, (normal, index)) == 1000)
        height, width = planes.picture(volume, (normal, index)).shape
        assert rows.min() > height / 2, "row 0 is the bottom: the box must be in the upper half"
        assert columns.max() < width / 2, "the box must be in the left half"


def test_the_png_shows_the_box_on_the_letter_side(tmp_path):
    image, labels, affine = ras_phantom()
    stored, stored_affine = in_other_order(image, affine, [1, 2, 0], (-1, 1, -1))
    stored_labels, _ = in_other_order(labels, affine, [1, 2, 0], (-1, 1, -1))
    picture = read_png(save_preview(tmp_path / "p.png", stored, stored_labels, stored_affine, {1: "box"}))
    top, side = int(0.72 * 110), int(3.7 * 110)
    panel = picture[top : top + int(side * 0.72), 6 : 6 + side]  # the axial view
    bright = panel.min(axis=-1) > 0.5
    bright[:45], bright[-70:] = False, False  # without captions, letters and the scale bar
    bright[:, :25], bright[:, -25:] = False, False
    rows, columns = np.nonzero(bright)
    assert len(rows) > 50
    assert columns.mean() < side / 2
    assert rows.mean() < panel.shape[0] / 2


def test_oblique_directions_get_two_letters():
    angle = np.radians(40)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = planes.grid_of((10, 10, 10), affine)
    assert grid.oblique_degrees(0) == pytest.approx(40)
    assert grid.oblique_degrees(2) == pytest.approx(0)
    assert grid.side_letters(2) == ("RA", "LP", "PR", "AL")


def test_thick_slices_and_slabs_are_shown_as_slices():
    thick = planes.grid_of((64, 64, 20), np.diag([1.0, 1.0, 5.0, 1.0]))
    slab = planes.grid_of((128, 128, 8), np.diag([0.7, 0.7, 2.0, 1.0]))
    cube = planes.grid_of((64, 64, 64), np.eye(4))
    assert (thick.slices_lead, slab.slices_lead, cube.slices_lead) == (True, True, False)
    assert thick.acquired == 2


def test_slices_are_spread_through_the_structure():
    profile = np.zeros((40, 1))
    profile[10:30] = 1
    slices = planes.spread_slices(profile, 5)
    assert slices == [12, 16, 20, 24, 28]
    profile[:] = 0
    profile[39] = 1
    assert planes.spread_slices(profile, 5) == [37, 38, 39]
    assert planes.spread_slices(np.ones((2, 1)), 5) == [0, 1]
    assert len(planes.spread_slices(np.zeros((30, 1)), 5)) == 5


def test_a_small_structure_is_not_hidden_by_a_large_one():
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    labels[5:35, 5:35, 5:35] = 1
    labels[18:20, 18:20, 30:32] = 2
    assert planes.best_slices([planes.profiles(labels)[2]])[0] in (30, 31)


def test_structures_that_share_no_slice_take_turns():
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    labels[2:6, 2:6, 2:6] = 1
    labels[30:36, 30:36, 30:36] = 2
    assert planes.best_slices(planes.profiles(labels)) == [2, 30, 2]
    assert planes.best_slices(planes.profiles(labels * 0)) == [20, 20, 20]


def test_the_zoom_holds_the_structure_and_stays_in_the_field():
    shape, extent = (80, 100), (100.0, 160.0)
    left, right, bottom, top = planes.window_mm((slice(2, 10), slice(60, 70)), shape, extent, 1.0)
    assert left <= 60
    assert right >= 70
    assert 0 <= bottom <= 4
    assert top >= 20
    assert top - bottom == pytest.approx(right - left)
    field = planes.window_mm(None, shape, extent, 1.0)
    assert field == (-30, 130, 0, 160)  # the whole picture, in the middle
    assert planes.window_mm((slice(0, 80), slice(0, 100)), shape, extent, 1.0) == pytest.approx(field)


def test_a_volume_of_one_slice_has_one_view():
    for shape, view in (((40, 30, 1), (2, 0)), ((40, 1, 30), (1, 0)), ((1, 1, 30), (0, 0))):
        assert planes.choose_views(planes.grid_of(shape, np.eye(4)), np.zeros(shape, np.uint8)) == [view]


def test_scale_bars_are_round():
    assert paint.round_length_mm(320) == 50
    assert paint.round_length_mm(80) == 20
    assert paint.round_length_mm(3) == pytest.approx(0.5)


def test_preview_draws_a_contour_in_the_colour_of_each_structure(tmp_path):
    image, labels, affine = ras_phantom()
    labels[3:8, 3:8, 3:8] = 2
    path = save_preview(tmp_path / "deep" / "p.png", image[None], labels, affine, NAMES, title="two\udce9 boxes")
    picture = read_png(path)
    assert picture.shape[0] > 500
    assert picture.shape[1] > 1000
    assert near_colour(picture, paint.COLOURS[0]) > 300
    assert near_colour(picture, paint.COLOURS[1]) > 300
    only_one = read_png(save_preview(tmp_path / "q.png", image, labels * (labels == 1), affine, NAMES))
    assert (
        near_colour(only_one, paint.COLOURS[1]) < near_colour(picture, paint.COLOURS[1]) / 2
    )  # the legend's swatch is left
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["p.png"], "no temporary file is left"


def test_the_second_row_shows_the_bare_scan(tmp_path):
    image = np.full((30, 30, 30), 100.0, dtype=np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[2:28, 2:28, 2:28] = 1  # so large that there is no zoom: two rows
    picture = read_png(save_preview(tmp_path / "p.png", image, labels, np.eye(4), NAMES, title="two rows"))
    panels = picture[round(paint.HEADER * paint.DPI) :, : -round(paint.LEGEND * paint.DPI)]
    upper, lower = np.array_split(panels, 2)
    assert near_colour(upper, paint.COLOURS[0]) > 300
    assert near_colour(lower, paint.COLOURS[0]) == 0
    labels[10:] = labels[:, 10:] = labels[:, :, 10:] = 0  # small: the contours are magnified in a third row
    small = read_png(save_preview(tmp_path / "q.png", image, labels, np.eye(4), NAMES, title="three rows"))
    assert small.shape[0] > 1.3 * picture.shape[0]


def test_a_contour_has_a_dark_halo_and_no_fill(tmp_path):
    """Inside a bright organ the scan is as it was; beside the contour it is dark."""
    image = np.full((30, 30, 30), 100.0, dtype=np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[5:25, 5:25, 5:25] = 1
    picture = read_png(save_preview(tmp_path / "p.png", image, labels, np.eye(4), NAMES, window=(0, 100)))
    top, side = round(paint.HEADER * paint.DPI), round(3.7 * paint.DPI)
    row = picture[top + side // 2, : side // 2]  # from the left border of the first panel into the organ
    line = int(np.abs(row - matplotlib_rgb(paint.COLOURS[0])).max(axis=1).argmin())
    assert row[line - 6 : line + 7].max(axis=1).min() < 0.45
    assert np.all(row[line + 10 : side // 2 - 10] > 0.97)


def matplotlib_rgb(colour: str) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.array(to_rgb(colour))


def test_preview_says_when_nothing_was_found(tmp_path):
    image, labels, affine = ras_phantom()
    empty = np.zeros_like(labels)
    red = "#ff4d4d"
    full = near_colour(read_png(save_preview(tmp_path / "a.png", image, labels, affine, NAMES | {2: "liver"})), red)
    bare = near_colour(read_png(save_preview(tmp_path / "b.png", image, empty, affine, NAMES)), red)
    missed = near_colour(read_png(save_preview(tmp_path / "c.png", image, empty, affine, NAMES, reference=labels)), red)
    assert bare > full + 800
    assert missed > full + 800


def test_preview_with_reference_and_uncertainty_grows_a_row(tmp_path):
    image, labels, affine = ras_phantom()
    plain = read_png(save_preview(tmp_path / "a.png", image, labels, affine, NAMES))
    doubt = np.where(labels > 0, 0.5, np.nan)  # NaN counts as certain
    path = save_preview(
        tmp_path / "b.png", image, labels, affine, NAMES, reference=np.roll(labels, 1, 0), uncertainty=doubt
    )
    rich = read_png(path)
    assert rich.shape[0] > plain.shape[0] * 1.3
    assert rich.shape[1] == plain.shape[1]


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([-1.0, -1.0, 1.0, 1.0]),
        np.eye(4),
        np.array([[0.5, 0, 0, 3], [0, 0, 1, 4], [0, 0.5, 0, 5], [0, 0, 0, 1]]),
    ],
)
def test_preview_of_a_flat_image(tmp_path, affine):
    generator = np.random.default_rng(0)
    image = generator.normal(size=(60, 40)).astype(np.float32)
    labels = np.zeros((60, 40), dtype=np.int16)
    labels[10:20, 5:15] = 420  # a value without a name
    picture = read_png(save_preview(tmp_path / "p.png", image, labels, affine, {}, uncertainty=np.abs(image)))
    assert picture.shape[1] > picture.shape[0]


def test_a_flat_picture_is_shown_as_its_file_stores_it(tmp_path):
    image = np.full((40, 30), 0.2, dtype=np.float32)
    image[28:36, 2:8] = 1.0  # right (x large) and up (y small, for rows run downwards)
    labels = (image > 0.5).astype(np.uint8)
    pictures = [
        read_png(save_preview(tmp_path / f"{i}.png", image, labels, np.diag([s, s, 1.0, 1.0]), {1: "spot"}, title="t"))
        for i, s in enumerate((-1.0, 1.0))
    ]
    assert np.array_equal(*pictures)
    panel = pictures[0][80 : 80 + int(4.6 * 110 * 0.75), 6 : 6 + int(4.6 * 110)]
    rows, columns = np.nonzero(panel.min(axis=-1) > 0.55)
    assert columns.mean() > panel.shape[1] / 2
    assert rows.mean() < panel.shape[0] / 2


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_preview_survives_a_constant_or_empty_image(tmp_path, value):
    _, labels, affine = ras_phantom()
    image = np.full(labels.shape, value, dtype=np.float32)
    read_png(save_preview(tmp_path / "p.png", image, labels, affine, NAMES))


def test_preview_of_a_single_voxel_and_of_a_structure_at_the_border(tmp_path):
    image, labels, affine = ras_phantom()
    labels[:] = 0
    labels[0, 0, 0] = 1
    labels[20:, :, :] = 2
    read_png(save_preview(tmp_path / "p.png", image, labels, affine, NAMES))


def test_preview_refuses_what_does_not_fit(tmp_path):
    image, labels, affine = ras_phantom()
    with pytest.raises(GridMismatchError, match="reference"):
        save_preview(tmp_path / "p.png", image, labels, affine, NAMES, reference=labels[:-1])
    with pytest.raises(GridMismatchError, match="image"):
        save_preview(tmp_path / "p.png", image[:-1], labels, affine, NAMES)
    with pytest.raises(InputError, match="affine"):
        save_preview(tmp_path / "p.png", image, labels, np.zeros((4, 4)), NAMES)
    assert list(tmp_path.iterdir()) == []


def test_ranks():
    values, (a, b) = renumber(np.array([[0, 205], [420, 0]], dtype=np.uint16), np.array([[-3, 205.0], [0, 7]]))
    assert values == (0, 7, 205, 420)  # a negative value: not annotated
    assert a.tolist() == [[0, 2], [3, 0]]
    assert b.tolist() == [[0, 2], [0, 1]]
    values, (c,) = renumber(np.array([5, 2**40, 0]))
    assert values == (0, 5, 2**40)
    assert c.tolist() == [1, 2, 0]
    values, (d,) = renumber(np.array([True, False]))
    assert d.tolist() == [1, 0]
    with pytest.raises(InputError, match="whole"):
        renumber(np.array([0.5]))


def test_statistics_of_boxes():
    image = np.zeros((2, 20, 20, 20), dtype=np.float32)
    labels = np.zeros((20, 20, 20), dtype=np.int16)
    labels[2:6, 3:8, 4:10] = 205  # 4 x 5 x 6 voxels
    image[0, 2:4, 3:8, 4:10], image[0, 4:6, 3:8, 4:10] = 10, 30
    labels[15, 15, 15] = labels[16, 16, 16] = 420  # touch at a corner, which connects them
    image[0, 15, 15, 15] = np.nan
    image[0, 16, 16, 16] = 7
    affine = np.diag([-2.0, 1.0, 0.5, 1.0])
    affine[:3, 3] = (10, 20, 30)
    box, corner, absent = structure_statistics(image, labels, affine, {0: "bg", 205: "box", 420: "corner", 3: "none"})
    assert box["label"] == 205
    assert box["name"] == "box"
    assert box["voxels"] == 120
    assert box["volume_ml"] == pytest.approx(0.12)
    assert box["area_mm2"] is None
    assert [box[k] for k in ("mean", "std", "min", "max", "median")] == pytest.approx([20, 10, 10, 30, 20])
    assert [box[f"centroid_voxel_{a}"] for a in "xyz"] == pytest.approx([3.5, 5, 6.5])
    assert [box[f"centroid_{a}_mm"] for a in "xyz"] == pytest.approx([3, 25, 33.25])
    assert [box[f"size_{a}_mm"] for a in "xyz"] == pytest.approx([8, 5, 3])
    assert box["components"] == 1
    assert corner["components"] == 1
    assert corner["mean"] == 7
    assert (absent["voxels"], absent["volume_ml"], absent["components"]) == (0, 0, 0)
    assert absent["mean"] is None
    assert absent["centroid_x_mm"] is None
    assert set(box) == set(absent)
    json.dumps([box, corner, absent])


@pytest.mark.parametrize(
    ("shape", "has_spacing", "unit", "size"),
    [((4, 5, 6), True, "ml", 0.24), ((4, 5, 6), False, "voxels", 120),
     ((8, 5), True, "mm²", 80), ((8, 5), False, "pixels", 40)],
)  # fmt: skip
def test_a_size_is_in_millimetres_only_if_the_scan_states_its_voxel_size(shape, has_spacing, unit, size):
    image = Volume(np.zeros((1, *shape), np.float32), np.diag([2.0, 1, 1, 1]), has_spacing=has_spacing)
    rows = measure(image, Segmentation(np.ones(shape, np.uint8)), {1: "cyst"})
    assert unit_of(rows) == unit
    assert rows[0][SIZES[unit]] == pytest.approx(size)


def test_statistics_of_a_flat_image():
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[1:3, 1:5] = 1
    (row,) = structure_statistics(labels[None].astype(np.float32), labels, np.diag([0.5, 2.0, 1.0, 1.0]), {1: "x"})
    assert row["area_mm2"] == pytest.approx(8)
    assert row["volume_ml"] is None
    assert row["centroid_voxel_z"] is None
    with pytest.raises(GridMismatchError):
        structure_statistics(labels.astype(np.float32), labels, np.eye(4), {1: "x"})


def test_csv(tmp_path):
    rows = [{"case": "a", "dice": 0.5}, {"case": "b, with a comma", "dice": None, "note": "empty"}]
    path = write_csv(tmp_path / "new" / "t.csv", rows)
    with open(path, newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    assert back == [
        {"case": "a", "dice": "0.5", "note": ""},
        {"case": "b, with a comma", "dice": "", "note": "empty"},
    ]

    def broken():
        yield {"case": "c"}
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        write_csv(path, broken())
    assert "with a comma" in path.read_text(encoding="utf-8")


def test_dice_plot(tmp_path):
    scores = {"liver": [0.9, 0.8, 0.95], "a structure with a long name": [0.4, float("nan")], "no $ne": [float("nan")]}
    assert read_png(save_dice_plot(tmp_path / "s.png", scores)).shape[0] > 300
    with pytest.raises(InputError):
        save_dice_plot(tmp_path / "e.png", {})


def test_pyplot_stays_out():
    code = (
        "import sys, numpy as np, tempfile, pathlib, medfewshot.report as r\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
        "a = np.zeros((9, 9, 9), np.uint8); a[3:6, 3:6, 3:6] = 1\n"
        "r.save_preview(pathlib.Path(tempfile.mkdtemp()) / 'p.png', a.astype('f4'), a, np.eye(4), {1: 'x'})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    "scan",
    ["abd-mr-chaos/chaos_01", "abd-ct-sabs/sabs_00", "card-mr-mscmr/cmr_01", "Task04_Hippocampus/hippocampus_003"],
)
def test_preview_of_real_scans(data_root, tmp_path, scan):
    from medfewshot.io import read_image, read_label

    dataset, case = scan.split("/")
    image = read_image(data_root / dataset / "imagesTr" / f"{case}.nii.gz")
    label = read_label(data_root / dataset / "labelsTr" / f"{case}.nii.gz")
    assert read_png(save_preview(tmp_path / "p.png", image.data, label.data[0], image.affine, {})).shape[1] > 1200
    rows = structure_statistics(image.data, label.data[0], image.affine, {1: "first"})
    assert rows[0]["voxels"] > 0
