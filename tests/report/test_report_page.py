"""The report page: what is in it, that nothing in it is markup, and what the viewer is given."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
import toys
from matplotlib.colors import to_rgb
from PIL import Image

from medfewshot.errors import InputError
from medfewshot.evaluation import evaluate_pairs, match_cases
from medfewshot.evaluation.pairs import PairScorer
from medfewshot.io import read_label
from medfewshot.report.page.content import Page, PageCase, StructureRow
from medfewshot.report.page.flags import FIRST_LOOK, Typical, look_first, raise_flags
from medfewshot.report.page.plots import plots_of
from medfewshot.report.page.split import FILE_BYTES, parts_folder, write_page
from medfewshot.report.page.table import size_heading
from medfewshot.report.page.viewer import coarsening, display_volumes, load_case, prepared_path, voxel_budget
from medfewshot.report.page.write import card_uri, render_page
from medfewshot.report.paint import colour_of
from medfewshot.settings import AdaptSettings
from medfewshot.workflow import adapt, open_batch, read_supports, report, segment
from medfewshot.workflow.report import run_page, show_cases

NASTY = "</script><img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two volumes, their references, and one volume that failed."""
    root = toys.make_folders(tmp_path_factory.mktemp("run"), queries=2)
    (root / "cohort" / "zz.nii.gz").write_bytes(b"no image")
    pair = [root / "annotated" / kind / "s0.nii.gz" for kind in ("images", "labels")]
    scans = dataclasses.replace(read_supports([pair]), names={205: "left", 420: "right"})
    segmenter = adapt(scans, AdaptSettings(learner="toy", device="cpu"), learners={"toy": toys.TOY})
    segment(open_batch([root / "cohort"], root / "out"), segmenter)
    return root


@pytest.fixture
def ran(finished, tmp_path):
    """A copy of the run that a test may change."""
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    record = root / "out" / "run.json"
    record.write_text(record.read_text().replace(str(finished), str(root)))
    return root


def nifti(text: str) -> nib.Nifti1Image:
    import gzip

    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def shown(folder, **choices):
    """The scans of a run as the page shows them."""
    return list(show_cases(folder, run_page(folder), **choices))


def test_a_run_on_a_page(ran):
    path = report(ran / "out")
    assert path == ran / "out" / "report.html"
    text = path.read_text(encoding="utf-8")
    for word in (
        "q0",
        "q1",
        "zz",
        "left",
        "right",
        "data:image/jpeg;base64,",
        "toy",
        "failed",
    ):
        assert word in text
    assert "http-equiv" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text.split("<script>")[0])
    assert str(ran) not in text.replace(html.escape(str(ran / "cohort" / "zz.nii.gz")), "")


