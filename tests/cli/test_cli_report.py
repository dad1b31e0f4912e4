"""The report of a run: written by default, again on request, with scores where there are references."""

from __future__ import annotations

import json


def test_segment_leaves_a_report_unless_told_not_to(run, scans, support):
    done = run("segment", scans / "cohort" / "q0.nii.gz", *support, "-o", scans / "out", "--no-previews")
    assert done.code == 0, done.err
    assert "report.html" in done.out
    assert "q0" in (scans / "out" / "report.html").read_text()
    words = ("segment", scans / "cohort" / "q0.nii.gz", *support, "-o", scans / "o2", "--no-previews", "--no-report")
    done = run(*words)
    assert "report.html" not in done.out
    assert not (scans / "o2" / "report.html").exists()


def test_a_report_afterwards(run, scans, support):
    words = ("segment", scans / "cohort", *support, "-o", scans / "out", "--no-previews", "--no-report", "-q")
    assert run(*words).code == 0
    done = run("report", scans / "out", "-r", scans / "reference", "-o", scans / "scored.html", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"report": str(scans / "scored.html")}
    text = (scans / "scored.html").read_text()
    assert "95 % interval" in text
    assert "-reference" in text
    assert run("report", scans / "out", "--no-viewer", "-q").code == 0
    assert (scans / "out" / "report.html").stat().st_size < len(text) / 10


def test_reports_that_cannot_be(run, scans):
    done = run("report", scans / "cohort")
    assert done.code == 2
    assert "contains no results" in done.err
    assert "is a folder" in run("report", scans / "cohort", "-o", scans).err
