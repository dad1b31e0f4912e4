"""The page in a real Chromium: draw, learn, correct, export, and what may go wrong on the way."""

from __future__ import annotations

import io
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from test_workbench_masks import ORDERS, affine_of
from workbench_browser import WHERE, Page, browsing
from workbench_toys import SHAPE, ThresholdJobs, ball, make_project, serving, write_phantom

from medfewshot.structures import dice
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.jobs import Jobs

BALL = [Structure("ball", 1, "#e6194b")]
TWO = [*BALL, Structure("other", 7, "#3cb44b")]


@pytest.fixture(scope="module")
def browse(chromium):
    with browsing(chromium) as browse:
        yield browse


def circle(z: int, radius: float, centre=(18, 20)) -> list[list[int]]:
    angles = np.linspace(0, 2 * np.pi, 10)
    return [[int(centre[0] + radius * np.cos(a)), int(centre[1] + radius * np.sin(a)), z] for a in angles]


def labels(project: Project, name: str = "scan_0") -> np.ndarray:
    found = project.read_labels(name)
    return np.zeros(SHAPE, np.uint8) if found is None else found


def test_from_no_labels_to_a_reviewed_cohort(tmp_path, browse):
    """Draw in three slices, fill between, learn, accept two, correct one, learn again, export."""
    project = make_project(tmp_path)
    jobs = ThresholdJobs(project)
    with serving(project, jobs) as url:
        page: Page = browse(url).ready("scan_0")
        page.page.fill("#add-name", "ball")
        page.page.click("#add button")
        page.wait("#structures li").key("a", "f")
        for z, radius in ((8, 5), (12, 8), (16, 5)):
            page.drag(2, circle(z, radius))
        page.saved()
        assert project.facts("scan_0").drawn == (8, 12, 16)
        page.key("i").wait("#count-text:has-text('9 axial slices: 9 to 17')").saved()
        drawn = nib.load(project.mask_path("scan_0"))
        data = np.asarray(drawn.dataobj)
        assert set(np.unique(data)) == {0, 1, 255}
        assert (data[:, :, [7, 17]] != 0).all()
        assert [int(np.unique(data[:, :, z]).max()) for z in range(8, 17)] == [1] * 9
        assert np.pi * 8**2 * 0.85 < (data[:, :, 12] == 1).sum() < np.pi * 9**2

        page.key("l").wait("#cases li[data-name=scan_3] [data-status=draft]")
        page.open("scan_1")
        for name, following in (("scan_1", "scan_2"), ("scan_2", "scan_3")):
            page.key("y").wait(f"#cases li[data-name={name}] [data-status=accepted]").ready(following)
        page.key("u", "e", "a").drag(2, [[18, 20, 12], [22, 20, 12]]).saved()
        assert project.settings == {"quality": "standard"}
        page.wait("#cases li[data-name=scan_3] [data-status=example]").page.select_option("#quality", "best")
        page.page.click("#learn")
        page.page.wait_for_timeout(300)
        assert (jobs.learned, project.settings) == (["scan_0", "scan_3"], {"quality": "best"})
        page.page.click("#export")
        page.page.click("#export-go")
        page.wait("#exported:has-text('Written')")
        assert page.problems == []

    for name in ("scan_1", "scan_2", "scan_3"):
        scan, mask = nib.load(project.case(name).scan), nib.load(project.folder / "export" / "nifti" / f"{name}.nii.gz")
        expected = scan.get_fdata() > 200
        assert np.array_equal(mask.affine, scan.affine)
        wrong = int((np.asarray(mask.dataobj).astype(bool) != expected).sum())
        assert (wrong == 0) == (name != "scan_3")
        assert wrong < 60
    assert len(project.reviews()) == 2


