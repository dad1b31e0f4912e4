"""What a person sees of examples and drafts: an example against the others, and where a draft is uncertain."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from workbench_browser import browsing
from workbench_toys import SHAPE, ball, make_project, serving, write_phantom

from medfewshot.errors import InputError
from medfewshot.structures import dice
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.check import write_checks
from medfewshot.workbench.comparison import compare_example, worst_slice
from medfewshot.workbench.uncertainty import read_uncertainty, write_uncertainty

BALL = Structure("ball", 3, "#ff0000")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, scans=3, structures=[BALL])


def test_an_example_is_compared_in_its_annotated_slices(project: Project) -> None:
    mask = 3 * ball().astype(np.uint8)
    drawn = np.where(np.isin(np.arange(SHAPE[2]), [8, 12, 14]), mask, 0).astype(np.uint8)
    for number in range(3):
        project.save_mask(f"scan_{number}", drawn, version=0, drawn=[8, 12, 14], axis=2)
    predicted = mask.copy()
    predicted[20:, :, 12] = 0  # half of a slice is missing
    predicted[:, :, 10] = 3  # nobody annotated this slice
    rows = [{"support": "s", "dice": score, "message": ""} for score in (0.9, 0.1, 0.8)]
    write_checks(project, ["scan_0", "scan_1", "scan_2"], rows)
    given = []

    def predict(scans, image):
        given.append((scans.names, [path.path.name for path in scans.images], image.path.name))
        return predicted

    found = compare_example(project, "scan_1", predict=predict)
    assert given == [({3: "ball"}, ["scan_0.nii.gz"], "scan_1.nii.gz")]  # it agrees best
    assert (found.other, found.axis, found.index) == ("scan_0", 2, 12)
    seen = np.array([8, 12, 14])
    assert found.dice == pytest.approx(dice(predicted[:, :, seen] == 3, mask[:, :, seen] == 3))
    assert Image.open(io.BytesIO(found.picture)).size[0] > 200


def test_one_example_has_nothing_to_be_compared_with(project: Project) -> None:
    project.save_mask("scan_0", 3 * ball().astype(np.uint8), version=0)
    with pytest.raises(InputError, match="second"):
        compare_example(project, "scan_0")
    with pytest.raises(InputError, match="scan_1"):
        compare_example(project, "scan_1")


def test_the_worst_slice_is_along_the_coarsest_axis() -> None:
    wrong = np.zeros((4, 5, 6), bool)
    wrong[1, :3, 2] = wrong[3, :4, 5] = True
    assert worst_slice(wrong, np.eye(4), None) == (2, 5)
    assert worst_slice(wrong, np.diag([5.0, 1, 1, 1]), None) == (0, 3)
    assert worst_slice(wrong, np.eye(4), 1) == (1, 0)
    assert worst_slice(wrong[0], np.eye(4), None) == (2, 0)


def test_a_map_of_uncertainty_belongs_to_one_draft(project: Project) -> None:
    values = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    assert read_uncertainty(project, "scan_0") is None
    project.write_draft("scan_0", ball().astype(np.uint8), confidence=0.5)
    write_uncertainty(project, "scan_0", values)
    assert np.abs(read_uncertainty(project, "scan_0") / 255 - values).max() <= 0.5 / 255 + 1e-6
    project.write_draft("scan_0", ball().astype(np.uint8), confidence=0.5)
    assert read_uncertainty(project, "scan_0") is None
    write_uncertainty(project, "scan_0", 1 - values)
    assert [path.name for path in (project.folder / "drafts/uncertainty").iterdir()] == ["scan_0-0002.nii.gz"]


def test_the_page_shows_channels_uncertainty_and_the_check(chromium: str, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_phantom(scans / "scan_0.nii.gz")
    values = np.random.default_rng(0).integers(0, 999, (*SHAPE, 2)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True), str(scans / "two.mha"))
    project = Project.create(tmp_path / "project", [scans], structures=[BALL])
    project.save_mask("scan_0", 3 * ball().astype(np.uint8), version=0)
    write_checks(project, ["scan_0"], [{"support": "s", "dice": 0.1, "message": "check s: it fits none"}])
    project.write_draft("two", 3 * ball().astype(np.uint8), confidence=0.5)
    write_uncertainty(project, "two", ball(radius=3).astype(np.float32))
    with serving(project) as url, browsing(chromium) as browse:
        page = browse(url).ready("two").go([4, 5, 6])
        for channel in (1, 0):  # the file counts from left and front
            page.page.select_option("#channel", index=channel)
            page.wait(f"#where:has-text('intensity {values[35 - 4, 39 - 5, 6, channel]}')")
        page.key("z").page.wait_for_function("() => window.workbench.viewer.doubt?.opacity > 0")
        shown = page.ask("() => [...window.workbench.viewer.doubt.img].filter((one) => one === 255).length")
        assert shown == ball(radius=3).sum()
        facts = {"x-facts": json.dumps({"other": "two", "plane": 2, "slice": 9, "dice": 0.25})}
        page.page.route("**/api/compare*", lambda route: route.fulfill(content_type="image/jpeg", headers=facts))
        page.page.click("#checks button:has-text('check scan_0: it fits none')")
        page.page.click("#check-dialog button[value=open]:enabled")
        assert page.ready("scan_0").wait("#where:has-text('axial 10/24')").problems == []
