"""Records: lossless tables, and published figures that agree with one another."""

from __future__ import annotations

import csv
import json

import pytest

from lab.records import RECORDS, Record, read_records, read_run, write_records

CONTENT = {
    "protocol": "volume",
    "id": "liver/one/k1/s0",
    "fingerprint": "1234567890123456",  # a text of digits stays a text
    "cell": {
        "dataset": {"name": "liver", "folder": None, "labels": {"1": "liver"}},
        "learner": {"name": "one", "steps": None, "quality": "standard", "shots": [1]},
        "shots": 1,
        "seed": 0,
    },
    "supports": ["a"],
    "unmarked": [],
    "learner": {"learner": "finetune", "training_dice": [0.5, None], "note": {}},
    "weights_have_seen": {"other": {"subjects": ["x"], "labels": {"1": ""}}},
    "seconds": {"adapt": 0.1 + 0.2},
    "stopped_by": "steps, or not",
}
SCORES = [{"case_id": "q0", "dice": "0.12345678901234567", "hd95_mm": ""}]


def test_records_come_back_as_they_were(tmp_path):
    other = {**CONTENT, "id": "liver/one/kall/s0", "cell": {**CONTENT["cell"], "shots": "all"}, "device": "cpu"}
    records = [Record("a", CONTENT, SCORES), Record("b", CONTENT, []), Record("a", other, SCORES)]
    write_records(records, "volume", tmp_path)
    found = {(record.run, record.id): record for record in read_records("volume", tmp_path)}
    assert len(found) == 3
    for record in records:
        assert found[record.run, record.id].content == record.content
        assert found[record.run, record.id].scores == record.scores


def test_a_warning_names_a_file_without_its_folders(tmp_path):
    texts = ["/home/me/data/a.nii.gz: differs; see b/c, 3/4", "D:\\data\\a.nii.gz: differs"]
    write_records([Record("a", {**CONTENT, "warnings": texts}, [])], "volume", tmp_path)
    (found,) = read_records("volume", tmp_path)
    assert found.content["warnings"] == ["a.nii.gz: differs; see b/c, 3/4", "a.nii.gz: differs"]


def test_a_run_directory_is_read(tmp_path):
    folder = tmp_path / "run" / "cells" / "liver" / "one" / "k1" / "s0"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps(CONTENT))
    (folder / "scores.csv").write_text("case_id,dice,hd95_mm\nq0,0.12345678901234567,\n")
    assert read_run(tmp_path / "run") == [Record("run", CONTENT, SCORES)]


@pytest.mark.parametrize("protocol", ["volume", "oracle-2d"])
def test_every_recorded_cell_has_the_dice_of_its_scores(protocol):
    for record in read_records(protocol):
        if "dice" not in record.content:  # the oldest cells
            continue
        rows = [row for row in record.scores if row["dice"]]
        cases: dict[str, list[float]] = {}
        for row in rows:
            cases.setdefault(row["case_id"] if protocol == "volume" else "all", []).append(float(row["dice"]))
        means = [sum(values) / len(values) for values in cases.values()]
        assert sum(means) / len(means) == pytest.approx(record.content["dice"], abs=1e-9), record.id


def test_the_figures_of_the_first_results_table_agree_with_one_another():
    """Published with three decimals: the mean over seeds, and that over structures, are met within a rounding."""
    with (RECORDS / "finetune/structures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        seeds = [float(row[f"dice_seed_{seed}"]) for seed in range(3)]
        assert float(row["dice"]) == pytest.approx(sum(seeds) / 3, abs=0.0011), row
        assert float(row["dice_ci_low"]) <= float(row["dice"]) <= float(row["dice_ci_high"])
    tasks = {(row["dataset"], row["shots"]) for row in rows}
    for task in tasks:
        *structures, whole = [row for row in rows if (row["dataset"], row["shots"]) == task]
        for name in ("dice", "dice_seed_0", "dice_seed_1", "dice_seed_2", "surface_dice"):
            mean = sum(float(row[name]) for row in structures) / len(structures)
            assert float(whole[name]) == pytest.approx(mean, abs=0.0011), (task, name)
