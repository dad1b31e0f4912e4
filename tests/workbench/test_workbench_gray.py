"""Grays of the scan and surfaces in a real Chromium, and a scan that is too large for its graphics."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from workbench_browser import WHERE, browsing
from workbench_toys import SHAPE, ball, make_project, serving

from medfewshot.workbench import Project, Structure

SIZE_40 = """() => {
  document.getElementById("size").value = 40;
  document.getElementById("size").dispatchEvent(new Event("input"));
}"""
BALL = [Structure("ball", 1, "#e6194b")]


@pytest.fixture(scope="module")
def browse(chromium):
    with browsing(chromium) as browse:
        yield browse


def shot(page) -> Image.Image:
    page.page.wait_for_timeout(400)
    return Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")


@pytest.mark.parametrize("values", ["whole", "fractions"])
def test_grays_are_those_of_the_window_in_every_slice(tmp_path, browse, values):
    """Whole numbers are stored as they are, fractions with a slope. The window is painted in slabs of a few slices."""
    (tmp_path / "scans").mkdir()
    scan = np.broadcast_to(np.arange(24.0) * 10 + 100, SHAPE) * (1 if values == "whole" else 0.0137)
    nib.save(nib.Nifti1Image(scan.astype(np.float32), np.diag([-1.0, 1, 1, 1])), tmp_path / "scans" / "ramp.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=BALL)
    low, high = scan.min(), scan.min() + 0.8 * (scan.max() - scan.min())
    with serving(project) as url:
        page = browse(url).ready("ramp").key("a")
        page.ask(
            "(w) => { const { viewer } = window.workbench; viewer.gray.slab = 5000; viewer.setWindow(...w); }",
            [float(low), float(high)],
        )
        page.page.wait_for_function("() => !window.workbench.viewer.gray.waiting.length")
        for z in (0, 4, 11, 23):
            page.go([18, 20, z])
            found = shot(page).getpixel(tuple(map(int, page.ask(WHERE, [2, [8, 8, z]]))))
            wanted = np.clip(255 * (scan[0, 0, z] - low) / (high - low), 0, 255)
            assert np.allclose(found, wanted, atol=4), z
        assert page.problems == []


def test_surfaces_in_3d(tmp_path, browse):
    project = make_project(tmp_path, scans=1, structures=BALL)
    project.save_mask("scan_0", ball().astype(np.uint8), version=0)
    with serving(project) as url:
        page = browse(url).ready("scan_0").key("v")
        red, green, _ = np.moveaxis(np.asarray(shot(page)).astype(int), -1, 0)
        assert np.count_nonzero(red > green + 80) > 2000
        assert page.problems == []


def test_a_radiograph_beyond_the_limit_of_the_graphics_is_drawn_exactly(tmp_path, browse):
    """It is shown a little coarser. Mask and draft keep every pixel."""
    (tmp_path / "scans").mkdir()
    ramp = np.broadcast_to(np.linspace(0, 255, 2500), (300, 2500)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "scans" / "wide.png")
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=BALL)
    shape = project.read_scan("wide").spatial_shape
    project.write_draft("wide", np.zeros(shape, np.uint8), confidence=0.5)
    with serving(project) as url:
        page = browse(url, width=1400).ready("wide").key("p")
        assert page.ask("() => Math.max(...window.workbench.viewer.gray.small)") < 2500
        page.ask(SIZE_40)
        page.drag(2, [[1000, 150, 0], [1600, 150, 0]]).saved()
        drawn = np.argwhere(np.squeeze(project.read_labels("wide")))
        spread = np.ptp(drawn, axis=0) + 1
        assert sorted(spread.tolist()) == pytest.approx([40, 640], abs=14)  # one pixel of the screen is four here
        at = tuple(map(int, page.ask(WHERE, [2, [1290, 138, 0]])))
        red, green, _ = shot(page).getpixel(at)
        assert red > green + 40
        page.key("Escape", "r").wait("#draft:checked")
        red, green, _ = shot(page).getpixel(at)
        assert abs(red - green) < 12  # the draft is empty, and the mask is an outline now
        assert page.problems == []
