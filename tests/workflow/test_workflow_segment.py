"""Which volumes are segmented under which names, and folders that hold whole results or none."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import pytest
import toys

from medfewshot.bundle import VolumeSegmenter
from medfewshot.errors import InputError
from medfewshot.io import claimed, read_image
from medfewshot.settings import AdaptSettings, SegmentSettings
from medfewshot.types import Cancelled, Case, Progress
from medfewshot.workflow import (
    Batch,
    RunResult,
    adapt,
    check_channels,
    check_folder,
    find_cases,
    open_batch,
    read_supports,
    report,
    segment,
)
from medfewshot.workflow.reviews import read_review_status
from medfewshot.workflow.segment import check_results_folder

PLAIN = SegmentSettings(previews=False)


def segment_cases(
    cases: list[Case], segmenter: VolumeSegmenter, folder: Path, settings: SegmentSettings = PLAIN, **more
) -> RunResult:
    progress = more.pop("progress", None)
    return segment(Batch(tuple(cases), folder, settings, **more), segmenter, progress=progress)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def scans(tmp_path):
    return toys.make_folders(tmp_path)


@pytest.fixture
def segmenter(scans):
    return adapt(
        read_supports(scans / "annotated"), AdaptSettings(learner="toy", device="cpu"),
        learners={"toy": toys.TOY},
    )  # fmt: skip


def test_one_case_a_file(tmp_path):
    touch(tmp_path, "b.nii.gz", "a_0000.nii.gz", "c.mha", "c_seg.mha", "notes.txt")
    cases = find_cases([tmp_path])
    assert [case.case_id for case in cases] == ["a", "b", "c"]
    assert [case.case_id for case in find_cases([tmp_path / "b.nii.gz", tmp_path])] == ["b", "a", "c"], "each once"


def test_channel_files_make_one_case(tmp_path):
    touch(tmp_path, "p.1_0001.nii.gz", "p.1_0000.nii.gz", "q_0000.nii.gz", "x.nii.gz")
    cases = {case.case_id: case for case in find_cases([tmp_path], channels=2)}
    assert [path.name for path in cases["p.1"].image_paths] == ["p.1_0000.nii.gz", "p.1_0001.nii.gz"]
    check_channels(cases["p.1"], 2)
    for name in ("q", "x"):
        with pytest.raises(InputError, match=f"{name}_0000, {name}_0001 are needed"):
            check_channels(cases[name], 2)


def test_names_are_told_apart_by_their_folders(tmp_path):
    touch(tmp_path, "one/scan.nii.gz", "two/Scan.nii.gz", "two/other.nii.gz")
    names = [case.case_id for case in find_cases([tmp_path / "one", tmp_path / "two"])]
    assert sorted(names) == ["one_scan", "other", "two_Scan"]
    touch(tmp_path, "one/scan.mha")
    with pytest.raises(InputError, match=r"scan\.\w+.* and .*scan\.\w+.*: both would be written as scan"):
        find_cases([tmp_path / "one"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("PA1/ST1/SE1.mha", "PA2/ST1/SE1.mha", "PA2/ST1/SE2.mha"), ["PA1_ST1_SE1", "PA2_ST1_SE1", "SE2"]),
        (("sub-01/ses-1/T1w.mha", "sub-02/ses-1/T1w.mha"), ["sub-01_ses-1_T1w", "sub-02_ses-1_T1w"]),
        (("a/x/T1.mha", "b/x/T1.mha", "b/y/T1.mha"), ["a_x_T1", "b_x_T1", "b_y_T1"]),
    ],
)
def test_names_have_as_many_folders_as_tell_them_apart(tmp_path, files, expected):
    touch(tmp_path, *files)
    assert [case.case_id for case in find_cases([tmp_path / file for file in files])] == expected


def test_folders_that_can_be_written_to(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file"):
            check_folder(path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written to"):
        check_folder(tmp_path / "new")


def test_files_of_others_are_safe(scans):
    cases = find_cases([scans / "cohort"])
    check_results_folder(scans / "out", cases, PLAIN)
    for options in (PLAIN, SegmentSettings(overwrite=True), SegmentSettings(resume=True)):
        with pytest.raises(InputError, match="scans themselves"):
            check_results_folder(scans / "cohort", cases, options)
    for options in (PLAIN, SegmentSettings(resume=True), SegmentSettings(overwrite=True)):
        with pytest.raises(InputError, match=r"q0\.nii\.gz: exists already, and no run\.json"):
            check_results_folder(scans / "reference", cases, options)
    check_results_folder(scans / "annotated" / "labels", cases, PLAIN)


def test_progress_goes_up_within_and_between_volumes(scans, segmenter):
    told: list[float] = []
    progress = Progress(lambda event: told.append(event.done / event.total))
    result = segment_cases(find_cases([scans / "cohort"]), segmenter, scans / "out", progress=progress)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 4
    assert [one.status for one in result.results] == ["done"] * 3
    assert not result.failed


def test_a_new_prediction_has_no_review(scans, segmenter):
    """Neither the log of a project nor reviews of earlier results count for it."""
    rows = "time,case,status,version,draft,dice,note\n" + "".join(f",q{number},accepted,1,0,,\n" for number in range(3))
    for folder in (scans / "project", scans / "project" / "nifti"):
        folder.mkdir(exist_ok=True)
        (folder / "reviews.csv").write_text(rows)
        result = segment_cases(find_cases([scans / "cohort"]), segmenter, folder / "results")
        assert "review_status" not in (result.folder / "statistics.csv").read_text().splitlines()[0]
        assert read_review_status(result.folder) == {}


def test_a_crash_leaves_no_half_file(scans, segmenter, monkeypatch):
    def crash(image, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        segment_cases(find_cases([scans / "cohort"]), segmenter, scans / "out", PLAIN)
    assert [path.name for path in (scans / "out").iterdir()] == ["run.json"]
    assert json.loads((scans / "out" / "run.json").read_text())["outputs"] == []


def test_whatever_happens_to_one_volume(scans, segmenter):
    errors = {"q0": MemoryError(), "q1": KeyError("x")}

    def read(paths):
        if error := errors.get(paths[0].name[:2]):
            raise error
        return read_image(paths)

    result = segment_cases(find_cases([scans / "cohort"]), segmenter, scans / "out", read=read)
    assert [one.status for one in result.results] == ["failed", "failed", "done"]
    first, second = ([f"{one.inputs[0]}: ", one] for one in result.failed)
    assert first[1].error == first[0] + "MemoryError"
    assert second[1].error == second[0] + "KeyError: 'x'"
    entry = json.loads((scans / "out" / "run.json").read_text())["outputs"][1]
    assert "in read\n    raise error" in entry["traceback"]


def test_an_input_error_needs_no_traceback(scans, segmenter):
    (scans / "cohort" / "q0.nii.gz").write_bytes(b"")
    failed = segment_cases(find_cases([scans / "cohort"]), segmenter, scans / "out").failed[0]
    assert "0 bytes" in failed.error
    assert failed.traceback is None


@pytest.mark.parametrize("inputs", ["cohort", "cohort/q0.nii.gz"])
def test_every_scan_is_read_once(scans, segmenter, inputs):
    seen: list[str] = []

    def read(paths):
        seen.append(paths[0].name)
        return read_image(paths)

    batch = open_batch([scans / inputs], scans / "out", plan=segmenter.plan, read=read)
    segment(batch, segmenter)
    report(scans / "out")
    assert seen == [case.image_path.name for case in batch.cases]


def test_what_is_skipped_is_reported_and_recorded(scans, segmenter):
    uid = b"1.2.840.10008.5.1.4.1.1.481.3\0"
    file = scans / "cohort" / "rs.dcm"
    file.write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI" + len(uid).to_bytes(2, "little") + uid)
    batch = open_batch([scans / "cohort"], scans / "out", PLAIN)
    assert file not in [case.image_path for case in batch.cases]
    told = f"1 DICOM file(s) without an image ignored, such as {file}; check that no scan is missing"
    assert told in segment(batch, segmenter).warnings
    assert told in json.loads((scans / "out" / "run.json").read_text())["warnings"]


def test_scans_in_subfolders_are_skipped_with_a_warning(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "more/c.nii", "also/d.nii", "old/a.nii", "old/run.json", "labels/a.nii")
    batch = open_batch([tmp_path, tmp_path / "also"], tmp_path / "old", PLAIN.replace(resume=True))
    assert [case.case_id for case in batch.cases] == ["a", "b", "d"]
    told = f"1 image(s) in subfolders ignored, such as {tmp_path / 'more' / 'c.nii'}; give their folders too"
    assert batch.warnings == (told,)


@pytest.mark.parametrize(
    ("files", "warned"),
    [
        (["a_0000.nii", "a_0001.nii", "b_0000.nii", "b_0001.nii"], True),
        (["a_t1.nii", "a_flair.nii", "b_t1.nii", "b_flair.nii"], True),
        (["scan_0000.nii", "scan_0001.nii", "scan_0002.nii"], False),
        (["x/a_0000.nii", "x/b_0000.nii", "y/a_0000.nii", "y/b_0000.nii"], False),
    ],
)
def test_channels_for_a_model_of_one_channel_are_named(tmp_path, files, warned):
    touch(tmp_path, *files)
    scans = [tmp_path / file for file in files]
    warnings = open_batch(scans, tmp_path / "out", PLAIN).warnings
    assert warnings == () or "each scan has 2 files" in warnings[0]
    assert bool(warnings) is warned
    if warned:
        assert open_batch(scans, tmp_path / "out", PLAIN, channels=2).warnings == ()


def test_the_table_has_the_reasons_that_come_from_the_other_scans(scans, segmenter):
    for seed in range(6):
        image, _ = toys.make_scan(seed)
        if seed == 5:
            image[4:7, 3:9, 3:9] = 100  # half of a structure
        toys.save_nifti(scans / "more" / f"m{seed}.nii.gz", image)
    result = segment_cases(find_cases([scans / "more"]), segmenter, scans / "out")
    assert "unusually small for these scans" in result.review.values()
    with open(result.folder / "statistics.csv", newline="") as file:
        table = {(row["case"], int(row["label"])): row["review"] for row in csv.DictReader(file)}
    assert {key: reason for key, reason in table.items() if reason} == result.review


def test_every_support_is_read_once(scans):
    seen: list[str] = []

    def read(paths):
        seen.append(paths[0].name)
        return read_image(paths)

    supports = read_supports(scans / "annotated", read=read)
    adapt(supports, AdaptSettings(learner="toy"), learners={"toy": toys.TOY})
    assert seen == ["s0.nii.gz", "s1.nii.gz"]


def test_a_cancelled_run_keeps_what_is_done(scans, segmenter):
    cases, out = find_cases([scans / "cohort"]), scans / "out"
    progress = Progress(cancelled=lambda: (out / "q0.nii.gz").exists())
    with pytest.raises(Cancelled):
        segment_cases(cases, segmenter, out, progress=progress)
    record = json.loads((out / "run.json").read_text())
    assert [entry["case"] for entry in record["outputs"]] == ["q0"]
    assert record["finished"] is None
    assert segment_cases(cases, segmenter, out, PLAIN.replace(resume=True)).resumed == 1


def test_a_record_of_a_newer_version_is_refused(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"format_version": 2}))
    for work in (lambda: segment_cases(cases, segmenter, out, PLAIN.replace(resume=True)), lambda: report(out)):
        with pytest.raises(InputError, match=r"run\.json: was written by a newer medfewshot"):
            work()


def test_two_runs_into_one_folder_are_refused(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases[:1], segmenter, out, PLAIN)
    with claimed(out), pytest.raises(InputError, match="another run writes into it"):
        segment_cases(cases, segmenter, out, PLAIN.replace(resume=True))
    assert segment_cases(cases, segmenter, out, PLAIN.replace(resume=True)).resumed == 1
    assert not (out / ".lock").exists()


def test_resuming_does_what_is_not_done(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases[:1], segmenter, out, PLAIN)
    again = SegmentSettings(previews=False, resume=True)
    result = segment_cases(cases, segmenter, out, again)
    assert (result.resumed, len(result.results)) == (1, 3)
    (out / "q1.nii.gz").unlink()
    assert segment_cases(cases, segmenter, out, again).resumed == 2
    assert (out / "q1.nii.gz").exists()
    options = SegmentSettings(keep_largest=False, previews=False, resume=True)
    with pytest.raises(InputError, match="other settings"):
        segment_cases(cases, segmenter, out, options)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 1, "outputs": [{"a": 1}]}'])
def test_a_damaged_record(scans, segmenter, text):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    out.mkdir()
    (out / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json: is damaged; segment again"):
        segment_cases(cases, segmenter, out, SegmentSettings(resume=True))
    assert not segment_cases(cases, segmenter, out, SegmentSettings(previews=False, overwrite=True)).failed


def test_replacing_deletes_only_what_the_record_names(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, PLAIN)
    touch(scans, "out/mine.txt", "precious.nii.gz")
    record = json.loads((out / "run.json").read_text())
    record["outputs"][0]["files"] = ["../precious.nii.gz", str(scans / "precious.nii.gz")]
    (out / "run.json").write_text(json.dumps(record))
    segment_cases(cases[:1], segmenter, out, SegmentSettings(previews=False, overwrite=True))
    assert {path.name for path in out.iterdir()} == {
        "q0.nii.gz", "mine.txt", "report", "run.json", "statistics.csv", "data_dictionary.csv",
    }  # fmt: skip
    assert [path.name for path in (out / "report").iterdir()] == ["q0.npz"]
    assert (scans / "precious.nii.gz").exists()


def test_scores_of_replaced_results_go_with_them(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, PLAIN)
    touch(scans, "out/scores.csv")
    segment_cases(cases, segmenter, out, SegmentSettings(previews=False, overwrite=True))
    assert (out / "scores.csv").exists()  # alone, it is not of an evaluation
    touch(scans, "out/summary.csv", "out/summary.json", "out/dice.png")
    segment_cases(cases, segmenter, out, SegmentSettings(previews=False, overwrite=True))
    assert not {path.name for path in out.iterdir()} & {"scores.csv", "summary.csv", "summary.json", "dice.png"}


RESUME = SegmentSettings(previews=False, resume=True)


def test_scores_of_scans_that_were_replaced_go_on_resuming(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, RESUME)
    touch(scans, "out/scores.csv", "out/summary.csv", "out/summary.json")
    assert not any("scores" in text for text in segment_cases(cases, segmenter, out, RESUME).warnings)
    os.utime(cases[0].image_path, (1, 1))
    assert any("scores" in text for text in segment_cases(cases, segmenter, out, RESUME).warnings)
    assert not (out / "scores.csv").exists()


def test_a_scan_that_is_replaced_while_it_is_segmented_is_segmented_again(scans, segmenter):
    case, out = find_cases([scans / "cohort" / "q0.nii.gz"])[0], scans / "out"
    batch = open_batch([case.image_path], out, RESUME)
    os.utime(case.image_path, (1, 1))
    assert segment(batch, segmenter).resumed == 0
    assert segment(open_batch([case.image_path], out, RESUME), segmenter).resumed == 0
    assert segment(open_batch([case.image_path], out, RESUME), segmenter).resumed == 1


def test_links_to_other_scans_are_named(scans):
    (scans / "cohort" / "a_link.nii.gz").symlink_to("q0.nii.gz")
    batch = open_batch([scans / "cohort"], scans / "out")
    assert "1 link(s) to others of the scans ignored: a_link.nii.gz" in batch.warnings
    assert batch.cases[0].case_id == "q0"


def test_results_that_were_not_asked_for_again_stay_in_the_record(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases[:2], segmenter, out, PLAIN)
    result = segment_cases(cases[1:], segmenter, out, RESUME)
    assert (len(result.results), result.resumed) == (2, 1)
    record = json.loads((out / "run.json").read_text())
    assert sorted(entry["case"] for entry in record["outputs"]) == ["q0", "q1", "q2"]
    assert {line.split(",")[0] for line in (out / "statistics.csv").read_text().splitlines()[1:]} == {"q0", "q1", "q2"}


def test_a_result_of_another_scan_is_not_replaced(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, PLAIN)
    other = scans / "other" / cases[0].image_path.name
    other.parent.mkdir()
    shutil.copy(cases[0].image_path, other)
    with pytest.raises(InputError, match=r"q0\.nii\.gz: is the result of .*cohort.*, not of .*other"):
        segment_cases(find_cases([other]), segmenter, out, RESUME)


def test_a_scan_that_was_replaced_is_segmented_again(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, PLAIN)
    shutil.copy(cases[1].image_path, cases[0].image_path)
    assert segment_cases(cases, segmenter, out, RESUME).resumed == 2
    os.utime(cases[2].image_path, (1, 1))
    assert segment_cases(cases, segmenter, out, RESUME).resumed == 2


def test_previews_that_were_not_made_before_are_made_on_resuming(scans, segmenter):
    out, cases = scans / "out", find_cases([scans / "cohort"])
    segment_cases(cases, segmenter, out, PLAIN)
    assert segment_cases(cases, segmenter, out, SegmentSettings(resume=True)).resumed == 0
    (out / "previews/q1.png").unlink()
    assert segment_cases(cases, segmenter, out, SegmentSettings(resume=True)).resumed == 2
    assert (out / "previews/q1.png").is_file()