def test_the_tools(tmp_path, browse):
    project = make_project(tmp_path, scans=2, structures=TWO)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a", "p", "[", "[", "[", "[")
        page.drag(2, [[5, 6, 3], [11, 6, 3]]).saved()
        expected = np.zeros(SHAPE, np.uint8)
        expected[5:12, 6, 3] = 1
        assert np.array_equal(labels(project), expected)

        page.key("2").drag(2, [[11, 6, 3], [14, 6, 3]]).saved()  # other structures are kept
        expected[12:15, 6, 3] = 7
        assert np.array_equal(labels(project), expected)

        page.key("Control+z").saved()
        assert set(np.unique(labels(project))) == {0, 1}
        page.key("Control+y").saved()
        assert np.array_equal(labels(project), expected)

        page.key("e").drag(2, [[12, 6, 3], [14, 6, 3]]).saved()
        expected[12:15, 6, 3] = 0
        assert np.array_equal(labels(project), expected)

        page.key("1", "p")  # only where it is bright
        page.page.click("#otsu")
        page.wait("#limit:checked").drag(2, [[2, 20, 12], [34, 20, 12]]).saved()
        bright = nib.load(project.case("scan_0").scan).get_fdata()[:, 20, 12] > 200
        assert np.array_equal(labels(project)[2:34, 20, 12] == 1, bright[2:34])

        page.key("t", "k").drag(2, [[18, 20, 10]])  # click to segment, in this slice: the server answers later
        page.wait("#count-text:has-text('11')").saved()
        bright = nib.load(project.case("scan_0").scan).get_fdata()[:, :, 10] > 200
        assert (labels(project)[:, :, 10] == 1).sum() == pytest.approx(bright.sum(), rel=0.05)
        assert page.problems == []

        page.open("scan_1").key("p").drag(2, [[16, 20, 12], [20, 20, 12]])  # grow from marks
        page.key("q", "]", "]").drag(2, [[4, 6, 12], [32, 6, 12], [32, 34, 12], [4, 34, 12], [4, 6, 12]]).saved()
        assert 255 not in np.asarray(nib.load(project.mask_path("scan_1")).dataobj)[:, :, 12]
        page.key("g").wait('[data-tool=look][aria-pressed="true"]').saved()
        bright = nib.load(project.case("scan_1").scan).get_fdata()[:, :, 12] > 200
        assert np.array_equal(labels(project, "scan_1")[:, :, 12] == 1, bright)
        assert page.problems == []


def test_undo_restores_the_slices_that_count(tmp_path, browse):
    project = make_project(tmp_path, scans=1, structures=BALL)
    project.save_mask("scan_0", np.zeros(SHAPE, np.uint8), version=0, drawn=[5], axis=2)
    project.write_draft("scan_0", ball().astype(np.uint8), confidence=0.5)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a", "p").drag(2, [[8, 8, 3]]).saved()
        drawn = labels(project)
        page.key("h").wait("#count-all:checked").saved()
        assert project.facts("scan_0").complete
        page.key("Control+z").wait("#count-drawn:checked").saved()
        assert project.facts("scan_0").drawn == (3, 5)
        assert np.array_equal(labels(project), drawn)
        for z in (7, 9):  # empty slices
            page.go([8, 8, z]).key("d").saved()
        page.key(*["Control+z"] * 3).saved()
        assert project.facts("scan_0").drawn == (5,)
        page.key(*["Control+y"] * 3).saved()
        assert project.facts("scan_0").drawn == (3, 5, 7, 9)
        page.page.check("#count-all")
        page.saved()
        assert project.facts("scan_0").complete
        page.page.check("#count-drawn")
        page.saved()
        assert project.facts("scan_0").drawn == (3, 5, 7, 9)
        assert page.problems == []


def test_of_a_draft_only_what_is_finished_or_changed_counts(tmp_path, browse):
    project = make_project(tmp_path, scans=2, structures=BALL)
    draft = ball().astype(np.uint8)
    for number in range(2):
        project.write_draft(f"scan_{number}", draft, confidence=0.5)
    shown = "() => window.workbench.viewer.labels.reduce((sum, one) => sum + one)"
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a", "p").drag(2, [[8, 8, 3]]).key("Control+z")
        page.page.wait_for_selector('#saved[data-state="saved"]', state="attached")
        assert project.case("scan_0").status == "draft"  # undone, before or after it was saved
        page.key("e").drag(2, [[18, 20, 12]]).saved()
        assert project.facts("scan_0").complete
        page.key("Control+z").saved()
        assert project.case("scan_0").status == "draft"
        assert project.examples() == []
        page.open("scan_1").open("scan_0")
        assert page.ask(shown) == draft.sum()
        for z in (12, 14):
            page.go([18, 20, z]).key("d").saved()
        stored = np.asarray(nib.load(project.mask_path("scan_0")).dataobj)
        assert np.array_equal(stored[:, :, [12, 14]], draft[:, :, [12, 14]])
        assert (np.delete(stored, [12, 14], 2) == 255).all()
        assert page.ask(shown) == draft.sum()
        page.key("c", "p").drag(1, [[4, 4, 4]]).saved()  # in another plane
        stored = np.asarray(nib.load(project.mask_path("scan_0")).dataobj)
        assert set(np.unique(np.delete(stored, [12, 14], 2))) == {1, 255}
        page.key(*["Control+z"] * 3).saved()
        assert project.case("scan_0").status == "draft"
        page.key("y").wait("#cases li[data-name=scan_0] [data-status=accepted]")
        assert np.array_equal(labels(project), draft)
        assert project.facts("scan_0").source == "draft"
        assert page.problems == []


def test_the_keyboard_alone(tmp_path, browse):
    project = make_project(tmp_path, scans=2, structures=TWO)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("c", "p", "[", "[", "[", "[", "2").go([10, 11, 12])
        page.key("Space", "ArrowRight", "Space", "ArrowUp", "Space", "PageUp", "Space").saved()
        found = {tuple(int(i) for i in at) for at in np.argwhere(labels(project) == 7)}
        assert found == {(10, 11, 12), (9, 11, 12), (9, 11, 13), (9, 12, 13)}
        page.key("f", "a").go([20, 10, 5]).key("Space", *["ArrowLeft"] * 4, "Space", *["ArrowUp"] * 4, "Space", "Enter")
        page.saved()
        assert (labels(project)[:, :, 5] == 7).sum() == 15  # a triangle with two sides of five voxels
        page.key("d").saved()
        page.key("?").wait("#help[open]").page.keyboard.press("Escape")
        page.page.wait_for_selector("#help", state="hidden")
        page.key("n").ready("scan_1").key("b").ready("scan_0")
        page.page.focus("#cases")
        page.page.keyboard.press("ArrowDown")
        page.page.keyboard.press("Enter")
        page.ready("scan_1")
        unnamed = page.ask(
            """() => [...document.querySelectorAll('button, input, select, textarea, canvas')].filter((one) =>
            !(one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent.trim()))
            .map((one) => one.outerHTML)"""
        )
        assert unnamed == []
        assert page.problems == []


@pytest.mark.parametrize("choice", ["mine", "theirs"])
def test_two_tabs_on_one_mask(tmp_path, browse, choice):
    project = make_project(tmp_path, scans=1, structures=TWO)
    with serving(project) as url:
        second = browse(url, blocked="**/api/events*").ready("scan_0").key("a", "p")  # it hears of nothing
        second.page.wait_for_timeout(500)
        first = browse(url).ready("scan_0").key("a", "p")
        first.drag(2, [[8, 8, 4]]).saved()
        second.drag(2, [[20, 8, 4]]).wait("#conflict[open]").page.click(f"#conflict button[value={choice}]")
        second.page.wait_for_selector("#conflict", state="hidden")
        second.saved()
        found = labels(project)
        assert (bool(found[8, 8, 4]), bool(found[20, 8, 4])) == ((False, True) if choice == "mine" else (True, False))
        versions = sorted((project.folder / "history/scan_0").glob("*.nii.gz"))
        assert len(versions) == (2 if choice == "mine" else 1)
        assert any(np.asarray(nib.load(path).dataobj)[8, 8, 4] == 1 for path in versions)
        shown = second.ask("() => window.workbench.viewer.labels[8 + 36 * (8 + 40 * 4)]")
        assert shown == (0 if choice == "mine" else 1)


def test_names_are_text(tmp_path, browse):
    """Markup in names of scans, structures and notes is shown, and never becomes part of the page."""
    name = "<img src=x onerror=alert(1)>\"'&"
    write_phantom(tmp_path / "scans" / f"{name}.nii.gz")
    write_phantom(tmp_path / "scans" / "zwei\nzeilen.nii.gz", seed=1)
    project = Project.create(
        tmp_path / "project", [tmp_path / "scans"], structures=[Structure("<b>x</b>", 1, "#ffffff")]
    )
    project.review(name, note="<script>alert(2)</script>")
    with serving(project) as url:
        page = browse(url)
        page.wait("body[data-ready]:not([data-ready=''])")
        text = page.ask("() => [...document.querySelectorAll('#cases .name')].map((one) => one.textContent)")
        assert sorted(text) == sorted(case.name for case in project.cases())
        assert page.ask("() => document.querySelectorAll('#cases img, #cases script, #structures b').length") == 0
        assert page.problems == []


def test_a_lost_connection_loses_nothing(tmp_path, browse):
    project = make_project(tmp_path, scans=1, structures=TWO)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a", "p").drag(2, [[8, 8, 4]]).saved()
    page.drag(2, [[20, 8, 4]]).wait('#saved[data-state="failed"]')
    assert "does not answer" in page.page.inner_text("#saved")
    page.drag(2, [[20, 20, 4]])
    port = int(url.split(":")[2].split("/")[0])
    other = make_project(tmp_path / "other", scans=1, structures=TWO)
    with serving(other, port=port, token="of-another-project") as address:
        page.another(address).ready("scan_0")
        page.page.wait_for_timeout(500)
        assert labels(other).sum() == 0
    with serving(project, port=port, token="of-the-next-run") as address:  # as the program does: a new token
        page.wait("#saved:has-text('no valid token')").another(address).ready("scan_0")
        page.saved()
    assert labels(project)[[8, 20, 20], [8, 8, 20], 4].tolist() == [1, 1, 1]


def test_a_scan_that_cannot_be_read_leaves_the_page_alive(tmp_path, browse):
    project = make_project(tmp_path, scans=2, structures=BALL)
    (tmp_path / "scans/scan_0.nii.gz").write_bytes(b"\x1f\x8b" + b"x" * 99)
    with serving(project) as url:
        page = browse(url).wait("#alert:not([hidden])")
        assert "scan_0" in page.page.inner_text("#alert")
        page.open("scan_1").key("a", "p").drag(2, [[8, 8, 4]]).saved()
        assert labels(project, "scan_1")[8, 8, 4] == 1


def test_a_scan_that_was_replaced_by_one_of_another_size(tmp_path, browse):
    """It is refused, and what is drawn afterwards goes to the scan on screen."""
    project = make_project(tmp_path, scans=3, structures=BALL)
    project.save_mask("scan_0", np.ones(SHAPE, np.uint8), version=0)
    project.write_draft("scan_1", np.ones(SHAPE, np.uint8), confidence=0.5)
    for number in range(2):
        write_phantom(tmp_path / f"scans/scan_{number}.nii.gz", shape=(20, 22, 18), seed=9)
    with serving(Project.open(project.folder)) as url:
        page = browse(url).ready("scan_1")  # its draft is not shown
        page.open("scan_2").key("a", "p")
        page.page.click('#cases li[data-name="scan_0"]')
        page.wait("#alert:has-text('was replaced')").drag(2, [[8, 8, 4]]).saved()
    found = Project.open(project.folder)
    assert labels(found, "scan_2").sum() > 0
    assert (found.facts("scan_0").version, found.facts("scan_1").version) == (1, 0)


def test_a_stroke_while_another_scan_is_read_is_saved_where_it_was_drawn(tmp_path, browse):
    project = make_project(tmp_path, scans=3, structures=BALL)
    (tmp_path / "scans/scan_2.nii.gz").write_bytes(b"\x1f\x8b" + b"x" * 99)
    with serving(project) as url:
        page, held = browse(url).ready("scan_0").key("a", "p"), []
        page.page.click('#cases li[data-name="scan_2"]')
        page.wait("#alert:has-text('scan_2')").page.route("**/api/mask?case=scan_1*", lambda route: held.append(route))
        page.page.click('#cases li[data-name="scan_1"]')
        while not held:
            page.page.wait_for_timeout(50)
        page.drag(2, [[8, 8, 4]])
        held[0].continue_()
        page.ready("scan_1")
        assert not page.page.is_visible("#alert")  # it was about scan_2
        assert [project.facts(f"scan_{number}").version for number in range(3)] == [1, 0, 0]
        assert labels(project)[8, 8, 4] == 1


def test_what_a_tool_finds_is_not_drawn_into_another_scan(tmp_path, browse):
    project = make_project(tmp_path, scans=2, structures=BALL)
    with serving(project) as url:
        page, held = browse(url).ready("scan_0").key("a", "p"), []
        for z in (4, 8):
            page.go([8, 8, z]).drag(2, [[8, 8, z]]).saved()
        page.page.route("**/api/tool*", lambda route: held.append(route))
        page.key("i")
        while not held:
            page.page.wait_for_timeout(50)
        page.open("scan_1")
        held[0].continue_()
        page.page.wait_for_timeout(1000)
        assert page.ask("() => window.workbench.viewer.labels.some(Boolean)") is False
        assert [project.facts(f"scan_{number}").version for number in range(2)] == [2, 0]


def test_2d_images(tmp_path, browse):
    """A photograph and a 2D NIfTI: scribble and contour."""
    disc = np.where(ball((40, 30), shift=(0, 0), radius=9), 200, 40).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(disc.T), str(tmp_path / "scans/photo.png"))
    nib.save(nib.Nifti1Image(disc.astype(np.int16), np.diag([-0.5, 0.7, 1, 1])), tmp_path / "scans/slice.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=BALL)
    with serving(project) as url:
        page = browse(url).ready("photo").key("f")
        for name in ("photo", "slice"):
            page.open(name).drag(2, [[10, 8, 0], [25, 8, 0], [25, 20, 0], [10, 20, 0]]).saved()
            assert (labels(project, name) == 1).sum() == 16 * 13
        assert labels(project, "slice")[39 - 10, 8] == 1  # the file counts from the patient's left
        assert labels(project, "photo").shape == (40, 30)
        assert page.problems == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_axis_orders_by_mouse(tmp_path, browse):
    """Draw a bar by mouse in oblique, anisotropic scans; nibabel and SimpleITK find it.

    Ten of the 48 axis orders, with every order and flip of an axis: the tests of masks have all 48.
    """
    shape, spacing = (9, 10, 12), (1.0, 1.5, 2.0)
    for number, (order, flips) in enumerate(ORDERS[::5]):
        affine = affine_of(order, flips, spacing, tilt=0.2)
        write_phantom(tmp_path / "scans" / f"s{number:02}.nii.gz", affine=affine, shape=shape, seed=number)
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=TWO)
    with serving(project) as url:
        page = browse(url).ready("s00").key("a", "p", "[", "[", "[", "[", "2")
        for number in range(len(ORDERS[::5])):
            name = f"s{number:02}"
            page.open(name).drag(2, [[2, 3, 4], [5, 3, 4]]).saved()
            facts = page.ask("() => window.workbench.viewer.facts.affine")
            world = [np.array(facts) @ [x, 3, 4, 1] for x in range(2, 6)]
            mask = nib.load(project.mask_path(name))
            there = {tuple(np.rint(np.linalg.inv(mask.affine) @ point)[:3].astype(int)) for point in world}
            assert {tuple(at) for at in np.argwhere(np.asarray(mask.dataobj) == 7)} == there, ORDERS[5 * number]
            image = sitk.ReadImage(str(project.mask_path(name)))
            for point in world:
                assert image[image.TransformPhysicalPointToIndex([-point[0], -point[1], point[2]])] == 7
        assert page.problems == []


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_hippocampus(tmp_path, browse, data_root):
    """Half-drawn in one real scan, with the real jobs: accept two drafts, correct one, learn again, export."""
    task = data_root / "Task04_Hippocampus"
    names = [path.name.removesuffix(".nii.gz") for path in sorted((task / "imagesTr").glob("hippo*.nii.gz"))[:4]]
    (tmp_path / "scans").mkdir()
    for name in names:
        shutil.copy(task / "imagesTr" / f"{name}.nii.gz", tmp_path / "scans")
    truth = [np.asarray(nib.load(task / "labelsTr" / f"{name}.nii.gz").dataobj) > 0 for name in names]
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=BALL)
    project.change_settings({"steps": 20})
    jobs = Jobs(project)
    with serving(project, jobs) as url:
        page = browse(url).open(names[0]).key("c", "p", *["["] * 4)
        deep = np.flatnonzero(truth[0].sum(axis=(0, 2)) > 20)
        for y in np.linspace(deep[0], deep[-1], 3).astype(int):
            draw_rows(page, truth[0], y)
        learn_through(page.key("i").wait("#count-text:has-text(' to ')").saved(), jobs)
        for name, expected in zip(names[1:3], truth[1:3], strict=True):
            page.open(name).key("y").wait(f'#cases li[data-name="{name}"] [data-status=accepted]')
            assert dice(project.read_labels(name) > 0, expected) > 0.25  # 20 steps: in the right place
        page.open(names[3]).key("u", "c", "p")
        y = int(truth[3].sum(axis=(0, 2)).argmax())
        draw_rows(page, truth[3], y)
        page.saved().wait(f'#cases li[data-name="{names[3]}"] [data-status=example]')
        corrected = project.read_labels(names[3])
        learn_through(page, jobs)
        page.page.click("#export")
        page.page.click("#export-go")
        page.wait("#exported:has-text('Written')")
        assert page.problems == []
    assert (corrected[:, y][truth[3][:, y]] == 1).mean() > 0.9
    assert np.array_equal(project.read_labels(names[3]), corrected)  # the second draft is beside it
    for name in names[1:]:
        scan = nib.load(task / "imagesTr" / f"{name}.nii.gz")
        mask = nib.load(project.folder / f"export/nifti/{name}.nii.gz")
        assert np.allclose(mask.affine, scan.affine)
        assert np.array_equal(np.asarray(mask.dataobj), project.read_labels(name))


def draw_rows(page: Page, mask: np.ndarray, y: int) -> None:
    """Draw one coronal slice of a mask by mouse, line by line."""
    for z in np.flatnonzero(mask[:, y].any(axis=0)):
        row = np.flatnonzero(mask[:, y, z])
        page.drag(1, [[int(row[0]), int(y), int(z)], [int(row[-1]), int(y), int(z)]])


def learn_through(page: Page, jobs: Jobs) -> None:
    """Press *Learn* and wait for the end."""
    page.key("l").wait("#cancel:not([hidden])").page.wait_for_selector("#cancel", state="hidden", timeout=600_000)
    assert jobs.state()["status"] == "done"


def test_a_folder_that_is_read_only_keeps_the_drawing_in_the_page(tmp_path, browse):
    project = make_project(tmp_path, scans=1, structures=BALL)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a", "p")
        history = project.folder / "history"
        shutil.rmtree(history, ignore_errors=True)
        history.write_text("in the way")  # as root, permissions would not stop us
        page.drag(2, [[8, 8, 4]]).wait('#saved[data-state="failed"]')
        page.key("l").wait("#alert:has-text('history')")
        page.page.click("#export")
        page.page.click("#export-go")
        page.wait("#exported:has-text('history')").page.keyboard.press("Escape")
        history.unlink()
        page.saved()
        assert not page.page.is_visible("#alert")
        assert labels(project)[8, 8, 4] == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_screens(tmp_path, browse, dark):
    """Light and dark at 1024 px: nothing sticks out of the window."""
    project = make_project(tmp_path, scans=2, structures=TWO)
    with serving(project) as url:
        page = browse(url, dark=dark, width=1024, height=760).ready("scan_0")
        assert page.ask("() => document.documentElement.scrollWidth") == 1024
        assert page.ask(
            "() => document.querySelector('#where').scrollWidth === document.querySelector('#where').clientWidth"
        )
        paper = page.ask("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark


def test_the_draft_underneath_colours_its_voxels_alone(tmp_path, browse):
    project = make_project(tmp_path, scans=1, structures=TWO)
    project.save_mask("scan_0", np.zeros(SHAPE, np.uint8), version=0, drawn=[3], axis=2)
    project.write_draft("scan_0", (7 * ball()).astype(np.uint8), confidence=0.5)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("a").go([30, 4, 12]).key("r").wait("#draft:checked")
        page.page.wait_for_timeout(1000)
        image = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
        outside, inside = (image.getpixel(tuple(map(int, page.ask(WHERE, [2, [18, y, 12]])))) for y in (8, 23))
        assert max(outside) - min(outside) < 10
        assert inside[1] > inside[0] + 20
        assert page.problems == []


def test_keys_play_a_film_at_the_same_place(tmp_path, browse):
    frames = np.stack([100 + 200 * ball(shift=(0, 0, 2 * number)) for number in range(3)], -1)
    nib.save(nib.Nifti1Image(frames.astype(np.int16), np.eye(4)), tmp_path / "cine.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "cine.nii.gz"], structures=BALL)
    with serving(project) as url:
        page: Page = browse(url).ready("cine frame 0").go([18, 20, 21])
        at = "() => workbench.viewer.intensity(18 + 36 * (20 + 40 * 21))"
        assert page.ask(at) == 100
        page.key(".").ready("cine frame 1").key(".").ready("cine frame 2")
        assert page.ask("() => workbench.viewer.voxel()") == [18, 20, 21]
        assert page.ask(at) == 300
        page.key("a", "p").drag(2, [[18, 20, 12], [22, 20, 12]]).saved().key(",").ready("cine frame 1")
        assert [case.frame for case in project.examples()] == [2]
        assert not page.problems
