"""The page: one file, every table and number in it, and the cases that one should look at."""

from __future__ import annotations

import re

from boards import two_learners, write_cells

from medfewshot.benchmark import plan_cells, write_report
from medfewshot.benchmark.cells import picture_of
from medfewshot.benchmark.page import choose_cases, write_page
from medfewshot.benchmark.results import read_groups
from medfewshot.benchmark.tables import Table

SCORES = {"q0": {1: 0.9, 2: 0.1}, "q1": {1: 0.5, 2: 0.8}, "q2": {1: 0.7, 2: 0.6}, "q3": {1: 0.6, 2: None}}


def paint(folder, case):
    path = picture_of(folder, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF....WEBP")
    return path


def test_cases_are_the_best_the_median_and_the_worst(tmp_path):
    cells = plan_cells(two_learners())
    write_cells(cells, tmp_path, {"one": SCORES})
    (group,) = [g for g in read_groups(cells, tmp_path) if g.results]
    assert choose_cases(group, tmp_path) == []  # nothing was painted
    for case in SCORES:
        path = paint(cells[0].folder(tmp_path), case)
        assert path == picture_of(cells[0].folder(tmp_path), case)
    shown = choose_cases(group, tmp_path)
    assert {s.case: s.reasons for s in shown} == {
        "q0": ("blob_2: worst, Dice 0.10", "blob_1: best, Dice 0.90"),
        "q1": ("blob_1: worst, Dice 0.50", "blob_2: best, Dice 0.80"),
        "q2": ("blob_2: median, Dice 0.60", "blob_1: median, Dice 0.70"),
    }
    assert [s.case for s in shown] == ["q0", "q1", "q2"]  # the worst first
    assert all(s.path == picture_of(cells[0].folder(tmp_path), s.case) for s in shown)


def test_the_page_needs_no_other_file(tmp_path):
    config = two_learners()
    cells = plan_cells(config)
    write_cells(cells, tmp_path / "run", {"one": SCORES})
    paint(cells[0].folder(tmp_path / "run"), "q1")
    tables = write_report(config, tmp_path / "run", tmp_path / "report")
    text = tables.with_name("index.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)=["']([^"']+)""", text)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "not run" in text  # the other learner
    assert "blob_1: worst, Dice 0.50" in text
    assert text.count("<h2") >= 4


def test_names_cannot_become_markup(tmp_path):
    table = Table("Scores", "a <b>", ("dataset",), (("<script>alert(1)</script>",),))
    page = write_page(
        tmp_path / "index.html", protocol="volume", head="# Benchmark\n\nx & y", tables=[table], plots=[],
        failures={"a": "<i>"},
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<i>" not in text
    assert "x &amp; y" in text


def test_pictures_leave_the_fingerprint_alone():
    plain, painted = (plan_cells(two_learners(pictures=value))[0] for value in (False, True))
    assert painted.pictures
    assert plain.fingerprint == painted.fingerprint