def test_the_page_shows_a_reference_under_the_values_of_its_names(ran):
    path = ran / "reference" / "q0.nii.gz"
    label = nib.load(path)
    data = np.asarray(label.dataobj)
    swapped = np.where(data == 205, 420, np.where(data == 420, 205, 0)).astype(np.int16)
    nib.save(nib.Nifti1Image(swapped, label.affine), path)
    names = {"background": 0, "right": 205, "left": 420}
    (ran / "reference" / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    report(ran / "out", reference=ran / "reference")
    pairs = match_cases(ran / "out", ran / "reference")[0]
    scorer = PairScorer(names={205: "left", 420: "right"}, reference_names={205: "right", 420: "left"})
    references = {case: truth for case, _, truth in pairs}
    first = shown(ran / "out", references=references, scorer=scorer)[0]
    assert np.array_equal(nifti(first.viewer.reference).get_fdata() == 2, data == 420)


def test_labels_that_were_corrected_by_hand_are_shown_with_a_warning(ran):
    path = ran / "out" / "q0.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 1, axis=0), label.affine), path)
    first, second, _ = shown(ran / "out")
    assert [any("changed later" in text for text in case.warnings) for case in (first, second)] == [True, False]
    assert np.array_equal(nifti(first.viewer.labels).get_fdata() == 2, read_label(path).data[0] == 420)


def test_what_the_page_says_of_a_case(ran):
    evaluation = evaluate_pairs(match_cases(ran / "out", ran / "reference")[0], labels={205: "left", 420: "right"})
    page = run_page(ran / "out", evaluation=evaluation)
    references = {"q0": ran / "reference" / "q0.nii.gz"}
    first, second, failed = cases = list(show_cases(ran / "out", page, references=references))
    assert page.unit == "ml"
    assert page.scored
    assert [row.name for row in first.structures] == ["left", "right"]
    score = next(s for s in evaluation.scores if s.case_id == "q0" and s.label == 205)
    assert first.structures[0].scores["dice"] == pytest.approx(score.dice)
    assert first.structures[0].size == pytest.approx(score.volume_ml)
    assert first.viewer.reference is not None
    assert second.viewer.reference is None
    assert np.array_equal(
        nifti(first.viewer.labels).get_fdata() == 2, read_label(ran / "out" / "q0.nii.gz").data[0] == 420
    )
    assert failed.failed
    assert [bool(case.picture) for case in cases] == [True, True, False]
    assert "zz.nii.gz" in failed.warnings[0]
    assert failed.viewer is None
    assert page.summary[-1]["label_name"] == "all labels"


def test_the_page_is_built_without_reading_a_scan_again(ran):
    """The volumes of the run: the same as from its files, also after the scan is gone."""
    prepared = shown(ran / "out")[0].viewer
    prepared_path(ran / "out", "q0").unlink()
    assert shown(ran / "out")[0].viewer == prepared
    (ran / "cohort" / "q1.nii.gz").unlink()
    assert shown(ran / "out")[1].viewer is not None


@pytest.mark.parametrize("damage", ["other labels", "no file", "no archive"])
def test_prepared_volumes_that_do_not_count(ran, damage):
    file, labels = prepared_path(ran / "out", "q0"), ran / "out" / "q0.nii.gz"
    assert load_case(ran / "out", "q0", labels_file=labels) is not None
    if damage == "other labels":
        nib.save(
            nib.Nifti1Image(np.zeros(read_label(labels).spatial_shape, np.uint8), read_label(labels).affine), labels
        )
    elif damage == "no file":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    assert load_case(ran / "out", "q0", labels_file=labels) is None
    viewer = shown(ran / "out")[0].viewer
    assert np.array_equal(nifti(viewer.labels).get_fdata() > 0, read_label(labels).data[0] > 0)


def test_a_scan_that_has_moved_costs_the_viewer_only(ran):
    (ran / "cohort" / "q0.nii.gz").rename(ran / "q0.nii.gz")
    prepared_path(ran / "out", "q0").unlink()
    case = shown(ran / "out")[0]
    assert case.viewer is None
    assert case.preview is not None
    assert case.warnings[-1].startswith("no viewer: ")
    report(ran / "out", ran / "small.html", viewer=False)
    assert "niivue" not in (ran / "small.html").read_text(encoding="utf-8")
    report(ran / "out", ran / "small.html", viewer=False)  # in place of an earlier one
    with pytest.raises(InputError, match="exists already and is no report"):
        report(ran / "out", ran / "q0.nii.gz", viewer=False)


def test_a_large_report_is_split_into_files(tmp_path):
    """Every scan is shown in one file, every link leads to it, and files of a larger report before are deleted."""
    cases = [replace(case, viewer=nasty_page().cases[0].viewer) for case in cases_of(*[1.0] * 5)]
    path = write_page(tmp_path / "a b#.html", Page("run", {1: "liver"}, tuple(cases)), file_cases=2)
    files = [path, *sorted((tmp_path / "a b#_scans").iterdir())]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert [text.count("<article") for text in texts] == [0, 2, 2, 1]
    assert ["niivue.umd" in text or "Niivue(" in text for text in texts] == [False, True, True, True]
    table = json.loads(re.search(r'id="rows">(.*?)</script>', texts[0], re.S)[1])
    for number, scan in enumerate(table["scans"]):
        file, anchor = unquote(scan["link"]).rsplit("#", 1)
        assert f'<article id="{anchor}"' in (tmp_path / file).read_text(encoding="utf-8")
        assert anchor == f"case-{number + 1}"
    around = [set(re.findall(r'href="([^"]*scans_[^"]*)"', text)) for text in texts[1:]]
    assert around == [{"scans_002.html"}, {"scans_001.html", "scans_003.html"}, {"scans_002.html"}]
    assert 'href="../a%20b%23.html#cases"' in texts[1]
    own = tmp_path / "a b#_scans" / "notes.txt"
    own.write_text("of somebody else")
    write_page(path, Page("run", {1: "liver"}, tuple(cases)))
    assert [file.name for file in tmp_path.rglob("*.*")] == ["a b#.html", "notes.txt"]


def test_a_file_takes_what_fits(tmp_path):
    picture = "data:image/jpeg;base64," + "a" * (FILE_BYTES // 2)
    cases = tuple(replace(case, preview=picture, picture="data:,") for case in cases_of(1.0, 1.0, 1.0))
    path = write_page(tmp_path / "report.html", Page("run", {1: "liver"}, cases))
    assert len(list(parts_folder(path).iterdir())) == 3
    assert max(file.stat().st_size for file in tmp_path.rglob("*.html")) < 30e6


def test_many_dots_hide_those_that_they_cover():
    page = Page("run", {1: "liver"}, tuple(cases_of(*[number % 50 + 1.0 for number in range(5000)])))
    row = plots_of(page)[0].rows[0]
    assert len(row.dots) <= 250  # five heights
    assert sum(1 + dot.behind for dot in row.dots) == 5000
    assert row.median == 25.5


def test_folders_without_a_run(tmp_path):
    with pytest.raises(InputError, match="contains no results"):
        report(tmp_path)
    (tmp_path / "run.json").write_text('{"plan": {}, "outputs": []}')
    with pytest.raises(InputError, match="damaged"):
        report(tmp_path)


def nasty_page() -> Page:
    row = StructureRow(1, NASTY, 1.0, 0.5, NASTY, {"dice": 0.5}, flags=(NASTY,))
    volume = np.arange(60.0).reshape(3, 4, 5)
    viewer = replace(display_volumes(volume, volume > 50, np.eye(4), values=[1]).encoded(), note=NASTY)
    case = PageCase(NASTY, structures=(row,), warnings=(NASTY,), files=(NASTY,), details=(NASTY,), viewer=viewer)
    failed = PageCase(NASTY * 2, failed=True, warnings=(NASTY,))
    return Page(NASTY, {1: NASTY}, (case, failed), facts={NASTY: NASTY}, warnings=(NASTY,))


def test_everything_is_escaped():
    text = render_page(nasty_page())
    assert NASTY not in text
    assert "<img src=x" not in text
    elements = Counter()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: elements.update([tag])
    parser.feed(text)
    assert elements["script"] == 7  # three programs, their settings and rows, an image and its labels
    assert elements["img"] == 0
    settings = re.search(r'<script type="application/json" id="settings">(.*?)</script>', text, re.S)[1]
    assert json.loads(settings)["cases"][0]["name"] == NASTY


def test_only_the_pages_own_scripts_may_run():
    text = render_page(nasty_page())
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 3
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_the_viewer_gets_the_scan_with_its_geometry_and_grey_levels():
    rng = np.random.default_rng(0)
    image, affine = rng.normal(100, 20, (12, 11, 10)), np.diag([1.5, 2.0, 4.0, 1.0])
    affine[:3, 3] = (5, -7, 9)
    labels = np.zeros(image.shape, int)
    labels[2:5, 3:6, 4:7] = 420
    viewer = display_volumes(image, labels, affine, values=[205, 420]).encoded()
    shown = nifti(viewer.image)
    assert np.allclose(shown.affine, affine, atol=1e-5)
    inside = (image > np.percentile(image, 1)) & (image < np.percentile(image, 99))
    step = (np.percentile(image, 99.5) - np.percentile(image, 0.5)) / 255
    assert np.abs(shown.get_fdata() - image)[inside].max() <= step
    assert np.array_equal(nifti(viewer.labels).get_fdata(), 2 * (labels == 420))
    assert viewer.centre_mm == (3 * 1.5 + 5, 4 * 2 - 7, 5 * 4 + 9)
    assert "coarser" not in viewer.note


def test_the_card_of_a_case_shows_the_slice_of_its_worst_structure():
    image, labels = np.full((20, 20, 20), 10.0), np.zeros((20, 20, 20), int)
    labels[3:9, 3:9, 4] = 1
    labels[12:18, 12:18, 15] = 2
    pictures = {}
    for volumes in (
        display_volumes(image, labels, np.eye(4), values=[1, 2]),
        display_volumes(image[..., 0], labels[..., 4], np.eye(4), values=[1, 2]),
        display_volumes(image[..., :1], labels[..., 4:5], np.eye(4), values=[1, 2]),
    ):
        for rank in (1, 2, None):
            data = base64.b64decode(card_uri(volumes, rank).removeprefix("data:image/jpeg;base64,"))
            with Image.open(io.BytesIO(data)) as picture:
                pixels = np.asarray(picture).astype(int)
            near = [
                np.abs(pixels - np.multiply(to_rgb(colour_of(r)), 255)).max(-1) < 60 for r in (1, 2)
            ]  # JPEG blurs thin lines
            pictures[(*volumes.shape, rank)] = [int(mask.sum()) for mask in near]
    first, second = pictures[20, 20, 20, 1], pictures[20, 20, 20, 2]
    assert first[0] > 10 * first[1]
    assert second[1] > 10 * second[0]
    assert pictures[20, 20, 2][0] > 100  # the only slice
    assert pictures[20, 20, 1, 2][0] > 100


def test_the_viewer_opens_at_the_worst_structure():
    labels = np.zeros((20, 20, 20), int)
    labels[3:6, 3:6, 3:6] = 1
    volumes = display_volumes(labels, labels, np.eye(4), values=[1, 2]).with_reference(2 * labels[::-1], [1, 2])
    assert volumes.encoded(1).centre_mm == (4, 4, 4)
    assert volumes.encoded(2).centre_mm == (15, 4, 4)  # missed: where the reference has it


def test_a_large_scan_is_made_coarser_and_loses_no_structure():
    shape = (40, 40, 10)
    image, labels = np.ones(shape, np.float32), np.zeros(shape, np.uint8)
    image[20:] = 3
    labels[4:20, 4:20, 2:6] = 1
    labels[31, 33, 5] = 2
    viewer = display_volumes(image, labels, np.diag([1, 1, 5, 1.0]), values=[1, 2], budget=4000).encoded()
    shown = nifti(viewer.labels)
    steps = np.array([40, 40, 10]) / shown.shape
    assert np.prod(shown.shape) <= 4000
    assert list(steps) == [2, 2, 1]
    # The first coarse voxel's centre is the mean of the centres of those that it stands for.
    assert np.allclose(shown.affine @ [0, 0, 0, 1], [0.5, 0.5, 0, 1])
    found = shown.get_fdata()
    assert (found == 2).sum() == 1
    assert found[15, 16, 5] == 2
    assert (found == 1).sum() == 8 * 8 * 4
    assert nifti(viewer.image).get_fdata()[9:11, 0, 0] == pytest.approx([1, 3], abs=0.02)
    assert "coarser" in viewer.note


@pytest.mark.parametrize("slices", [5, 7])
def test_the_last_incomplete_block_is_shown(slices):
    labels = np.zeros((1, 1, slices), np.uint8)
    blocks = slices // 3
    labels[..., 3 * blocks :] = 1  # in the last block of three slices, which has only two or one
    image = np.arange(float(slices)).reshape(labels.shape)
    volumes = display_volumes(image, labels, np.eye(4), values=[1], uncertainty=labels, budget=blocks + 1)
    assert volumes.steps == (1, 1, 3)
    assert volumes.labels.tolist() == [[[0] * blocks + [1]]]
    assert volumes.uncertainty.tolist() == [[[0] * blocks + [255]]]  # the mean of the slices that are there
    assert np.array_equal(volumes.with_reference(labels, [1]).reference, volumes.labels)


def test_background_that_coarsening_loses_stays_lost():
    labels = np.asarray([[[2, 2, 2, 0, 1]]], np.uint8)
    assert display_volumes(labels, labels, np.eye(4), values=[1, 2], budget=2).labels.tolist() == [[[2, 1]]]


def test_twice_coarser_lies_on_the_grid_of_once():
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(41, 37, 11)), rng.integers(0, 3, (41, 37, 11))
    affine, values = np.diag([1, 1, 4, 1.0]), (1, 2)
    once = display_volumes(image, labels, affine, values=values, uncertainty=np.full(image.shape, 0.5), budget=2000)
    twice = display_volumes(image, labels, affine, values=values, uncertainty=np.full(image.shape, 0.5), budget=9000)
    twice = twice.coarser(2000).with_reference(labels, values)
    assert (once.steps, once.grey.shape) == (twice.steps, twice.grey.shape)
    first, second = once.encoded(), twice.encoded()
    assert np.allclose(nifti(first.image).affine, nifti(second.image).affine)
    assert np.allclose(nifti(second.uncertainty).get_fdata(), 0.5, atol=0.01)
    assert np.array_equal(nifti(second.reference).get_fdata(), once.labels)


@pytest.mark.parametrize(
    ("shape", "spacing", "budget", "steps"),
    [
        ((10, 10, 10), (1, 1, 1), 1000, (1, 1, 1)),
        ((100, 100, 10), (1, 1, 5), 25_000, (2, 2, 1)),
        ((64, 64, 64), (1, 1, 1), 40_000, (2, 2, 2)),
    ],
)
def test_coarsening(shape, spacing, budget, steps):
    assert coarsening(shape, spacing, budget) == steps


def test_many_cases_share_the_page():
    assert voxel_budget(1) == voxel_budget(10)
    assert voxel_budget(100) == 400_000
    assert voxel_budget(10**6) == 100_000


def cases_of(*sizes: float | None, predicted: float = 0.9) -> list[PageCase]:
    return [PageCase(f"c{i}", structures=(StructureRow(1, "liver", s, predicted),)) for i, s in enumerate(sizes)]


def test_flags():
    flagged = raise_flags(cases_of(100, 110, 90, 105, 95, 4000))
    assert [bool(case.reasons) for case in flagged] == [False] * 5 + [True]
    assert list(flagged[-1].reasons) == ["unusually large for these scans"]
    assert not any(case.reasons for case in raise_flags(cases_of(100, 101, 99, 100.5, 99.5, 110)))  # odd, but not far
    assert list(raise_flags(cases_of(100, 0))[1].reasons) == ["not found"]
    assert list(raise_flags(cases_of(100, predicted=0.4))[0].reasons) == ["low confidence"]
    assert not any(case.reasons for case in raise_flags(cases_of(1, 1000, 5)))  # three cases are no cohort


@pytest.mark.parametrize(("last", "flagged"), [(0.87, False), (0.80, True)])
def test_a_predicted_dice_must_be_odd_and_far(last, flagged):
    values = (0.90, 0.901, 0.902, 0.903, 0.904, last)
    cases = [PageCase(f"c{i}", structures=(StructureRow(1, "liver", 10.0, dice),)) for i, dice in enumerate(values)]
    assert [bool(case.reasons) for case in raise_flags(cases)] == [False] * 5 + [flagged]


@pytest.mark.parametrize(
    ("size", "status", "dice", "reason"),
    [
        (0, None, None, "not found"),
        (0, "missed", 0.0, "missed"),
        (5, "false_alarm", 0.0, "not in the reference"),
        (0, "absent", None, None),
        (5, "found", 0.3, "Dice 0.30"),
        (5, "found", 0.9, None),
    ],
)
def test_flags_of_scores(size, status, dice, reason):
    known = () if size else ("not found",)
    row = StructureRow(1, "liver", size, 0.9 if size else None, status, {"dice": dice}, flags=known)
    assert raise_flags([PageCase("c", structures=(row,))])[0].structures[0].flags == ((reason,) if reason else ())


def test_the_worst_flagged_cases_come_first():
    def case(name: str, dice: float, *flags: str, scan: tuple[str, ...] = ()) -> PageCase:
        rows = (StructureRow(1, "liver", 5.0, dice, flags=flags), StructureRow(2, "spleen", 5.0, 0.55, flags=scan))
        return PageCase(name, structures=rows)

    cases = [
        case("good", 0.9),
        case("bad", 0.3, "low confidence"),
        PageCase("failed", failed=True),
        case("odd scan", 0.9, "voxels unlike labelled scans", scan=("voxels unlike labelled scans",)),
        case("worse", 0.2, "low confidence"),
        case("lower", 0.5),
    ]
    assert [case.name for case in look_first(cases)] == ["worse", "bad", "odd scan", "failed", "lower", "good"]
    assert cases[1].worst.name == "liver"
    assert cases[3].worst.name == "spleen"
    assert cases[0].worst.name == "spleen"  # none is flagged: the lowest
    reasons = {text: [row.name for row in rows] for text, rows in cases[3].reasons.items()}
    assert reasons == {"voxels unlike labelled scans": ["spleen", "liver"]}  # the worst first
    one = PageCase("one", structures=(StructureRow(1, "liver", flags=("low confidence", "missed")),))
    assert list(one.reasons) == ["low confidence; missed"]
    assert len(look_first(cases * 9)) == FIRST_LOOK
    assert look_first([]) == ()


def test_the_first_screen_shows_pictures_with_structure_and_reason():
    row = StructureRow(1, "liver", 5.0, 0.31, flags=("low confidence",))
    page = Page("run", {1: "liver"}, (PageCase("c1", structures=(row,), picture="data:image/jpeg;base64,abc"),))
    text = render_page(page)
    cards = text[text.index('class="cards"') : text.index("</ul>", text.index('class="cards"'))]
    for words in (
        'src="data:image/jpeg;base64,abc"',
        "c1",
        "<b>liver</b>: low confidence</span>",
        "confidence <b>0.31",
    ):
        assert words in cards
    assert "<table" not in text[: text.index('class="cards"')]


def test_modified_z():
    assert Typical.of([1, 2, 3, 4, 5]).modified_z(9) == pytest.approx(0.6745 * 6)
    assert Typical.of([1, 1, 1, 1, 5]).modified_z(9) == 0
    assert Typical.of([1, 2, 3, 4]).modified_z(9) == 0
    assert Typical.of([]).modified_z(9) == 0


def strip_plots(*cases: PageCase) -> dict[str, str]:
    """The SVG of each plot of a page, by its title."""
    text = render_page(Page("run", {1: "liver"}, cases))
    return dict(re.findall(r"<figcaption>([^<]*)</figcaption>.*?<svg(.*?)</svg>", text, re.S))


def test_a_strip_plot_places_its_dots():
    values = (("a", 0.0), (NASTY, 0.5), ("c", 1.0), ("d", float("nan")))
    cases = [PageCase(name, structures=(StructureRow(1, "liver", None, dice),)) for name, dice in values]
    plots = strip_plots(*cases, PageCase("without the structure"))
    assert list(plots) == ["Confidence"]
    plot = plots["Confidence"]
    dots = re.findall(rf'<a href="#([^"]*)"><circle class="mark" fill="{colour_of(1)}" cx="([^"]*)"', plot)
    assert dots == [("case-1", "150.0"), ("case-2", str((150 + 624) / 2)), ("case-3", "624.0")]
    assert '<line class="median" x1="387.0"' in plot
    assert "median 0.5" in plot
    assert re.findall(r'class="tick".*?>(.*?)<', plot) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_size_in_voxels_is_no_area():
    headings = [size_heading(Page("", {}, (), unit=unit)) for unit in ("ml", "mm²", "voxels", "pixels")]
    assert headings == ["Volume ml", "Area mm²", "Size voxels", "Area pixels"]


def test_a_plot_of_equal_values():
    plot = strip_plots(*cases_of(7.0, 7.0))["Volume ml"]
    assert len(set(re.findall(r'cx="([^"]*)" cy="([^"]*)"', plot))) == 2
